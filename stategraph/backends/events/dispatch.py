"""Which kernel computes an event product: one table, read from the top, the first that fits is taken.

A kernel is a function of the operands; a row's ``build`` gives it for operand types and parameters, or None when it
has none for them. Native kernels belong to one process, so programs that are exported, or lowered for several
platforms, take the generic ones. The kernels in Pallas have only run in its interpreter and been compiled for GPUs, not
measured on one: they are taken where the environment says ``STATEGRAPH_PALLAS=1``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from stategraph.backends.events import changes, generic, jit_generic, jit_native, native, ring

Compute = Callable[..., Any]
SMALL = 4096
"""Elements of a matrix below which an ordinary product is always faster."""


@attrs.frozen
class Row:
    """One line of the table."""

    op: str
    platform: str | None
    """``cpu``, ``cuda``, …; None for all."""
    process: bool
    """Whether the kernel belongs to this process."""
    kernel: str
    build: Callable[..., Compute | None]


def _always(function: Compute) -> Callable[..., Compute | None]:
    return lambda avals, **params: function


def _if_small(avals: Any, *, transposed: bool, threshold: float | None) -> Compute | None:
    return generic.dense_whole if threshold is None and avals[1].size <= SMALL else None


def _pallas(name: str) -> Callable[..., Compute | None]:
    """A kernel of ``pallas.py``, where ``STATEGRAPH_PALLAS=1`` asks for them."""

    def build(avals: Any, *, shape: tuple[int, int], transposed: bool) -> Compute | None:
        if transposed or os.environ.get("STATEGRAPH_PALLAS") != "1":
            return None
        from stategraph.backends.events import pallas  # imports much of JAX

        compute: Compute = getattr(pallas, name)
        return compute

    return build


TABLE: tuple[Row, ...] = (
    # op               platform process kernel                  build
    Row("event.csr", "cpu", True, "native: list, rows", native.csr),
    Row("event.csr", "cuda", True, "Pallas: a program for each neuron", _pallas("csr")),
    Row("event.csr", "cpu", False, "loop over active rows", _always(generic.csr_by_rows)),
    Row("event.csr", None, False, "all synapses", _always(generic.csr_by_synapses)),
    Row("event.csr_add", "cpu", True, "native: list, rows, in place", native.csr_add),
    Row("event.csr_add", "cuda", True, "Pallas: a program for each neuron, in place", _pallas("csr_add")),
    Row("event.csr_add", "cpu", False, "loop over active rows", _always(generic.added(generic.csr_by_rows))),
    Row("event.csr_add", None, False, "all synapses", _always(generic.added(generic.csr_by_synapses))),
    Row("event.csr_outer", "cpu", True, "native: list, rows", native.csr_outer),
    Row("event.csr_outer", "cpu", False, "loop over active rows", _always(generic.outer_by_rows)),
    Row("event.csr_outer", None, False, "all synapses", _always(generic.outer_by_synapses)),
    Row("event.csr_outer_add", "cpu", True, "native: list, rows, in place", native.csr_outer_add),
    Row("event.csr_outer_add", "cpu", False, "loop over active rows", _always(generic.outer_add_by_rows)),
    Row(
        "event.csr_outer_add", None, False, "all synapses", _always(generic.added(generic.outer_by_synapses))
    ),
    Row("event.csr_change", "cpu", True, "native: list, rows, in place", changes.change_native),
    Row("event.csr_change", "cpu", False, "loop over active rows", _always(changes.change_by_rows)),
    Row("event.csr_change", None, False, "all synapses", _always(changes.change_by_synapses)),
    Row("event.csr_ring", "cpu", True, "native: list, rows, in place", ring.ring_native),
    Row("event.csr_ring", "cpu", False, "loop over active rows", _always(ring.ring_by_rows)),
    Row("event.csr_ring", None, False, "all synapses", _always(ring.ring_by_synapses)),
    Row("event.compact", "cpu", True, "native: list", native.places),
    Row("event.compact", None, False, "all elements", _always(generic.places)),
    Row("event.dense", None, False, "matrix product", _if_small),
    Row("event.dense", "cpu", True, "native: list, rows; matrix product above a threshold", native.dense),
    Row("event.dense", "cpu", False, "loop over active rows", _always(generic.dense_by_rows)),
    Row("event.dense", None, False, "matrix product", _always(generic.dense_whole)),
    Row("event.jit", "cpu", True, "native: list, rows made of the seed", jit_native.jit),
    Row("event.jit", "cpu", False, "loop over active rows", _always(jit_generic.jit_by_rows)),
    Row("event.jit", None, False, "all synapses", _always(jit_generic.jit_by_synapses)),
)


def choose(
    op: str, platform: str, in_process: bool, avals: Sequence[Any], params: dict[str, Any]
) -> tuple[str, Compute]:
    """(name, function) of the kernel for a product.

    Args:
      op: the name of the op.
      platform: what it runs on.
      in_process: whether kernels of this process may be used.
      avals: the types of the operands.
      params: the parameters of the op.
    """
    for row in TABLE:
        if row.op == op and row.platform in (platform, None) and (in_process or not row.process):
            found = row.build(avals, **params)
            if found is not None:
                return row.kernel, found
    raise LookupError(f"no kernel for {op} on {platform}")
