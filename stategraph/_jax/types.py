"""Types of the IR from avals and back, and parameters that need a class or a tree of JAX."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax._src import core, dtypes

from stategraph.ir.types import KeyType, OpaqueType, TensorType, Type, numpy_dtype, short_dtype

_TYPES: dict[tuple[Any, ...], Type] = {}


def type_of(aval: Any) -> Type:
    """The IR type of a JAX aval."""
    dtype = getattr(aval, "dtype", None)
    shape = getattr(aval, "shape", None)
    if dtype is None or shape is None or type(aval) is not core.ShapedArray:
        return OpaqueType(str(aval))
    key = (dtype, shape, aval.weak_type)
    found = _TYPES.get(key)
    if found is None:
        if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
            found = KeyType(dtype._impl.tag, tuple(shape))
        else:
            found = TensorType(
                short_dtype(dtype.name if dtype != dtypes.float0 else "float0"),
                tuple(shape),
                bool(aval.weak_type),
            )
        _TYPES[key] = found
    return found


def result_types(eqn: Any) -> list[Type]:
    """The IR types of what an equation gives."""
    return [type_of(var.aval) for var in eqn.outvars]


@functools.cache
def aval_of(type: Type) -> Any:
    """The JAX aval of an IR type."""
    if isinstance(type, TensorType):
        dtype = dtypes.float0 if type.dtype == "f0" else numpy_dtype(type.dtype)
        return core.ShapedArray(type.shape, dtype, weak_type=type.weak)
    if isinstance(type, KeyType):
        return core.ShapedArray(type.shape, key_dtype(type.impl))
    raise TypeError(f"no JAX type for {type}")


def struct_of(type: Type) -> jax.ShapeDtypeStruct:
    """The shape and dtype of values of an IR type, as JAX's functions take and give them."""
    aval = aval_of(type)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


@functools.cache
def key_dtype(tag: str) -> Any:
    """The dtype of typed PRNG keys whose implementation prints as ``tag``."""
    from jax._src.random import prng

    for name, impl in prng.prngs.items():
        if impl.tag == tag:
            return jax.random.key(0, impl=name).dtype
    raise TypeError(f"no PRNG implementation {tag!r}")


def strong_aval(value: Any) -> Any:
    """The aval of a value (or aval) without the weak flag."""
    aval = value if isinstance(value, core.AbstractValue) else core.typeof(value)
    return aval.update(weak_type=False) if getattr(aval, "weak_type", False) else aval


def typeof(value: Any) -> Any:
    return core.typeof(value)


def array_aval(shape: Sequence[int], dtype: Any, weak_type: bool = False) -> Any:
    return core.ShapedArray(
        tuple(shape), jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True), weak_type=weak_type
    )


def is_key_array(value: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(value, "dtype", np.dtype(bool)), jax.dtypes.prng_key)


@functools.cache
def _classes() -> dict[str, type]:
    """Records and enumerations of JAX's by class name: what parameters of primitives are made of."""
    import enum

    table: dict[str, type] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("jax._src") and module is not None:
            for value in list(vars(module).values()):
                if isinstance(value, type) and (issubclass(value, enum.Enum) or hasattr(value, "_fields")):
                    table.setdefault(value.__name__, value)
    return table


def class_by_name(name: str) -> type | None:
    """A record or enumeration class of JAX's, None when there is none of that name."""
    if name == "SparseInfo":
        from jax.experimental.sparse.util import SparseInfo

        return SparseInfo  # type: ignore[no-any-return]
    return _classes().get(name)


def prng_impl_name(value: Any) -> str | None:
    """The name of a PRNG implementation given as a parameter, None for anything else."""
    from jax._src.random import prng

    return value.name if isinstance(value, prng.PRNGImpl) else None


def threefry_partitionable() -> bool:
    """How JAX's default generator counts, for this thread."""
    from jax._src import config

    return bool(config.threefry_partitionable.value)


def prng_impl(name: str) -> Any:
    from jax._src.random import prng

    return prng.prngs[name]


def same_tree(a: Any, b: Any) -> bool:
    """Whether two structures are equal; None stands for a single leaf (a ``PyTreeDef`` refuses to be compared
    with it).
    """
    return a is b or (a is not None and b is not None and bool(a == b))


def is_treedef(value: Any) -> bool:
    return isinstance(value, jax.tree_util.PyTreeDef)
