"""The forms of the nesting matrix: every transformation and every control flow, as ``form(cell, g) -> h``.

``g`` and ``h`` both take and give ``f32[3]``, so that forms nest to any depth; ``step`` is the innermost
function. It reads and writes State, creates some, and draws a random number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import stategraph as sg
from tests.oracle import checkpoint

Function = Callable[[Any], Any]
Form = Callable[["Cell", Function], Function]
X = jnp.array([0.31, -0.72, 1.13])
SCALES = jnp.array([-0.6, 1.4])
"""What two lanes, or two trips, multiply their argument with: conditions differ between them."""
augment, compile = sg.augment, sg.compile


class Cell(sg.nn.Module):
    """State of every kind; ``lanes`` leading axes of the States that lanes have to themselves."""

    def __init__(self, lanes: int = 0) -> None:
        super().__init__()
        many = (len(SCALES),) * lanes
        self.w = sg.ParamState(jnp.array([0.9, -0.4, 0.3]))
        self.v = sg.ShortTermState(jnp.broadcast_to(jnp.array([0.2, 0.5, -0.3]), (*many, 3)))
        self.n = sg.State(jnp.zeros(many, jnp.int32))
        self.rng = sg.random.RandomState(11)


def step(cell: Cell) -> Function:
    def run(x: Any) -> Any:
        local = sg.State(x * 0.5)
        local.value = local.value + cell.w.value
        cell.v.value = cell.v.value * 0.5 + jnp.sin(local.value)
        cell.n.value += 1
        return cell.v.value * x + cell.rng.uniform() * 0.1 + cell.n.value * 0.01

    return run


# --------------------------------------------------------------------------------------------- derivatives


def grad(cell: Cell, g: Function) -> Function:
    def run(x: Any) -> Any:
        (dw,), dx = augment.grad(lambda y: g(y).sum(), [cell.w], argnums=0)(x)
        return dw + dx

    return run


def value_and_grad(cell: Cell, g: Function) -> Function:
    def run(x: Any) -> Any:
        def loss(y: Any) -> Any:
            out = g(y)
            return out.sum(), out * 2

        (value, aux), dx = augment.value_and_grad(loss, argnums=0, has_aux=True)(x)
        return value + aux + dx

    return run


def vector_grad(cell: Cell, g: Function) -> Function:
    return lambda x: augment.vector_grad(g, argnums=0)(x)


def jvp(cell: Cell, g: Function) -> Function:
    def run(x: Any) -> Any:
        value, tangent = augment.jvp(g, (x,), (jnp.array([1.0, 0.5, -1.0]),))
        return value + tangent

    return run


def vjp(cell: Cell, g: Function) -> Function:
    def run(x: Any) -> Any:
        value, pullback = augment.vjp(g, x, grad_states=cell.w)
        dw, dx = pullback(jnp.array([1.0, 0.5, -1.0]))
        return value + dw + dx

    return run


def jacrev(cell: Cell, g: Function) -> Function:
    return lambda x: augment.jacrev(g, argnums=0)(x).sum(0)


def jacfwd(cell: Cell, g: Function) -> Function:
    return lambda x: augment.jacfwd(g, argnums=0)(x).sum(0)


def hessian(cell: Cell, g: Function) -> Function:
    return lambda x: augment.hessian(lambda y: g(y).sum(), argnums=0)(x).sum(0)


# --------------------------------------------------------------------------------------------------- lanes


def vmap(cell: Cell, g: Function) -> Function:
    def run(x: Any) -> Any:
        return augment.vmap(lambda s: g(x * s), in_states=[cell.v, cell.n])(SCALES).sum(0)

    return run


def isolated_vmap(cell: Cell, g: Function) -> Function:
    return lambda x: augment.vmap(lambda s: g(x * s), isolated=True)(SCALES).sum(0)


def map(cell: Cell, g: Function) -> Function:
    return lambda x: augment.map(lambda s: g(x * s), SCALES).sum(0)


# -------------------------------------------------------------------------------------- running it otherwise


def jit(cell: Cell, g: Function) -> Function:
    return compile.jit(g)


def lax_jit(cell: Cell, g: Function) -> Function:
    return jax.jit(g)


def remat(cell: Cell, g: Function) -> Function:
    return compile.checkpoint(g)


def jax_checkpoint(cell: Cell, g: Function) -> Function:
    return checkpoint(g)


# --------------------------------------------------------------------------------------------------- loops


def for_loop(cell: Cell, g: Function) -> Function:
    return lambda x: compile.for_loop(lambda s: g(x * s), SCALES, reverse=True).sum(0)


def checkpointed_for_loop(cell: Cell, g: Function) -> Function:
    return lambda x: compile.checkpointed_for_loop(lambda s: g(x * s), SCALES, base=2).sum(0)


def _scan(scan: Callable[..., Any]) -> Form:
    def form(cell: Cell, g: Function) -> Function:
        def run(x: Any) -> Any:
            last, all = scan(lambda carry, s: (g(carry * s) * 0.5, carry.sum()), x, SCALES)
            return last + all.sum()

        return run

    return form


def _while(loop: Callable[..., Any], **options: Any) -> Form:
    def form(cell: Cell, g: Function) -> Function:
        def run(x: Any) -> Any:
            def more(carry: Any) -> Any:
                return (carry[0] < 2) & jnp.all(cell.n.value < 100)

            return loop(more, lambda carry: (carry[0] + 1, g(carry[1])), (0, x), **options)[1]

        return run

    return form


def lax_fori_loop(cell: Cell, g: Function) -> Function:
    return lambda x: jax.lax.fori_loop(0, 2, lambda i, y: g(y) * 0.5 + i, x)


def lax_map(cell: Cell, g: Function) -> Function:
    return lambda x: jax.lax.map(lambda s: g(x * s), SCALES).sum(0)


# ------------------------------------------------------------------------------------------------ branches


def _cond(cond: Callable[..., Any]) -> Form:
    return lambda cell, g: lambda x: cond(x[0] > 0, g, lambda y: y * 2, x)


def _switch(switch: Callable[..., Any]) -> Form:
    def form(cell: Cell, g: Function) -> Function:
        branches = [lambda y: y * 3, g, lambda y: g(y * 0.5)]
        return lambda x: switch((x[1] > 0).astype(jnp.int32) + 1, branches, x)

    return form


def ifelse(cell: Cell, g: Function) -> Function:
    branches = [g, lambda y: y * y, lambda y: g(y) + 1]
    return lambda x: compile.ifelse([x[0] < -0.3, x[0] < 0.01], branches, x)


DERIVATIVES: dict[str, Form] = {
    "grad": grad,
    "value_and_grad": value_and_grad,
    "vector_grad": vector_grad,
    "vjp": vjp,
    "jvp": jvp,
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": hessian,
}
REVERSE = ("grad", "value_and_grad", "vector_grad", "vjp", "jacrev", "hessian")
"""Those that go backwards through what they differentiate."""
LANES: dict[str, Form] = {"vmap": vmap, "isolated_vmap": isolated_vmap, "map": map}
OTHER: dict[str, Form] = {"jit": jit, "lax.jit": lax_jit, "remat": remat, "jax.checkpoint": jax_checkpoint}
CONTROL: dict[str, Form] = {
    "for_loop": for_loop,
    "checkpointed_for_loop": checkpointed_for_loop,
    "scan": _scan(compile.scan),
    "checkpointed_scan": _scan(compile.checkpointed_scan),
    "while_loop": _while(compile.while_loop),
    "bounded_while_loop": _while(compile.bounded_while_loop, max_steps=4, base=2),
    "cond": _cond(compile.cond),
    "switch": _switch(compile.switch),
    "ifelse": ifelse,
    "lax.scan": _scan(jax.lax.scan),
    "lax.while_loop": _while(jax.lax.while_loop),
    "lax.fori_loop": lax_fori_loop,
    "lax.map": lax_map,
    "lax.cond": _cond(jax.lax.cond),
    "lax.switch": _switch(jax.lax.switch),
}
WHILE = ("while_loop", "lax.while_loop")
"""Loops that have no reverse mode."""
TWINS = {
    "grad": "value_and_grad",
    "jacrev": "vector_grad",
    "jit": "lax.jit",
    "remat": "jax.checkpoint",
    "scan": "lax.scan",
    "while_loop": "lax.while_loop",
    "for_loop": "lax.map",
    "cond": "lax.cond",
    "switch": "lax.switch",
}
"""Two spellings of what is one op in a program."""
TRANSFORMATIONS = {**DERIVATIVES, **LANES, **OTHER}
FORMS = {**TRANSFORMATIONS, **CONTROL}


def nest(*names: str) -> tuple[Cell, Function]:
    """Fresh State, and the forms of these names, outermost first, around ``step``."""
    cell = Cell(names.count("vmap"))
    function = step(cell)
    for name in reversed(names):
        function = FORMS[name](cell, function)
    return cell, function


def states_of(cell: Cell) -> dict[str, Any]:
    """The values of all States of a cell."""
    return {
        "w": cell.w.value,
        "v": cell.v.value,
        "n": cell.n.value,
        "rng": jax.random.key_data(cell.rng.value),
    }
