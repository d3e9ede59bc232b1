"""The inputs of a run: what the model is called with in each step.

An argument is *constant* (scalars), given in *rows* (arrays with one for every step), or a *function* of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph.errors import describe


@attrs.frozen(eq=False)
class Argument:
    """One argument of the model."""

    function: Callable[..., Any] | None
    """A function of the time, or None."""
    leaves: list[Any]
    structure: Any
    in_rows: tuple[bool, ...]
    """Which leaves have a row for every step."""


@attrs.frozen(eq=False)
class Inputs:
    """What the model is called with."""

    arguments: tuple[Argument, ...]
    several: bool
    """Whether a function may return several arguments, a tuple."""

    @property
    def functions(self) -> tuple[Any, ...]:
        """The functions among the arguments."""
        return tuple([one.function for one in self.arguments if one.function is not None])

    def of(self, functions: Iterator[Any]) -> Inputs:
        """The same with other functions."""
        return attrs.evolve(
            self,
            arguments=tuple(
                [
                    one if one.function is None else attrs.evolve(one, function=next(functions))
                    for one in self.arguments
                ]
            ),
        )

    @property
    def key(self) -> Hashable:
        """What a program depends on, but for functions and values."""
        return tuple([(one.function is not None, one.structure, one.in_rows) for one in self.arguments])

    def constants(self) -> list[Any]:
        """The values that are the same in all steps: arrays, so that numbers are rounded alike in programs, traces and eagerly."""
        return [
            jnp.asarray(leaf)
            for one in self.arguments
            for leaf, row in zip(one.leaves, one.in_rows, strict=True)
            if not row
        ]

    def rows(self, first: int, last: int) -> list[Any]:
        """The rows of the steps from ``first`` to before ``last``."""
        return [
            leaf if (first, last) == (0, len(leaf)) else leaf[first:last]
            for one in self.arguments
            for leaf, row in zip(one.leaves, one.in_rows, strict=True)
            if row
        ]

    def call(self, rows: list[Any], constants: list[Any], t: Any) -> tuple[Any, ...]:
        """The arguments of one step: of its rows, the constants, and the time."""
        row, constant = iter(rows), iter(constants)
        found = []
        for one in self.arguments:
            if one.function is None:
                leaves = [next(row) if is_row else next(constant) for is_row in one.in_rows]
                found.append(jax.tree.unflatten(one.structure, leaves))
                continue
            value = one.function(t)
            if self.several and isinstance(value, tuple):
                return value
            found.append(value)
        return tuple(found)


def inputs_of(inputs: Any, steps: int) -> Inputs:
    """What a user gave for ``inputs``."""
    if inputs is None:
        return Inputs((), False)
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    return Inputs(tuple([_argument(one, steps) for one in given]), not isinstance(inputs, tuple))


def _argument(given: Any, steps: int) -> Argument:
    if callable(given):
        return Argument(given, [], None, ())
    if isinstance(given, list):
        given = np.asarray(given)
    leaves, structure = jax.tree.flatten(given)
    for leaf in leaves:
        if not isinstance(leaf, (int, float, complex, np.ndarray, np.generic, jax.Array)):
            raise TypeError(
                describe(
                    f"The inputs of a run are a {type(leaf).__name__}.",
                    why="an input is None, a number, an array with one row for every step, or a function of the time",
                )
            )
        if np.ndim(leaf) and np.shape(leaf)[0] != steps:
            raise ValueError(
                describe(
                    f"The inputs have {np.shape(leaf)[0]} rows, and the run has {steps} steps.",
                    why=f"an array, here of the shape {np.shape(leaf)}, has one row for every step",
                    fix="an array that is the same in all steps is a function: inputs=lambda t: array",
                )
            )
    arrays = [
        leaf if isinstance(leaf, (jax.Array, np.ndarray, int, float, complex)) else jnp.asarray(leaf)
        for leaf in leaves
    ]
    return Argument(None, arrays, structure, tuple([np.ndim(leaf) > 0 for leaf in leaves]))
