"""Functions with a rule of forward differentiation that keep it where JAX takes a gradient of a loop.

JAX evaluates what a gradient does not depend on ahead of the rest, and there it drops ``custom_jvp`` rules: only a linear
function remains to be transposed, it reasons. A second derivative then misses the rule: in a loop, that of a spike with a
surrogate gradient is 0. So where a gradient will itself be differentiated, such a function is a primitive, and a rule that
calls its own function calls the primitive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src.interpreters import ad

from stategraph._jax.primitives import new_primitive

Function = Callable[..., Sequence[Any]]


def kept_rule(function: Function, out_avals: Sequence[Any]) -> Function:
    """A function that JAX differentiates as it does ``function``, which has a rule, as often as it likes."""
    return lambda *args: _kept_p.bind(*args, function=function, out_avals=tuple(out_avals))


def _evaluated(*args: Any, function: Function, out_avals: Any) -> Sequence[Any]:
    return function(*args)


def _pushed(primals: Any, tangents: Any, *, function: Function, out_avals: Any) -> tuple[Any, Any]:
    moving = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def of(*moved: Any) -> Sequence[Any]:
        full = list(primals)
        for i, value in zip(moving, moved, strict=True):
            full[i] = value
        return function(*full)

    outputs, changes = jax.jvp(of, [primals[i] for i in moving], [tangents[i] for i in moving])
    return outputs, [
        ad.Zero.from_primal_value(x) if change.dtype == jax.dtypes.float0 else change
        for x, change in zip(outputs, changes, strict=True)
    ]


def _in_lanes(args: Any, axes: Any, *, function: Function, out_avals: Any) -> tuple[Any, Any]:
    return jax.vmap(function, in_axes=tuple(axes))(*args), [0] * len(out_avals)


_kept_p = new_primitive(
    "stategraph_kept_rule",
    lambda *avals, function, out_avals: out_avals,
    has_state=False,
    on_eval=_evaluated,
    on_batch=_in_lanes,
    on_jvp=_pushed,
)
