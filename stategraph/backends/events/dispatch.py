"""Which kernel computes an event product: one table, read from the top, the first that fits is taken.

A kernel is a function of the operands; a row's ``build`` gives it for operand types and parameters, or None when it
has none for them. Native kernels belong to one process, so programs that are exported, or lowered for several
platforms, take the generic ones. So do kernels in Pallas: they are compiled for the GPU that this process has. The loops
that XLA compiles as one function are for programs of this process too, where each device runs its own.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import jax

from stategraph import _jax
from stategraph.backends.events import changes, generic, jit_generic, jit_native, loops, native, ring

Compute = Callable[..., Any]
SMALL = 4096
"""Elements of a matrix below which an ordinary product is always faster."""
AMPERE = 8
"""The oldest generation of NVIDIA GPUs that Triton compiles for, as compute capability."""
PLACES = 2**31
"""More elements than places in 32 bits tell apart."""
ORDERED = ("--xla_gpu_deterministic_ops", "--xla_gpu_exclude_nondeterministic_ops")
"""Flags of XLA that ask for sums in a fixed order."""


@attrs.frozen
class Row:
    """One line of the table."""

    op: str
    platform: str | None
    """``cpu``, ``cuda``, …; None for all."""
    process: bool
    """Whether the kernel belongs to this process, or is for programs of this process."""
    kernel: str
    build: Callable[..., Compute | None]
    alone: bool = False
    """Whether it is for programs that run on one device only."""


def _always(function: Compute) -> Callable[..., Compute | None]:
    return lambda avals, **params: function


def _loop(op: str, function: Compute) -> Row:
    """A row of one loop that XLA compiles as one function."""
    build = _always(function) if _jax.KNOWS_CALLS else _never
    return Row(op, "cpu", True, "loop over active rows, as one function", build, True)


def _never(avals: Any, **params: Any) -> None:
    return None


def _if_small(avals: Any, *, transposed: bool, threshold: float | None) -> Compute | None:
    return generic.dense_whole if threshold is None and avals[1].size <= SMALL else None


def _pallas(
    module: str, name: str, ordered: bool = True, short: bool = True
) -> Callable[..., Compute | None]:
    """A kernel in Pallas; ``ordered``: whether its sums are made in a fixed order; ``short``: whether it takes 16-bit floats."""
    types = [{"float32"}, {"float64"}, *([{"float16"}, {"bfloat16"}] if short else [])]

    def build(avals: Any, *, shape: tuple[int, int], prob: float = 1.0, **params: Any) -> Compute | None:
        floats = {aval.dtype.name for aval in avals if aval.dtype.kind not in "biu"}
        if floats not in types:
            return None
        batch = avals[0].shape[0] if avals[0].ndim == 2 else 1
        sizes = (batch * shape[0], batch * shape[1], *(aval.size for aval in avals))
        if not prob or not all(0 < size < PLACES for size in sizes):
            return None
        if not ordered and _order_matters():
            return None
        return _function(module, name)

    return build


def _function(module: str, name: str) -> Compute:
    """A function of a module that imports much of JAX."""
    found: Compute = getattr(importlib.import_module(f"stategraph.backends.events.{module}"), name)
    return found


def _order_matters() -> bool:
    """Whether somebody asked XLA for the same bits each time."""
    flags = (flag.partition("=") for flag in os.environ.get("XLA_FLAGS", "").split())
    return any(name in ORDERED and value.lower() not in ("false", "0") for name, _, value in flags)


def _dense_on_gpu(avals: Any, *, transposed: bool, threshold: float | None) -> Compute | None:
    """Rows of one vector's events: those of several are an ordinary product, and so are columns."""
    if transposed or avals[0].ndim != 1:
        return None
    kernel = _pallas("pallas_dense", "dense", False)
    return kernel(avals, shape=avals[1].shape)


def _list_on_gpu(avals: Any) -> Compute | None:
    if not 0 < avals[0].size < PLACES - 1:
        return None
    return _function("pallas_dense", "places")


