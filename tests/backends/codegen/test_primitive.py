"""Where no kernel can be made XLA runs the program, with the same result, and one message says why."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, nn
from stategraph.backends.codegen import machine, primitive
from stategraph.backends.native import binding
from stategraph.passes import DEFAULT

WITHOUT = ",".join(name for name in DEFAULT if name != "outline-native")


@pytest.fixture(autouse=True)
def nothing_is_known_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No kernels on disk, no message said."""
    monkeypatch.setenv("STATEGRAPH_CACHE", str(tmp_path))
    known = (machine.description, primitive._say, binding.available)
    for cached in known:
        cached.cache_clear()
    yield
    for cached in known:
        cached.cache_clear()


def simulate(size: int, passes: str) -> Any:
    """The spikes of a network that no other test has, so that its kernel is not there yet."""
    sg.random.seed(0)
    neurons = nn.LIF(size, spk_reset="hard")
    synapses = nn.DeltaProj(comm=event.FixedProb(size, size, 0.3, 0.5, seed=0), post=neurons)
    nn.init_all_states(neurons)

    def step(i: Any) -> Any:
        synapses(neurons.get_spike())
        return neurons(jnp.linspace(0.5, 9.0, size))

    with sg.environ.context(dt=0.1):
        run = sg.compile.jit(lambda: sg.compile.for_loop(step, jnp.arange(40)), passes=passes)
        assert any(True for _ in run.lower().program.walk("native.kernel")) == (passes != WITHOUT)
        return np.asarray(run())


def messages_of(size: int) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = [simulate(size, "default") for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = simulate(size, WITHOUT)
    assert wanted.any()
    for spikes in found:
        np.testing.assert_array_equal(spikes, wanted)
    return [str(one.message) for one in said if issubclass(one.category, RuntimeWarning)]


def test_without_llvmlite_one_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llvmlite", "numba"):
        monkeypatch.setitem(sys.modules, name, None)
    (message,) = messages_of(43)
    assert "stategraph[events]" in message and "numba" in message


def test_a_kernel_that_cannot_be_compiled_is_run_by_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")

    def fails(code: Any) -> Any:
        raise RuntimeError("expected instruction opcode")

    with monkeypatch.context() as patched:
        patched.setattr(machine, "optimized", fails)
        (message,) = messages_of(45)
    assert "a kernel could not be made: RuntimeError: expected instruction opcode" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # what failed does not harm the next kernel
        assert simulate(47, "default").any()


def test_a_call_frame_that_is_not_known_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")

    def unknown() -> Any:
        raise binding.UnknownLayout("the header does not define XLA_FFI_API_MAJOR")

    monkeypatch.setattr(binding, "frame", unknown)
    monkeypatch.setattr(primitive, "frame", unknown)
    (message,) = messages_of(46)
    assert "XLA_FFI_API_MAJOR" in message
