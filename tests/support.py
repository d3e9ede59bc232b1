"""What tests share: building programs, running them, comparing them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import ir
from stategraph.backends import reference
from stategraph.backends.reference_compare import EXACT, validate
from stategraph.state import State
from stategraph.tracing.tracer import Trace, trace_function

ROOT = Path(__file__).resolve().parent.parent
NO_CONTRACTION = "--xla_cpu_max_isa=AVX"
"""The XLA flag that keeps x86 CPUs from fusing ``a*b+c``: compiled results can then be compared bit for
bit."""


def build(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Trace:
    """Trace a function."""
    return trace_function(function, args, kwargs)


def program(text: str) -> ir.Program:
    """A verified program from text; the version line may be left out."""
    text = text.strip()
    found = ir.parse(text if text.startswith("stategraph") else f"stategraph {ir.FORMAT_VERSION}\n{text}\n")
    verify(found)
    return found


def verify(program: ir.Program) -> None:
    """Raise ``VerifyError`` if the program breaks a rule of the IR."""
    from stategraph.ir.verifier import verify

    verify(program)


def roundtrip(program: ir.Program) -> None:
    """Check that the text form of a program reads back as the same program, and prints the same again."""
    text = str(program)
    again = ir.parse(text)
    if again != program:
        where = first_difference(ir.structure(program), ir.structure(again))
        raise AssertionError(f"parse(print(p)) is not p:\n{where}\n{text}")
    if str(again) != text:
        raise AssertionError(f"the text read back prints differently:\n{text}\n----\n{again}")


def first_difference(a: Any, b: Any, path: str = "p") -> str:
    """Where two nested tuples differ first."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        if len(a) != len(b):
            return f"{path}: {len(a)} items, {len(b)} after"
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if x != y:
                return first_difference(x, y, f"{path}[{i}]")
    return f"{path}: {a!r}, {b!r} after" if a != b else ""


def leaves_of(states: dict[str, State[Any]]) -> dict[str, tuple[Any, ...]]:
    """The current leaves of live States, as the interpreter takes them."""
    return {path: tuple(jax.tree.leaves(state.value)) for path, state in states.items()}


def interpret(trace: Trace, *args: Any, program: ir.Program | None = None) -> tuple[Any, dict[str, Any]]:
    """Run a trace (or a rewritten program of it) in the reference interpreter, from the live States:
    (result, leaves by path)."""
    results, states = reference.run(
        program or trace.program, jax.tree.leaves((args, {})), leaves_of(trace.states)
    )
    return jax.tree.unflatten(trace.out_tree, results), states


def execute_both(
    before: ir.Program, after: ir.Program, *, exactness: str = EXACT, seed: int = 0, samples: int = 3
) -> None:
    """Check that two programs compute the same on random values (see ``reference_compare.validate``)."""
    validate(before, after, seed=seed, exactness=exactness, samples=samples)


@contextlib.contextmanager
def restored(*states: State[Any]) -> Iterator[None]:
    """Give States back the values that they have now."""
    values = [state.value for state in states]
    try:
        yield
    finally:
        for state, value in zip(states, values, strict=True):
            state.value = value


def eagerly(
    function: Callable[..., Any], *args: Any, states: dict[str, State[Any]]
) -> tuple[Any, dict[str, Any]]:
    """Run plain Python under ``jax.disable_jit``, the oracle; the States are put back. (result, leaves by
    path)"""
    with restored(*states.values()), jax.disable_jit():
        result = function(*args)
        return result, leaves_of(states)


def assert_same(a: Any, b: Any, *, exact: bool = True, tolerance: float = 1e-5) -> None:
    """Compare nested values bit for bit (any NaN equals any NaN), or within a tolerance relative to the
    magnitude of an array."""
    from stategraph.backends.reference_compare import FAST_MATH, REDUCTION_ORDER, differs

    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(left) == len(right), f"{len(left)} leaves, {len(right)} leaves"
    level = EXACT if exact else REDUCTION_ORDER if tolerance <= 1e-5 else FAST_MATH
    for i, (x, y) in enumerate(zip(left, right, strict=True)):
        difference = differs(jnp.asarray(x), jnp.asarray(y), level)
        assert not difference, f"leaf {i} {difference}"


@functools.cache
def contraction_free() -> bool:
    """Whether compiled code of this process rounds after every multiplication (no fused multiply-add)."""
    a = np.full(64, 1 + 2.0**-12, np.float32)
    c = np.full(64, -(1 + 2.0**-11), np.float32)
    return bool((jax.jit(lambda x, y, z: x * y + z)(a, a, c) == 0).all())


def python_calls(function: Callable[[], Any]) -> int:
    """How many functions, Python's and C's, a call of ``function`` calls: a cost that no other work on the
    machine changes."""
    count = 0

    def note(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def run_contraction_free(*command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a Python command line in a process whose compiled code is comparable bit for bit."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {NO_CONTRACTION}".strip()
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_on_devices(*files: Path, count: int = 8, timeout: float = 600) -> None:
    """Run the tests of these files in one process that has this many CPU devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}".strip()
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            *map(str, files),
        ],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]


class EventFacts:
    """A watcher of the reference interpreter: what ``infer-events`` noted of a value has to hold of every value."""

    def __init__(self, program: ir.Program, states: dict[str, Any]) -> None:
        self.checked = 0
        leaves = [
            leaf
            for path, symbol in program.states.items()
            for leaf in _event_leaves(symbol, states.get(path, symbol.initial))
        ]
        self.entry = all(map(_is_binary, leaves))
        """Whether the States that hold spikes do so."""

    def ran(self, op: ir.Op, operands: Any, results: Any) -> None:
        for value, x in zip(op.results, results, strict=True):
            if value.event == "binary" or (value.event == "entry" and self.entry):
                self.checked += 1
                if not _is_binary(x):
                    raise AssertionError(f"{op.name} at {op.location} is said to be {value.event}: {x}")

    def trip(self, loop: ir.Op, number: int | None) -> None:
        pass


def _event_leaves(symbol: ir.StateSymbol, leaves: Any) -> list[Any]:
    noted = symbol.attributes.get("event", ())
    return list(leaves) if noted is True else [leaves[i] for i in noted]


def _is_binary(x: Any) -> bool:
    return isinstance(x, jax.core.Tracer) or bool(((x == 0) | (x == 1)).all())


def check_kernels_for_gpus(function: Callable[..., Any], *operands: Any) -> None:
    """Lower a function with Pallas kernels for a GPU, where there is none, and verify what Triton gets."""
    if jax.default_backend() == "gpu":
        return
    lowering = importlib.import_module("jax._src.pallas.triton.lowering")
    lower = lowering.lower_jaxpr_to_triton_module
    kernels = []

    def verified(*args: Any, **kwargs: Any) -> Any:
        found = lower(*args, **kwargs)
        kernels.append(found.module.operation.verify())
        return found

    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore", DeprecationWarning)
        stack.enter_context(mock.patch.object(lowering, "lower_jaxpr_to_triton_module", verified))
        if jax.__version_info__ >= (0, 11):  # which asks what it compiles for
            device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
            mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
            stack.enter_context(jax.sharding.use_abstract_mesh(mesh))
        jax.jit(function).trace(*operands).lower(lowering_platforms=("cuda",))
    assert kernels and all(kernels)