TABLE: tuple[Row, ...] = (
    # op               platform process kernel                  build
    Row("event.csr", "cpu", True, "native: list, rows", native.csr),
    Row("event.csr", "cuda", True, "Pallas: rows of active neurons", _pallas("pallas", "csr", False)),
    _loop("event.csr", loops.csr),
    Row("event.csr", "cpu", False, "loop over active rows", _always(generic.csr_by_rows)),
    Row("event.csr", None, False, "all synapses", _always(generic.csr_by_synapses)),
    Row("event.csr_add", "cpu", True, "native: list, rows, in place", native.csr_add),
    Row("event.csr_add", "cuda", True, "Pallas: rows of active neurons", _pallas("pallas", "csr_add", False)),
    _loop("event.csr_add", loops.csr_add),
    Row("event.csr_add", "cpu", False, "loop over active rows", _always(generic.added(generic.csr_by_rows))),
    Row("event.csr_add", None, False, "all synapses", _always(generic.added(generic.csr_by_synapses))),
    Row("event.csr_outer", "cpu", True, "native: list, rows", native.csr_outer),
    Row("event.csr_outer", "cuda", True, "Pallas: rows side by side", _pallas("pallas", "csr_outer")),
    _loop("event.csr_outer", loops.csr_outer),
    Row("event.csr_outer", "cpu", False, "loop over active rows", _always(generic.outer_by_rows)),
    Row("event.csr_outer", None, False, "all synapses", _always(generic.outer_by_synapses)),
    Row("event.csr_outer_add", "cpu", True, "native: list, rows, in place", native.csr_outer_add),
    Row(
        "event.csr_outer_add",
        "cuda",
        True,
        "Pallas: rows of active neurons",
        _pallas("pallas", "csr_outer_add", False),
    ),
    _loop("event.csr_outer_add", loops.csr_outer_add),
    Row("event.csr_outer_add", "cpu", False, "loop over active rows", _always(generic.outer_add_by_rows)),
    Row(
        "event.csr_outer_add", None, False, "all synapses", _always(generic.added(generic.outer_by_synapses))
    ),
    Row("event.csr_change", "cpu", True, "native: list, rows, in place", changes.change_native),
    Row(
        "event.csr_change",
        "cuda",
        True,
        "Pallas: rows of active neurons",
        _pallas("pallas", "csr_change", short=False),
    ),
    _loop("event.csr_change", loops.csr_change),
    Row("event.csr_change", "cpu", False, "loop over active rows", _always(changes.change_by_rows)),
    Row("event.csr_change", None, False, "all synapses", _always(changes.change_by_synapses)),
    Row("event.csr_ring", "cpu", True, "native: list, rows, in place", ring.ring_native),
    Row(
        "event.csr_ring", "cuda", True, "Pallas: rows of active neurons", _pallas("pallas", "csr_ring", False)
    ),
    _loop("event.csr_ring", loops.csr_ring),
    Row("event.csr_ring", "cpu", False, "loop over active rows", _always(ring.ring_by_rows)),
    Row("event.csr_ring", None, False, "all synapses", _always(ring.ring_by_synapses)),
    Row("event.compact", "cpu", True, "native: list", native.places),
    Row("event.compact", "cuda", True, "Pallas: list", _list_on_gpu),
    Row("event.compact", None, False, "all elements", _always(generic.places)),
    Row("event.list", "cpu", True, "native: memory that is not touched", native.empty_list),
    Row("event.list", None, False, "zeros", _always(generic.empty_list)),
    Row("event.append", None, False, "all elements", _always(generic.appended)),
    Row("event.dense", None, False, "matrix product", _if_small),
    Row("event.dense", "cpu", True, "native: list, rows; matrix product above a threshold", native.dense),
    Row("event.dense", "cuda", True, "Pallas: rows of active neurons", _dense_on_gpu),
    _loop("event.dense", loops.dense),
    Row("event.dense", "cpu", False, "loop over active rows", _always(generic.dense_by_rows)),
    Row("event.dense", None, False, "matrix product", _always(generic.dense_whole)),
    Row("event.jit", "cpu", True, "native: list, rows made of the seed", jit_native.jit),
    Row("event.jit", "cuda", True, "Pallas: rows made of the seed", _pallas("pallas_jit", "jit", False)),
    _loop("event.jit", loops.jit),
    Row("event.jit", "cpu", False, "loop over active rows", _always(jit_generic.jit_by_rows)),
    Row("event.jit", None, False, "all synapses", _always(jit_generic.jit_by_synapses)),
)


def on_gpu() -> bool:
    """Whether this process runs programs on a GPU that Triton compiles for, unless somebody says otherwise."""
    device = _device()
    generation = str(getattr(device, "compute_capability", "")).partition(".")[0]  # of NVIDIA's a number
    recent = device.platform == "gpu" and generation.isdigit() and int(generation) >= AMPERE
    return recent and _lowers_kernels()


@functools.cache
def _lowers_kernels() -> bool:
    """Whether this JAX lowers kernels in Pallas through Triton, which it says it will not for ever. Where it does not, one
    message says what that means.
    """
    try:
        _function("pallas_dense", "try_lowering")()
    except Exception as error:  # whatever it is, the generic forms compute the same
        warnings.warn(
            f"JAX {jax.__version__} does not lower kernels in Pallas through Triton ({type(error).__name__}: {error}), so "
            "products of events on GPUs look at every synapse: XLA compiles their generic forms. An earlier JAX does.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _device() -> Any:
    """Where programs run that nobody puts elsewhere."""
    chosen = getattr(jax.config, "jax_default_device")  # noqa: B009, mypy does not know it
    return jax.devices(chosen)[0] if chosen is None or isinstance(chosen, str) else chosen


def choose(
    op: str, platform: str, in_process: bool, avals: Sequence[Any], params: dict[str, Any], alone: bool = True
) -> tuple[str, Compute]:
    """(name, function) of the kernel for a product.

    Args:
      op: the name of the op.
      platform: what it runs on.
      in_process: whether kernels of this process may be used.
      avals: the types of the operands.
      params: the parameters of the op.
      alone: whether the program runs on one device, or on each of several by itself.
    """
    for row in TABLE:
        if row.op == op and row.platform in (platform, None) and (in_process or not row.process):
            if row.alone and not alone:
                continue
            if row.platform == "cuda" and not on_gpu():
                continue
            found = row.build(avals, **params)
            if found is not None:
                return row.kernel, found
    raise LookupError(f"no kernel for {op} on {platform}")
