"""Precision: the dtypes that numbers have by default.

Not set, it is JAX's: 32 bits, or 64 under ``jax_enable_x64``. Setting 64 switches JAX's 64-bit types on,
because there are none without; any other precision switches them off.
"""

from __future__ import annotations

import contextlib
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph._jax import x64
from stategraph.environ.fingerprint import MISSING
from stategraph.environ.settings import PRECISION, SPECIAL, EnvironmentState, Special, of, set


@attrs.frozen
class Precision:
    """The default dtypes of one precision."""

    bits: int
    float: Any
    int: Any
    unsigned: Any
    complex: Any
    tolerance: Any


TABLE: dict[Any, Precision] = {
    16: Precision(16, np.float16, np.int16, np.uint16, np.complex64, np.float16(1e-2)),
    "bf16": Precision(16, jnp.bfloat16, np.int16, np.uint16, np.complex64, np.float16(1e-2)),
    32: Precision(32, np.float32, np.int32, np.uint32, np.complex64, np.float32(1e-5)),
    64: Precision(64, np.float64, np.int64, np.uint64, np.complex128, np.float64(1e-12)),
}
_SPELLINGS = {"16": 16, "32": 32, "64": 64, "bfloat16": "bf16", "float16": 16, "float32": 32, "float64": 64}
_before: bool | None = None
"""Whether 64-bit types were on before the precision was set."""


def _check(value: Any) -> Any:
    found = _SPELLINGS.get(value, value) if isinstance(value, str) else value
    try:
        known = found in TABLE
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"precision has to be 16, 32, 64 or 'bf16', not {value!r}")
    return found


def _apply(value: Any) -> None:
    global _before
    if value is MISSING:
        wanted, _before = _before, None
    else:
        _before = x64() if _before is None else _before
        wanted = value == 64
    if wanted is not None and wanted != x64():
        jax.config.update("jax_enable_x64", wanted)


def _inside(value: Any) -> contextlib.AbstractContextManager[Any]:
    return jax.enable_x64(value == 64) if (value == 64) != x64() else contextlib.nullcontext()


SPECIAL[PRECISION] = Special(default=lambda: 64 if x64() else 32, check=_check, apply=_apply, inside=_inside)


def set_precision(precision: int | str, *, env: EnvironmentState | None = None) -> None:
    """Choose the default dtypes: 16, 32 or 64 bits, or ``"bf16"``."""
    set(precision=precision, env=env)


def get_precision(*, env: EnvironmentState | None = None) -> int:
    """The bits of the default dtypes: 16 (also for ``"bf16"``), 32 or 64."""
    return _current(env).bits


def dftype(*, env: EnvironmentState | None = None) -> Any:
    """The default floating-point type."""
    return _current(env).float


def ditype(*, env: EnvironmentState | None = None) -> Any:
    """The default integer type."""
    return _current(env).int


def dutype(*, env: EnvironmentState | None = None) -> Any:
    """The default unsigned integer type."""
    return _current(env).unsigned


def dctype(*, env: EnvironmentState | None = None) -> Any:
    """The default complex type."""
    return _current(env).complex


def tolerance(*, env: EnvironmentState | None = None) -> np.ndarray:
    """How far apart numbers of the default floating-point type may be and count as equal, as an array of that
    type.
    """
    return np.asarray(_current(env).tolerance)


def _current(env: EnvironmentState | None) -> Precision:
    return TABLE[of(env).lookup(PRECISION)]
