"""Products that events may take part in: what ``rewrite-events`` looks for, and what it puts in their place.

    x @ w, w @ x, batches and einsums of them     event.dense
    where(x[:, None], w, 0).sum(0), also x * w    event.dense

Every product becomes one of a vector or a batch of vectors with a matrix, and the ops around it that move axes move
events and results, never the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from stategraph.ir.attributes import DType
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.types import TensorType, itemsize_bits
from stategraph.passes.edit import REWRITER, home, visible_outside
from stategraph.passes.event_costs import (
    HUGE,
    LARGE,
    TRIPS,
    TURN,
    Costs,
    Size,
    dense_cost,
    event_cost,
    threshold,
    worst_cost,
)
from stategraph.passes.event_rules import WITHOUT_ZERO, is_filled

FLOATS = ("f16", "bf16", "f32", "f64")


@attrs.frozen
class Place:
    """Where a product stands."""

    loops: tuple[Op, ...] = ()
    """The loops around it, outermost first."""
    lanes: tuple[Op, ...] = ()
    """The maps over lanes around it, outermost first."""
    sharded: bool = False


@attrs.define(eq=False)
class Product:
    """A product that can become one of events."""

    op: Op
    events: Value
    batch: int
    """How many vectors of events there are, lanes included."""
    pre: int
    post: int
    transposed: bool
    refusal: str = ""
    """Why it has to stay as it is."""
    turned: Op | None = None
    """The loop before which the matrix is transposed, so that events choose rows of it; None to take it as it is."""
    steps: int = 1
    """How often the product is computed for each time that the loop is entered."""
    threshold: float | None = None
    """Share of active events above which it has to be an ordinary product; None where kernels may decide."""
    precise: bool = False
    """Whether the user asked for more than the usual precision."""

    @property
    def numbers(self) -> dict[str, int | float | str]:
        return {"batch": self.batch, "pre": self.pre, "post": self.post}

    @property
    def weights(self) -> Value:
        """What the events are multiplied with."""
        raise NotImplementedError

    @property
    def size(self) -> Size:
        return Size(self.batch, self.pre, self.post, itemsize_bits(_dtype(self.weights)) // 8)

    def costs(self, costs: Costs, rate: float) -> tuple[float, float]:
        """Nanoseconds as it is, and as an event product. Where transposing the matrix does not pay, it is left as it is."""
        whole = dense_cost(costs, self.size)
        active = event_cost(costs, self.size, rate, self.transposed)
        if self.turned is not None:
            turned = event_cost(costs, self.size, rate, False)
            turned += TURN * self.pre * self.post / self.steps
            if turned < active:
                return whole, turned
            self.turned = None
        return whole, active

    def has_kernel(self, costs: Costs) -> bool:
        """Whether the machine has kernels for such products."""
        return self.batch == 1 or costs.batches

    def worst(self, costs: Costs) -> float:
        """Nanoseconds of an event product if nearly everything is active."""
        turning = TURN * self.pre * self.post / self.steps if self.turned is not None else 0.0
        return worst_cost(costs, self.size) + turning

    def guard(self, costs: Costs, always: bool) -> None:
        """Nobody has said how many events there are: what XLA does much faster than kernels if they are many becomes an
        ordinary product then, in kernels too; so does one vector where a kernel has no threshold of its own (``always``).
        """
        sideways = self.transposed and self.turned is None
        large = self.size.bytes >= (LARGE if sideways else HUGE)
        if self.batch > 1 or always or large:
            self.threshold = threshold(costs, self.size, sideways)

    def build(self) -> str:
        """Put the event product in its place; returns its name."""
        raise NotImplementedError


def is_event(value: Value) -> bool:
    """Whether a value holds events: noted, or truth values that are no literal."""
    if isinstance(value, Constant) or not isinstance(value.type, TensorType):
        return False
    return value.event is not None or value.type.dtype == "bool"


# ------------------------------------------------------------------------------------------------------------ matrices


@attrs.define(eq=False)
class MatrixProduct(Product):
    """``jax.dot_general`` of events and a matrix."""

    matrix: Value = attrs.field(kw_only=True)
    events_first: bool = attrs.field(kw_only=True)
    order: tuple[int, ...] = attrs.field(kw_only=True)
    """The axes of the events: free ones, then those summed over in the order in which the matrix has them."""
    free: tuple[int, ...] = attrs.field(kw_only=True)
    """The sizes of the free axes of the events."""

    @property
    def weights(self) -> Value:
        return self.matrix

    def build(self) -> str:
        op, emit = self.op, Emit(self.op)
        rows = emit.moved(self.events, self.order)
        many = len(self.free) > 0
        rows = emit.shaped(rows, (_product(self.free), self.pre) if many else (self.pre,))
        matrix = emit.shaped(self.matrix, (self.post, self.pre) if self.transposed else (self.pre, self.post))
        if self.turned is not None:
            matrix = Emit(self.turned).moved(matrix, (1, 0))
        sideways = self.transposed and self.turned is None
        sent = emit.dense(emit.fitting(rows, matrix), matrix, sideways, self.threshold)
        shape = shape_of(op.result)
        if not self.events_first and many:  # (matrix axes, event axes)
            sent = emit.moved(sent, (1, 0))
        emit.instead(emit.shaped(sent, shape))
        return "event.dense" if self.turned is None else "event.dense, its matrix transposed before the loop"


def dot_general(op: Op, place: Place) -> Product | None:
    left, right = op.operands
    for events, matrix, first in ((left, right, True), (right, left, False)):
        if is_event(events):
            found = _matrix_product(op, events, matrix, first, place)
            if found is not None:
                return found
    return None


def _matrix_product(op: Op, events: Value, matrix: Value, first: bool, place: Place) -> Product | None:
    (contracted, batched) = op.attributes["dimension_numbers"]
    own, other = contracted if first else contracted[::-1]
    result = op.result.type
    if batched[0] or not isinstance(matrix.type, TensorType) or not isinstance(result, TensorType):
        return None
    if not own or matrix.type.dtype not in FLOATS or matrix.type.dtype != result.dtype or result.weak:
        return None
    given, shape = shape_of(events), matrix.type.shape
    pairs = sorted(zip(other, own, strict=True))  # in the order of the matrix
    axes = [axis for axis, _ in pairs]
    leading, trailing = (
        axes == list(range(len(axes))),
        axes == list(range(len(shape) - len(axes), len(shape))),
    )
    if not (leading or trailing) or len(axes) == len(shape):
        return None
    made_by = matrix.defining_op
    if (
        made_by is not None
        and made_by.name == "jax.transpose"
        and made_by.attributes["permutation"] == (1, 0)
    ):
        matrix, leading = made_by.operands[0], not leading  # x @ w.T: rows and columns change roles
        shape = shape[::-1]
    turned, steps = outside(place, matrix) if not leading and len(shape) == 2 else (None, 1)
    free = tuple(axis for axis in range(len(given)) if axis not in own)
    sizes = tuple(given[axis] for axis in free)
    pre = _product(given[axis] for axis in own)
    found = MatrixProduct(
        op,
        events,
        _product(sizes) * lanes_of(events, matrix, place),
        pre,
        _product(shape) // max(pre, 1),
        not leading,
        refusal_at(op, place) or _own_matrix(matrix, place) or _own_algorithm(op),
        turned,
        steps,
        precise=_is_precise(op),
        matrix=matrix,
        events_first=first,
        order=(*free, *(axis for _, axis in pairs)),
        free=sizes,
    )
    return found if found.pre and found.post and found.batch else None


def _own_algorithm(op: Op) -> str:
    precision = op.attributes.get("precision")
    return "" if precision is None or isinstance(precision, tuple) else "its algorithm is chosen"


def _is_precise(op: Op) -> bool:
    """Whether one of ``lax.Precision`` is asked for that is not the default."""
    precision = op.attributes.get("precision")
    return isinstance(precision, tuple) and any(one.member != "DEFAULT" for one in precision)


# ---------------------------------------------------------------------------------------------------------- masked sums


@attrs.define(eq=False)
class MaskedSum(Product):
    """The sum of those rows of a matrix that events choose."""

    matrix: Value = attrs.field(kw_only=True)
    conversions: tuple[str, ...] = attrs.field(kw_only=True)
    """The dtypes that the mask makes of the events, one after another: they may be other numbers there."""

    @property
    def weights(self) -> Value:
        return self.matrix

    def costs(self, costs: Costs, rate: float) -> tuple[float, float]:
        whole, active = Product.costs(self, costs, rate)
        return max(whole, self.pre * self.post * costs.masked), active  # it writes what it sums

    def build(self) -> str:
        emit = Emit(self.op)
        rows = emit.shaped(self.events, (self.pre,))
        for dtype in self.conversions:
            rows = emit.converted(rows, dtype)
        rows = emit.fitting(rows, self.matrix)
        emit.instead(emit.dense(rows, self.matrix, self.transposed, self.threshold))
        return "event.dense"


def masked_sum(op: Op, place: Place) -> Product | None:
    masked = op.operands[0].defining_op
    type_, axes = op.operands[0].type, op.attributes.get("axes")
    if masked is None or not isinstance(type_, TensorType) or len(type_.shape) != 2:
        return None
    if (
        masked.name not in ("jax.select_n", "jax.mul")
        or len(op.operands[0].users) != 1
        or axes not in ((0,), (1,))
    ):
        return None
    if type_.dtype not in FLOATS or op.result.type != TensorType(type_.dtype, (type_.shape[1 - axes[0]],)):
        return None
    if masked.name == "jax.mul":
        pairs = [(masked.operands[0], masked.operands[1]), (masked.operands[1], masked.operands[0])]
    elif (
        len(masked.operands) == 3
        and is_filled(masked.operands[1], 0)
        and _dtype(masked.operands[0]) == "bool"  # a whole number chooses a case, and is no factor
    ):
        pairs = [(masked.operands[0], masked.operands[2])]
    else:
        return None
    for mask, matrix in pairs:
        mask, conversions = _unconverted(mask)
        events = _along(mask, axes[0], type_.shape[axes[0]])
        if events is not None and shape_of(matrix) == type_.shape and not isinstance(matrix, Constant):
            pre, post = type_.shape[axes[0]], type_.shape[1 - axes[0]]
            binary = _dtype(events) == "bool" or events.event == "binary"
            if binary and WITHOUT_ZERO not in conversions:
                conversions = ()  # 0 and 1 are that in every other dtype
            batch = lanes_of(events, matrix, place)
            refusal = refusal_at(op, place) or _own_matrix(matrix, place)
            return MaskedSum(
                op,
                events,
                batch,
                pre,
                post,
                axes[0] == 1,
                refusal,
                matrix=matrix,
                conversions=conversions,
            )
    return None


def _unconverted(mask: Value) -> tuple[Value, tuple[str, ...]]:
    """What a mask was before its dtype was changed, and the dtypes that it was given."""
    dtypes: list[str] = []
    made_by = mask.defining_op
    while made_by is not None and made_by.name == "jax.convert_element_type":
        dtypes.append(_dtype(mask))
        mask = made_by.operands[0]
        made_by = mask.defining_op
    return mask, tuple(dtypes[::-1])


def _along(mask: Value, axis: int, size: int) -> Value | None:
    """The events, one for each index of ``axis``, of which a mask is the broadcast; None when it is none."""
    made_by = mask.defining_op
    if made_by is None:
        return None
    given = made_by.operands[0] if made_by.name == "jax.broadcast_in_dim" else mask
    shape = shape_of(given)
    if not is_event(given) or _product(shape) != size:
        return None
    places = made_by.attributes["broadcast_dimensions"] if given is not mask else tuple(range(len(shape)))
    along = [place for place, length in zip(places, shape, strict=True) if length != 1]
    return given if along in ([axis], []) and size > 1 else None


# --------------------------------------------------------------------------------------------------------- small things


def refusal_at(op: Op, place: Place) -> str:
    if place.sharded or op.attributes.get("out_sharding") is not None:
        return "its operands are sharded, and an event product runs on one device"
    return ""


def outside(place: Place, *values: Value) -> tuple[Op | None, int]:
    """The outermost loop that does not change some values, and how often its innermost body runs in it."""
    for i, loop in enumerate(place.loops):
        if all(visible_outside(value, loop.regions) for value in values):
            return loop, _product(max(inner.attributes.get("length", TRIPS), 1) for inner in place.loops[i:])
    return None, 1


def lanes_of(events: Value, matrix: Value, place: Place) -> int:
    """How many vectors of events the lanes around a product make, if they share the matrix."""
    return _product(op.attributes["size"] for op in place.lanes if not _is_shared(events, op))


def _own_matrix(matrix: Value, place: Place) -> str:
    if all(_is_shared(matrix, op) for op in place.lanes):
        return ""
    return "every lane has a matrix of its own"


def _is_shared(value: Value, lanes: Op) -> bool:
    """Whether a value is the same in all lanes, as far as that is easy to see."""
    body = lanes.regions[0]
    pending, seen = [value], {value}
    while pending:
        here = pending.pop()
        if isinstance(here, Constant) or not _stands_in(here, body):
            continue
        if here.owner is body:
            if lanes.attributes["in_axes"][here.index] is not None:
                return False
            continue
        if not isinstance(here.owner, Op) or here.owner.regions or not here.owner.name.startswith("jax."):
            return False
        pending += [operand for operand in here.owner.operands if operand not in seen]
        seen.update(here.owner.operands)
    return True


def _stands_in(value: Value, body: Region) -> bool:
    region = home(value)
    while region is not None and region is not body:
        region = region.parent_op.parent if region.parent_op is not None else None
    return region is body


class Emit:
    """Makes ops in front of the op that they replace."""

    def __init__(self, anchor: Op) -> None:
        self.anchor = anchor

    def op(
        self, name: str, operands: Sequence[Value], type_: TensorType, attributes: dict[str, Any]
    ) -> Value:
        new = Op(name, operands, [type_], attributes, (), self.anchor.location)
        REWRITER.insert_before(self.anchor, new)
        return new.result

    def instead(self, value: Value) -> None:
        REWRITER.replace(self.anchor, [value])

    def dense(self, events: Value, matrix: Value, transposed: bool, threshold: float | None) -> Value:
        arrived = shape_of(matrix)[0 if transposed else 1]
        type_ = TensorType(_dtype(matrix), (*shape_of(events)[:-1], arrived))
        attributes = {"threshold": threshold, "transposed": transposed}
        return self.op("event.dense", [events, matrix], type_, attributes)

    def moved(self, value: Value, order: tuple[int, ...]) -> Value:
        if order == tuple(range(len(order))):
            return value
        shape = tuple(shape_of(value)[axis] for axis in order)
        return self._kept(value, "jax.transpose", shape, {"permutation": order})

    def shaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        if shape_of(value) == shape:
            return value
        return self._kept(
            value, "jax.reshape", shape, {"dimensions": None, "new_sizes": shape, "sharding": None}
        )

    def _kept(self, value: Value, name: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> Value:
        assert isinstance(value.type, TensorType)
        new = self.op(name, [value], TensorType(value.type.dtype, shape, value.type.weak), attributes)
        new.event = value.event
        return new

    def fitting(self, events: Value, matrix: Value) -> Value:
        """Events are truth values, or of the matrix's dtype."""
        if _dtype(events) in ("bool", _dtype(matrix)):
            return events
        return self.converted(events, _dtype(matrix))

    def whole(self, value: Value) -> Value:
        """Places are 32-bit numbers."""
        return value if _dtype(value) == "i32" else self.converted(value, "i32")

    def converted(self, value: Value, dtype: str) -> Value:
        attributes = {"new_dtype": DType(dtype), "sharding": None, "weak_type": False}
        new = self.op("jax.convert_element_type", [value], TensorType(dtype, shape_of(value)), attributes)
        new.event = value.event if dtype != "bool" else None
        return new


def shape_of(value: Value) -> tuple[int, ...]:
    return value.type.shape if isinstance(value.type, TensorType) else ()


def _dtype(value: Value) -> str:
    return value.type.dtype if isinstance(value.type, TensorType) else ""


def _product(sizes: Any) -> int:
    found = 1
    for size in sizes:
        found *= size
    return found
