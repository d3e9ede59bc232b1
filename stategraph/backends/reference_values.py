"""Arrays as values of a program: what the reference interpreter needs to know of types.

Results of JAX's primitives differ from the types of the IR at most in the weak flag; ``fit`` is the one place
that checks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.errors import StateGraphError
from stategraph.ir.arrays import KeyData
from stategraph.ir.core import Constant, Value
from stategraph.ir.types import KeyType, TensorType, Type

Leaves = tuple[Any, ...]
"""The arrays of a State, in order."""
Store = dict[str, Leaves]
"""State by path."""


class ExecutionError(StateGraphError):
    """An op that could not be executed: which one, where, and on what."""


def as_array(x: Any) -> Any:
    """What a user may give, as an array."""
    if isinstance(x, KeyData):
        return jax.random.wrap_key_data(jnp.asarray(x.data), impl=impl_name(x.impl))
    if isinstance(x, jax.Array) or getattr(x, "dtype", None) == jax.dtypes.float0:
        return x
    return jnp.asarray(x)


def impl_name(tag: str) -> str:
    return str(_jax.key_dtype(tag)._impl.name)


def fit(x: Any, type: Type, what: str) -> Any:
    """``x`` as a value of this type: only the weak flag may differ."""
    found = _jax.type_of(_jax.typeof(x))
    if found == type:
        return x
    if (
        not isinstance(type, TensorType)
        or not isinstance(found, TensorType)
        or found.strong() != type.strong()
    ):
        raise ExecutionError(f"{what} has type {found}, the program says {type}")
    return weaken(x, type.weak)


def weaken(x: Any, weak: bool) -> Any:
    convert: Any = _jax.primitive_by_name("convert_element_type")
    return convert.bind(x, new_dtype=np.dtype(x.dtype), weak_type=weak, sharding=None)


def strong(leaves: Sequence[Any]) -> Leaves:
    return tuple(weaken(x, False) if getattr(_jax.typeof(x), "weak_type", False) else x for x in leaves)


def nothing_stacked(type: Type) -> Any:
    """No trips: nothing stacked."""
    if isinstance(type, KeyType):
        data = jax.random.key_data(jax.random.key(0, impl=impl_name(type.impl)))
        return jax.random.wrap_key_data(
            jnp.zeros((*type.shape, *data.shape), data.dtype), impl=impl_name(type.impl)
        )
    aval = _jax.aval_of(type)
    return jnp.zeros(aval.shape, aval.dtype)


def select_going(going: Any, new: Any, old: Any) -> Any:
    """A carry after a trip. The condition of a vmapped loop has one element per lane; ended lanes stay."""
    if not going.ndim:
        return new
    return jnp.where(going.reshape(going.shape + (1,) * (np.ndim(new) - going.ndim)), new, old)


def no_tangent(x: Any) -> Any:
    return np.zeros(np.shape(x), jax.dtypes.float0)


def constant(value: Value) -> Any:
    """The array of a literal operand."""
    if not isinstance(value, Constant):
        raise ExecutionError(f"{value!r} is no constant")
    if value.type.dtype == "f0":  # type: ignore[union-attr]
        return np.zeros(value.data.shape, jax.dtypes.float0)
    return fit(jnp.asarray(value.data), value.type, "constant")
