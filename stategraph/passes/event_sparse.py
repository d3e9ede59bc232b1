"""Products of events with sparse matrices of ``jax.experimental.sparse``, for ``rewrite-events``.

    BCSR @ x            event.csr, against the direction of its rows
    x @ BCOO, BCOO @ x  event.csr, over synapses that are sorted once before the loop around the product

A matrix in BCOO form lists its synapses in any order. Sorting them costs more than one product, so there has to be a
loop that does not change them.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from stategraph.ir.core import Op, Value
from stategraph.ir.location import Location
from stategraph.ir.types import TensorType
from stategraph.passes.edit import REWRITER
from stategraph.passes.event_costs import START, Costs, synapse_costs
from stategraph.passes.event_products import (
    FLOATS,
    Emit,
    Place,
    Product,
    is_event,
    outside,
    refusal_at,
    shape_of,
)
from stategraph.passes.expand_transforms import Expansion

Sorting = Callable[[Value, Value, int, tuple[int, int], Location], Expansion]
"""(weights, places ``(synapses, 2)``, the axis of pre, the matrix's shape, location) -> ops, and weights, indptr, indices."""
SORTED: dict[str, Sorting] = {}
"""How to sort synapses by pre neuron: ``SORTED["coo"]``, filled by the backend."""


@attrs.define(eq=False)
class SparseProduct(Product):
    """A sparse matrix times events."""

    synapses: int = attrs.field(kw_only=True)

    @property
    def numbers(self) -> dict[str, int | float | str]:
        return {"batch": self.batch, "pre": self.pre, "post": self.post, "synapses": self.synapses}

    @property
    def weights(self) -> Value:
        return self.op.operands[0]

    def has_kernel(self, costs: Costs) -> bool:
        return True

    def worst(self, costs: Costs) -> float:
        return self.costs(costs, 1.0)[1]


@attrs.define(eq=False)
class SparseRows(SparseProduct):
    """A matrix in compressed rows, whose columns the events choose."""

    def costs(self, costs: Costs, rate: float) -> tuple[float, float]:
        """The event product looks at all synapses, whatever is active."""
        count = self.batch * self.synapses
        return START + count * costs.compressed, costs.call + count * costs.sparse

    def build(self) -> str:
        data, indices, indptr, _ = self.op.operands
        emit = Emit(self.op)
        events = emit.fitting(self.events, data)
        attributes = {"shape": (self.post, self.pre), "transposed": True}
        places = [emit.whole(indptr), emit.whole(indices)]
        emit.instead(emit.op("event.csr", [events, data, *places], _result(self.op), attributes))
        return "event.csr"


@attrs.define(eq=False)
class SparsePlaces(SparseProduct):
    """A list of synapses."""

    axis: int = attrs.field(kw_only=True)
    """The axis of the matrix along which the events lie."""
    data: Value = attrs.field(kw_only=True)
    places: Value = attrs.field(kw_only=True)

    def costs(self, costs: Costs, rate: float) -> tuple[float, float]:
        whole, active = synapse_costs(costs, self.batch, self.pre, self.synapses, rate)
        return whole, active + costs.sort * self.synapses / self.steps

    def build(self) -> str:
        loop, emit = self.turned, Emit(self.op)
        shape = (self.pre, self.post) if self.axis == 0 else (self.post, self.pre)
        ops, (weights, indptr, indices) = SORTED["coo"](
            self.data, self.places, self.axis, shape, self.op.location
        )
        if loop is not None:
            REWRITER.insert_before(loop, *ops)
        events = emit.fitting(self.events, self.data)
        attributes = {"shape": (self.pre, self.post), "transposed": False}
        emit.instead(emit.op("event.csr", [events, weights, indptr, indices], _result(self.op), attributes))
        return "event.csr, its synapses sorted before the loop"


def sparse_rows(op: Op, place: Place) -> Product | None:
    """``jax.bcsr_dot_general`` of a matrix and a vector of events."""
    data, indices, _, events = op.operands
    shape = _matrix_shape(op)
    (contracted, batched) = op.attributes["dimension_numbers"]
    if shape is None or not is_event(events) or len(shape_of(events)) != 1 or len(shape_of(indices)) != 1:
        return None
    if contracted != ((1,), (0,)) or batched != ((), ()) or not _is_plain(op, data, shape[0]):
        return None
    return SparseRows(
        op, events, 1, shape[1], shape[0], True, refusal_at(op, place), synapses=shape_of(indices)[0]
    )


def sparse_places(op: Op, place: Place) -> Product | None:
    """``jax.bcoo_dot_general`` of a matrix and a vector of events."""
    data, places, events = op.operands
    shape = _matrix_shape(op)
    ((own, other), batched) = op.attributes["dimension_numbers"]
    if shape is None or not is_event(events) or len(shape_of(events)) != 1 or "coo" not in SORTED:
        return None
    if other != (0,) or len(own) != 1 or batched != ((), ()) or shape_of(places) != (*shape_of(data), 2):
        return None
    (axis,) = own
    pre, post = shape[axis], shape[1 - axis]
    if not _is_plain(op, data, post) or place.lanes:
        return None
    turned = data.defining_op
    if turned is not None and turned is places.defining_op and turned.name == "jax.bcoo_transpose":
        if turned.attributes["permutation"] != (1, 0):
            return None
        (data, places), axis = turned.operands, 1 - axis  # of m.T
    loop, steps = outside(place, data, places)
    refusal = refusal_at(op, place)
    if loop is None:
        refusal = (
            refusal or "its synapses would be sorted for each product; event.CSR and BCSR have them in order"
        )
    return SparsePlaces(
        op,
        events,
        1,
        pre,
        post,
        False,
        refusal,
        loop,
        steps,
        synapses=shape_of(data)[0],
        axis=axis,
        data=data,
        places=places,
    )


def _matrix_shape(op: Op) -> tuple[int, int] | None:
    shape = dict(getattr(op.attributes["lhs_spinfo"], "fields", ())).get("shape")
    return shape if isinstance(shape, tuple) and len(shape) == 2 else None


def _is_plain(op: Op, data: Value, post: int) -> bool:
    """One weight for each synapse, and what arrives is of their type."""
    if not isinstance(data.type, TensorType) or data.type.dtype not in FLOATS or len(data.type.shape) != 1:
        return False
    return op.result.type == TensorType(data.type.dtype, (post,))


def _result(op: Op) -> TensorType:
    type_ = op.result.type
    assert isinstance(type_, TensorType)
    return type_
