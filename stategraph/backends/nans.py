"""Where NaN and infinity come from: a look at every value while the reference interpreter runs a program.

The *origin* of a bad value is the op that made it from good ones. Origins travel with values: an op that is
given a bad value hands its origin on. What counts in the end is which origin reached a result or a State; a NaN
that ``jnp.where`` throws away again is no error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import jax
import numpy as np

from stategraph import _jax
from stategraph.backends import reference
from stategraph.backends.checks import CheckFailure
from stategraph.errors import NanError, describe
from stategraph.ir.core import Constant, Op, Program
from stategraph.passes.pipeline import parse_pipeline

DERIVATIVES = ("xform.grad", "xform.jvp", "xform.vjp")
EXPANDED = "lower-checks,hoist-state,forward-state,eliminate-local-state,expand-transforms,inline-calls"
"""What makes the ops of gradients visible."""


@attrs.define(eq=False)
class Origin:
    """Where a bad value was made."""

    what: str
    """The op, or the State or argument that held it from the start."""
    kind: str
    """``NaN`` or ``infinity``."""
    op: Op | None = None
    operands: tuple[str, ...] = ()
    trips: tuple[str, ...] = ()
    """Which trip of which loop, outermost first."""
    state: str | None = None
    """The State that it reached first."""


def kind_of(x: Any, infinities: bool = True) -> str:
    """``NaN`` or ``infinity`` if an array has one, else empty."""
    if _jax.is_tracer(x) or _jax.is_key_array(x):
        return ""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    if not jax.numpy.issubdtype(x.dtype, jax.numpy.inexact):
        return ""
    wide = np.asarray(x).astype(np.complex128 if jax.numpy.iscomplexobj(x) else np.float64)
    if np.isnan(wide).any():
        return "NaN"
    return "infinity" if infinities and np.isinf(wide).any() else ""


class Hunter:
    """A watcher of the reference interpreter that follows bad values."""

    def __init__(self, infinities: bool) -> None:
        self.infinities = infinities
        self.origins: list[Origin] = []
        """In the order in which they arose."""
        self._of: dict[int, tuple[Any, Origin]] = {}
        self._loops: list[tuple[Op, int]] = []

    def kind(self, x: Any) -> str:
        return kind_of(x, self.infinities)

    def origin(self, x: Any) -> Origin | None:
        """The origin of a bad value; the youngest where it was cut out of a larger one."""
        found = self._of.get(id(x))
        if found is not None:
            return found[1]
        return self.origins[-1] if self.origins else None

    def trip(self, loop: Op, number: int | None) -> None:
        if number is None:
            self._loops = [entry for entry in self._loops if entry[0] is not loop]
        elif self._loops and self._loops[-1][0] is loop:
            self._loops[-1] = (loop, number)
        else:
            self._loops.append((loop, number))

    def ran(self, op: Op, operands: Sequence[Any], results: Sequence[Any]) -> None:
        if op.name == "state.write":
            self.written(op, operands)
            return
        kinds = list(map(self.kind, results))
        if not any(kinds):
            return
        origin = self.inherited(op, operands)
        if origin is None:
            origin = self.arises(op, next(filter(None, kinds)), operands)
        for x, kind in zip(results, kinds, strict=True):
            if kind:
                self._of.setdefault(id(x), (x, origin))

    def written(self, op: Op, operands: Sequence[Any]) -> None:
        for x in operands:
            kind = self.kind(x)
            origin = self.origin(x) if kind else None
            if origin is None or origin.state is not None:
                continue
            origin.state = op.symbol
            if kind == "NaN" and origin.op is not None:
                raise reference.Interrupt

    def inherited(self, op: Op, operands: Sequence[Any]) -> Origin | None:
        """Where the bad results of an op come from, if not from the op itself."""
        if op.name == "state.read":
            return next((o for o in self.origins if o.state == op.symbol), None) or self.origin(None)
        for value, x in zip(op.operands, operands, strict=True):
            if not isinstance(value, Constant) and self.kind(x):
                return self.origin(x)
        return next((o for o in self.origins if o.op is not None and _inside(o.op, op)), None)

    def arises(self, op: Op, kind: str, operands: Sequence[Any]) -> Origin:
        trips = tuple(f"trip {number} of the loop at {loop.location}" for loop, number in self._loops)
        origin = Origin(op.name, kind, op, tuple(map(summary, operands)), trips)
        self.origins.append(origin)
        return origin

    def holds(self, what: str, x: Any, state: str | None = None) -> None:
        """Something that goes into the program holds a bad value."""
        kind = self.kind(x)
        if kind:
            self.origins.append(Origin(what, kind, state=state))


def _inside(op: Op, outer: Op) -> bool:
    current: Op | None = op
    while current is not None:
        if current is outer:
            return True
        current = current.parent.parent_op if current.parent is not None else None
    return False


def summary(x: Any) -> str:
    """A value in a few words: type, range, how many NaN and infinities."""
    if _jax.is_tracer(x) or _jax.is_key_array(x):
        return str(_jax.type_of(_jax.typeof(x)))
    array = np.asarray(x)
    text = str(_jax.type_of(_jax.strong_aval(x)))
    if array.ndim == 0:
        return f"{text} = {array}"
    if not array.size or not jax.numpy.issubdtype(array.dtype, jax.numpy.number):
        return text
    if jax.numpy.iscomplexobj(array):
        array = np.abs(array)
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    parts = [f"from {finite.min():.6g} to {finite.max():.6g}"] if finite.size else []
    for count, name in ((np.isnan(wide).sum(), "NaN"), (np.isinf(wide).sum(), "infinite")):
        if count:
            parts.append(f"{count} of {wide.size} {name}")
    return f"{text}, {', '.join(parts)}"


def hunt(
    program: Program,
    arguments: Sequence[Any],
    states: Mapping[str, Sequence[Any]],
    *,
    infinities: bool = True,
    phase: str = "",
    created: Mapping[str, Any] | None = None,
) -> NanError | None:
    """Run a program op by op; the error to raise if NaN (or infinity) reaches its results or its State.

    ``created`` says where States were created, for the message. Prints and callbacks without results are left
    out; callbacks with results are called.
    """
    hunter = Hunter(infinities)
    for name, x in zip(program.argument_names, arguments, strict=False):
        hunter.holds(f"the argument {name}", x)
    for name, x in program.captured.items():
        hunter.holds(f"the captured array {name}", x)
    for path, leaves in states.items():
        for x in leaves:
            hunter.holds(f"the State @{path}", x, path)
    if next(program.walk(*DERIVATIVES), None) is not None:
        from stategraph.passes.manager import PassManager

        program = PassManager(parse_pipeline(EXPANDED)).run(program).program
    reached = ""
    try:
        results, after = reference.run(program, arguments, states, host=_silent, watcher=hunter)
    except reference.Interrupt:
        pass
    except CheckFailure as error:
        if not hunter.origins:
            raise (error.__cause__ or error) from None
    else:
        named = [(name, x) for name, x in zip(program.result_names, results, strict=True)]
        named += [(f"@{path}", x) for path, leaves in after.items() for x in leaves]
        found = next(((name, x) for name, x in named if hunter.kind(x)), None)
        if found is None:
            return None
        reached = found[0]
        origin = hunter.origin(found[1])
        if origin is not None:
            return _error(program, origin, reached, phase, created or {})
    reaching = [origin for origin in hunter.origins if origin.state is not None and origin.op is not None]
    origin = (reaching or hunter.origins)[0]
    return _error(program, origin, reached, phase, created or {})


def _silent(op: Op, operands: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
    return reference._bind(op, operands, params) if op.results else ()


def _error(
    program: Program, origin: Origin, reached: str, phase: str, created: Mapping[str, Any]
) -> NanError:
    where = f" in @{program.name}"
    goes = f"State @{origin.state} first" if origin.state is not None else reached
    if origin.op is None:
        text = f"{origin.kind} is in {origin.what} before the call{where}, and reaches {reached or goes}."
    else:
        text = f"{origin.kind} arises in {origin.what}{where}" + (f", and reaches {goes}." if goes else ".")
    if phase:
        text = f"{phase}: {text}"
    message = describe(
        text,
        state=f"@{origin.state}" if origin.state is not None else "",
        created=created.get(origin.state) if origin.state is not None else None,
        at=origin.op.location if origin.op is not None else None,
    )
    lines = [f"  trip:  {trip}" for trip in origin.trips]
    lines += [f"  operand {i}: {operand}" for i, operand in enumerate(origin.operands)]
    return NanError("\n".join([message, *lines]))
