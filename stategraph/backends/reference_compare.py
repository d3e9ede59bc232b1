"""Comparing two programs by running both on the same random values.

    validate(before, after, seed=0, exactness="exact")

is *translation validation*: it does not prove a rewrite right, but finds the runs where it is wrong. Both
programs get the same
arguments, captured arrays and State: by type, small numbers first, then some with zeros, signed zeros,
infinities and NaN among them.
Results, State afterwards and what the host sees (prints, callbacks, in order) have to agree.

No user function is called: a callback gives values that depend on nothing but its operands.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.backends import reference
from stategraph.backends.checks import CheckFailure
from stategraph.backends.reference import TooManyTrips
from stategraph.backends.reference_values import ExecutionError, Store, impl_name, weaken
from stategraph.errors import StateGraphError
from stategraph.ir.core import Op, Program, Value
from stategraph.ir.types import KeyType, TensorType, Type, numpy_dtype
from stategraph.passes.base import Pass

EXACT, REDUCTION_ORDER, FAST_MATH = "exact", "reduction-order", "fast-math"
TOLERANCE = {REDUCTION_ORDER: 1e-5, FAST_MATH: 1e-3}
"""Largest difference of two f32 values, relative to the largest magnitude in the array; other dtypes scale
with their epsilon."""
TRIP_LIMIT = 200
"""Random State may make a loop run forever; then the sample says nothing."""


class ValidationError(StateGraphError):
    """Two programs that should compute the same do not: what differs, and on which input."""


@attrs.frozen
class Sample:
    """Values for one run of a program."""

    arguments: list[Any]
    captured: dict[str, Any]
    states: Store
    seed: int


@attrs.frozen
class HostEvent:
    """One thing that the host saw."""

    kind: str
    """``ordered`` or ``unordered``: only these orders are observable."""
    what: str
    values: tuple[np.ndarray, ...]

    def __str__(self) -> str:
        return f"{self.what}({', '.join(str(np.asarray(v).tolist()) for v in self.values)})"


@attrs.frozen
class Observation:
    """All that one run shows."""

    results: list[Any]
    states: Store
    events: list[HostEvent]


def validate(
    before: Program, after: Program, *, seed: int = 0, exactness: str = EXACT, samples: int = 3
) -> int:
    """Raise ``ValidationError`` if the programs differ on one of ``samples`` random inputs.

    ``exact`` compares bits (any NaN equals any NaN); ``reduction-order`` and ``fast-math`` allow
    differences relative to the magnitude
    of an array, on finite inputs. Samples on which ``before`` fails or runs too long are skipped; returned is how
    many were compared.
    """
    compared = 0
    for number in range(samples):
        special = exactness == EXACT and number % 2 == 1
        sample = random_sample(before, seed * 1000 + number, special)
        failure = ""
        try:
            expected = observe(before, sample)
        except (ExecutionError, TooManyTrips):
            continue
        except CheckFailure as error:
            failure = str(error)
        try:
            found = observe(after, sample)
        except CheckFailure as error:
            if str(error) == failure:
                compared += 1
                continue
            raise ValidationError(f"{_head(before, sample)} the program after raises {error}") from error
        except (ExecutionError, TooManyTrips) as error:
            raise ValidationError(f"{_head(before, sample)} the program after fails:\n{error}") from error
        if failure:
            raise ValidationError(f"{_head(before, sample)} the program before raises {failure}")
        difference = compare(expected, found, exactness, before.result_names)
        if difference:
            raise ValidationError(f"{_head(before, sample)} {difference}")
        compared += 1
    return compared


def _head(program: Program, sample: Sample) -> str:
    return f"@{program.name} does not compute what it did (sample {sample.seed}):"


def install() -> None:
    """Offer evaluation of constants, validation to the passes."""
    from stategraph.passes import hooks

    hooks.install(evaluate=reference.evaluate, validate=validate_pass)


def validate_pass(before: Program, after: Program, pass_: Pass) -> None:
    """``validate`` with the exactness that a pass declares; warns when there was nothing to compare."""
    if not validate(before, after, exactness=pass_.exactness):
        warnings.warn(
            f"pass {pass_} was not validated on @{before.name}: the program fails, or runs too long, on every sample",
            stacklevel=2,
        )


# --------------------------------------------------------------------------------------------------- one run


def observe(program: Program, sample: Sample, trip_limit: int | None = TRIP_LIMIT) -> Observation:
    """Run a program on a sample, with recorded effects instead of real ones."""
    host = RecordingHost()
    results, states = reference.run(
        program, sample.arguments, sample.states, captured=sample.captured, host=host, trip_limit=trip_limit
    )
    return Observation(results, states, host.events)


class RecordingHost:
    """Performs ``host.*`` ops by writing them down; results of callbacks are a function of their operands
    alone."""

    def __init__(self) -> None:
        self.events: list[HostEvent] = []

    def __call__(self, op: Op, operands: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
        kind = "ordered" if params.get("ordered") else "unordered"
        what = (
            f"{op.name} {params['fmt']!r}"
            if "fmt" in params
            else f"{op.name} {op.attributes.get('callback', '')}"
        )
        if op.name == "host.pure_callback":
            kind = ""  # nobody can see how often, or when, it is called

        def record(*values: Any) -> None:
            if kind:
                self.events.append(HostEvent(kind, what, tuple(np.array(_plain(value)) for value in values)))

        def answer(*values: Any) -> list[np.ndarray]:
            record(*values)
            bits = b"".join(np.asarray(_plain(value)).tobytes() for value in values)
            rng = np.random.default_rng(zlib.crc32(bits))
            return [np.asarray(random_array(result.type, rng, False)) for result in op.results]

        visible = [jax.random.key_data(x) if _jax.is_key_array(x) else x for x in operands]
        if not op.results:
            jax.debug.callback(record, *visible)
            return ()
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in map(_result_aval, op.results)]
        if op.name == "host.pure_callback":
            return list(jax.pure_callback(answer, shapes, *visible))
        return list(jax.experimental.io_callback(answer, shapes, *visible))


# --------------------------------------------------------------------------------------------------- samples


def random_sample(program: Program, seed: int, special: bool = False) -> Sample:
    """Arguments, captured arrays and State by type. Integers are small, so that they are harmless as
    indices and counts; captured ones stay as they are: they may be places that mean something together, as those of
    a sparse matrix do."""
    rng = np.random.default_rng(seed)
    count = len(program.body.args) - len(program.captured)
    arguments = [random_array(arg.type, rng, special) for arg in program.body.args[:count]]
    captured = {
        name: program.captured[name] if _is_whole(arg.type) else random_array(arg.type, rng, special)
        for name, arg in zip(program.captured, program.body.args[count:], strict=True)
    }
    states = {
        path: tuple(random_array(type, rng, special) for type in symbol.types)
        for path, symbol in program.states.items()
        if not symbol.born
    }
    return Sample(arguments, captured, states, seed)


def _result_aval(value: Value) -> Any:
    return _jax.aval_of(value.type)


def _is_whole(type: Type) -> bool:
    return isinstance(type, TensorType) and type.dtype[0] in "iu"


SPECIAL = (0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1.0)


def random_array(type: Type, rng: np.random.Generator, special: bool) -> Any:
    """A random array of a type, with special values among floats if wanted."""
    if isinstance(type, KeyType):
        impl = impl_name(type.impl)
        keys = jax.random.split(
            jax.random.key(int(rng.integers(2**31)), impl=impl), max(int(np.prod(type.shape)), 1)
        )
        return keys[: int(np.prod(type.shape))].reshape(type.shape)
    if not isinstance(type, TensorType):
        raise ExecutionError(f"no random values of type {type}")
    if type.dtype == "f0":
        return np.zeros(type.shape, jax.dtypes.float0)
    dtype = numpy_dtype(type.dtype)
    if type.dtype == "bool":
        array: Any = rng.random(type.shape) < 0.5
    elif type.dtype[0] in "iu":
        array = rng.integers(0, 2 if type.dtype.endswith("2") else 4, type.shape)
    else:
        array = rng.normal(size=type.shape)
        if type.dtype[0] == "c":
            array = array + 1j * rng.normal(size=type.shape)
        if special:
            array = np.where(rng.random(type.shape) < 0.3, rng.choice(SPECIAL, type.shape), array)
    with np.errstate(all="ignore"):
        value = jnp.asarray(np.asarray(array).astype(dtype))
    return weaken(value, True) if type.weak else value


# ------------------------------------------------------------------------------------------------- comparing


def compare(expected: Observation, found: Observation, exactness: str, names: Sequence[str] = ()) -> str:
    """What differs, empty if nothing does."""
    if len(expected.results) != len(found.results):
        return f"it returns {len(found.results)} values instead of {len(expected.results)}"
    labels = (
        list(names)
        if len(names) == len(expected.results)
        else [f"result {i}" for i in range(len(expected.results))]
    )
    for name, a, b in zip(labels, expected.results, found.results, strict=True):
        difference = differs(a, b, exactness)
        if difference:
            return f"{name} {difference}"
    if set(expected.states) != set(found.states):
        return f"it has the States {sorted(found.states)} instead of {sorted(expected.states)}"
    for path, leaves in expected.states.items():
        if len(leaves) != len(found.states[path]):
            return f"State @{path} has {len(found.states[path])} leaves instead of {len(leaves)}"
        for i, (a, b) in enumerate(zip(leaves, found.states[path], strict=True)):
            difference = differs(a, b, exactness)
            if difference:
                return f"State @{path}{f' (leaf {i})' if len(leaves) > 1 else ''} {difference}"
    return _compare_events(expected.events, found.events, exactness)


def _compare_events(expected: Sequence[HostEvent], found: Sequence[HostEvent], exactness: str) -> str:
    for kind in ("ordered", "unordered"):
        a = [event for event in expected if event.kind == kind]
        b = [event for event in found if event.kind == kind]
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            if x.what != y.what or len(x.values) != len(y.values):
                return f"the host sees {y} instead of {x} as {kind} event {i}"
            if any(differs(u, v, exactness) for u, v in zip(x.values, y.values, strict=True)):
                return f"the host sees {y} instead of {x} as {kind} event {i}"
        if len(a) != len(b):
            missing, verb = (a[len(b)], "no longer sees") if len(a) > len(b) else (b[len(a)], "also sees")
            place = f"{kind} event {min(len(a), len(b))}; {len(a)} before, {len(b)} after"
            return f"the host {verb} {missing} ({place})"
    return ""


def differs(a: Any, b: Any, exactness: str) -> str:
    """How two arrays differ, empty if they do not. The weak flag is no difference."""
    type_a, type_b = (_jax.type_of(_jax.strong_aval(x)) for x in (a, b))
    if type_a != type_b:
        return f"is a {type_b} instead of a {type_a}"
    x, y = (np.asarray(_plain(v)) for v in (a, b))
    if same_bits(x, y):
        return ""
    if exactness == EXACT or x.dtype.kind in "biu":
        return f"is {_shown(y)} instead of {_shown(x)} (as bits)"
    kind = np.complex128 if x.dtype.kind == "c" else np.float64
    u, v = x.astype(kind), y.astype(kind)
    finite = np.isfinite(u) & np.isfinite(v)
    if not same_bits(np.where(finite, 0, u), np.where(finite, 0, v)):
        return f"is {_shown(y)} instead of {_shown(x)} (infinities or NaN)"
    scale = max(float(np.max(np.abs(u[finite]), initial=0.0)), 1.0)
    error = float(np.max(np.abs(u[finite] - v[finite]), initial=0.0))
    allowed = TOLERANCE[exactness] * _epsilon(x.dtype) / _epsilon(np.dtype(np.float32)) * scale
    return (
        f"is {_shown(y)} instead of {_shown(x)} (off by {error:.3g}, allowed {allowed:.3g})"
        if error > allowed
        else ""
    )


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit for bit, but any NaN equals any NaN."""
    if a.tobytes() == b.tobytes():
        return True
    if a.dtype.kind == "c":
        return same_bits(a.real.copy(), b.real.copy()) and same_bits(a.imag.copy(), b.imag.copy())
    if a.dtype.kind in "biu" or (a.dtype.kind == "V" and not hasattr(jnp, a.dtype.name)):
        return False
    nan_a, nan_b = np.isnan(a.astype(np.float64)), np.isnan(b.astype(np.float64))
    return bool((nan_a == nan_b).all()) and a[~nan_a].tobytes() == b[~nan_b].tobytes()


def _epsilon(dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _plain(x: Any) -> Any:
    return jax.random.key_data(x) if _jax.is_key_array(x) else x


def _shown(x: np.ndarray) -> str:
    text = np.array2string(x, threshold=8, edgeitems=3, precision=9, separator=", ").replace("\n", "")
    return text if len(text) < 200 else text[:200] + "…"
