"""Expressions of random programs: of every type, from what code at one place may use."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs

F, V, M, I, B = "f32", "f32[3]", "f32[2,3]", "i32", "bool"  # noqa: E741
SHAPES = {F: "()", V: "(3,)", M: "(2, 3)", I: "()", B: "()"}
FLOATS = (F, V, M)
DICT = "dict"
"""{'a': f32[3], 'n': (i32, bool)}"""
KEY = "key"
"""A typed PRNG key."""
RNG = "rng"
"""A ``RandomState``."""
PAIR = "pair"
"""(f32, f32[3])"""
FIELDS = {DICT: {V: "['a']", I: "['n'][0]", B: "['n'][1]"}, PAIR: {F: "[0]", V: "[1]"}}


@attrs.define
class Scope:
    """What code at one place may use."""

    names: list[tuple[str, str]] = attrs.Factory(list)
    states: list[tuple[str, str]] = attrs.Factory(list)
    depth: int = 0
    straight: bool = True
    """Whether this runs exactly once per call, and not inside a gradient or checkpoint."""
    pure: bool = False
    """No writes, no effects."""
    smooth: bool = False
    """Inside a gradient: no callbacks."""
    quiet: bool = False
    """No prints (a checkpoint repeats them, lanes cannot order them)."""
    frozen: frozenset[str] = frozenset()
    """States that may only be read."""

    def inner(self, **changes: Any) -> Scope:
        return attrs.evolve(
            self,
            names=list(self.names),
            states=list(self.states),
            depth=self.depth + 1,
            **{"straight": False, **changes},
        )


@attrs.define
class Expressions:
    """What programs are written with, and the expressions in them."""

    rng: random.Random
    exact: bool
    gradients: bool
    lines: list[str] = attrs.Factory(list)
    indent: int = 0
    counter: int = 0
    budget: int = 40
    aliases: dict[str, str] = attrs.Factory(dict)
    """Other names of States, and the name that each was made with."""

    @property
    def squash(self) -> str:
        """A bounded function."""
        return "squash" if self.exact else "jnp.tanh"

    # ----------------------------------------------------------------------------------------------- writing

    def put(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    # ------------------------------------------------------------------------------------------- expressions

    def expr(self, type: str, scope: Scope, depth: int = 2) -> str:
        """An expression of this type."""
        leaves = self.leaves(type, scope)
        if depth <= 0 or self.chance(0.25):
            return self.rng.choice(leaves)
        e = lambda t: self.expr(t, scope, depth - 1)
        return self.rng.choice(self.compound(type))(e)

    def leaves(self, type: str, scope: Scope) -> list[str]:
        found = [name for name, t in scope.names if t == type]
        for name, t in scope.states:
            if t == type:
                found += [f"{name}.value"] * 2
            elif t in FIELDS and type in FIELDS[t]:
                found.append(f"{name}.value{FIELDS[t][type]}")
        if not found or self.chance(0.2):
            found.append(self.literal(type))
        return found

    def literal(self, type: str) -> str:
        number = self.rng.choice((0.5, 1.5, -0.75, 2.0, -1.0, 0.0, 0.1))
        if self.exact and type in FLOATS:
            scalar = f"k[{self.rng.randrange(6)}]"
            return scalar if type == F else f"jnp.broadcast_to({scalar}, {SHAPES[type]})"
        if type == F:
            return f"{number}" if self.chance(0.5) else f"jnp.float32({number})"
        if type in (V, M):
            return f"jnp.full({SHAPES[type]}, {number})"
        if type == I:
            return str(self.rng.randrange(5)) if self.chance(0.5) else f"jnp.int32({self.rng.randrange(5)})"
        return f"jnp.array({self.chance(0.5)})"

    def compound(self, type: str) -> list[Callable[[Callable[[str], str]], str]]:
        t = type
        if t in FLOATS:
            found: list[Callable[[Callable[[str], str]], str]] = [
                lambda e: f"({e(t)} + {e(t)})",
                lambda e: f"({e(t)} - {e(t)})",
                lambda e: f"({e(t)} * {e(F)})",
                lambda e: f"({e(t)} * 0.5)",
                lambda e: f"{self.squash}({e(t)})",
                lambda e: f"jnp.abs({e(t)})",
                lambda e: f"jnp.minimum({e(t)}, {e(F)})",
                lambda e: f"jnp.where({e(B)}, {e(t)}, {e(t)})",
                lambda e: f"soft({e(t)})",
                lambda e: f"jax.nn.relu({e(t)})",
                lambda e: f"clip({e(t)})",
            ]
        if t == F:
            found += [
                lambda e: f"{e(V)}[{self.rng.randrange(3)}]",
                lambda e: f"{e(M)}[1, {self.rng.randrange(3)}]",
                lambda e: f"jnp.max({e(V)})",
                lambda e: f"jnp.asarray({e(I)}, jnp.float32)",
                lambda e: f"{e(V)}[jnp.abs({e(I)}) % 3]",
            ]
            if not self.exact:
                found += [
                    lambda e: f"jnp.sum({e(V)})",
                    lambda e: f"jnp.mean({e(M)})",
                    lambda e: f"({e(V)} @ {e(V)})",
                ]
        elif t == V:
            found += [
                lambda e: f"{e(V)}[::-1]",
                lambda e: f"{e(M)}[{self.rng.randrange(2)}]",
                lambda e: f"jnp.stack([{e(F)}, {e(F)}, {e(F)}])",
                lambda e: f"{e(M)}.max(0)",
                lambda e: f"{e(V)}.at[{self.rng.randrange(3)}].set({e(F)})",
                lambda e: f"jax.vmap(lambda q: q * 0.5 + {e(F)})({e(V)})",
                lambda e: self.spikes(3, e),
            ]
            if not self.exact:
                found += [
                    lambda e: f"({self.spikes(3, e)} * {e(V)})",
                    lambda e: f"({self.spikes(2, e)} @ {e(M)})",
                    lambda e: f"({e(M)}.T @ {self.spikes(2, e)})",
                    lambda e: f"jnp.where({self.spikes(2, e)}[:, None] > 0, {e(M)}, 0.0).sum(0)",
                    lambda e: f"jnp.sum({e(M)}, 0)",
                    lambda e: f"({e(M)}[:, :2] @ {e(M)})[0]",
                    lambda e: f"jnp.cumsum({e(V)})",
                    lambda e: f"({e(V)} @ jnp.full((3, 3), 0.3))",
                    lambda e: f"send({self.events(e)}, {e(F)}, {self.chance(0.4)})",
                    lambda e: f"send({self.events(e)}, each({e(V)}), {self.chance(0.4)})",
                    lambda e: f"made({self.events(e)}, {e(V)}, {self.law()}, {self.chance(0.4)})",
                    lambda e: f"late({self.events(e)}, {e(V)}, {e(V)}, {e(I)})",
                    lambda e: (
                        f"learned({e(V)}, {self.events(e)}, {e(V)}, {self.chance(0.5)}, {self.rng.choice((0.0, 1.0))})"
                    ),
                ]
        elif t == M:
            found += [
                lambda e: f"jnp.stack([{e(V)}, {e(V)}])",
                lambda e: f"({e(M)} * {e(V)})",
                lambda e: f"{e(M)}[:, ::-1]",
            ]
        elif t == I:
            return [
                lambda e: f"({e(I)} + {e(I)})",
                lambda e: f"({e(I)} * 3 % 7)",
                lambda e: f"jnp.minimum({e(I)}, {e(I)})",
                lambda e: f"jnp.where({e(B)}, {e(I)}, {e(I)})",
                lambda e: f"jnp.asarray({e(B)}, jnp.int32)",
                lambda e: f"compact((jnp.arange(3) + {e(I)}) % 2 == 0)[{self.rng.choice((0, 0, 1))}]",
                *([lambda e: f"jnp.argmax({e(V)}).astype(jnp.int32)"] if self.exact else []),
            ]
        elif t == B:
            return [
                lambda e: f"({e(I)} < {e(I)})",
                lambda e: f"({e(I)} % 2 == 0)",
                lambda e: f"jnp.logical_not({e(B)})",
                lambda e: f"jnp.logical_and({e(B)}, {e(B)})",
                *(
                    [lambda e: f"({e(F)} < {e(F)})", lambda e: f"jnp.any({e(V)} > {e(F)})"]
                    if self.exact
                    else []
                ),
            ]
        return found

    def spikes(self, size: int, e: Callable[[str], str]) -> str:
        """A vector of spikes that no rounding can turn into another one."""
        active = f"(jnp.arange({size}) + {e(I)}) % 2 == 0"
        return self.rng.choice((f"({active}).astype(jnp.float32)", f"jnp.where({active}, 1.0, 0.0)"))

    def events(self, e: Callable[[str], str]) -> str:
        """Three events: numbers, spikes, or bools."""
        return self.rng.choice((self.spikes(3, e), e(V), f"((jnp.arange(3) + {e(I)}) % 2 == 0)"))

    def law(self) -> str:
        return self.rng.choice(('"one"', '"normal"', '"uniform"'))

    def type(self, *among: str) -> str:
        return self.rng.choice(among or (F, F, V, V, M, I, B))


def writable(scope: Scope) -> list[tuple[str, str]]:
    return [
        (name, type) for name, type in scope.states if type not in (KEY, RNG) and name not in scope.frozen
    ]
