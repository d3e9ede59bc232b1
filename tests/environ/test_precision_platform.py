"""Precision and platform."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import environ
from stategraph.environ import platforms
from stategraph.errors import StateGraphError, TraceError


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    environ.reset()
    yield
    environ.reset()


TYPES = {
    16: (16, np.float16, np.int16, np.uint16, np.complex64, 1e-2),
    "bf16": (16, jnp.bfloat16, np.int16, np.uint16, np.complex64, 1e-2),
    32: (32, np.float32, np.int32, np.uint32, np.complex64, 1e-5),
    64: (64, np.float64, np.int64, np.uint64, np.complex128, 1e-12),
}


@pytest.mark.core
@pytest.mark.parametrize("precision", TYPES)
def test_default_dtypes(precision: Any) -> None:
    def found() -> Any:
        return (
            environ.get_precision(), environ.dftype(), environ.ditype(), environ.dutype(), environ.dctype(),
        )  # fmt: skip

    *expected, tolerance = TYPES[precision]
    with environ.context(precision=precision):
        assert found() == tuple(expected)
        assert np.isclose(float(environ.tolerance()), tolerance, rtol=1e-2)
        assert jax.config.jax_enable_x64 == (precision == 64)
        assert sg.random.rand(2, key=0).dtype == environ.dftype()
        assert sg.random.randint(5, size=2, key=0).dtype == environ.ditype()
    assert environ.get_precision() == 32 and not jax.config.jax_enable_x64
    environ.set_precision(precision)
    assert found() == tuple(expected)
    environ.reset()
    assert environ.get_precision() == 32 and not jax.config.jax_enable_x64


def test_without_a_precision_it_is_that_of_jax() -> None:
    with jax.enable_x64(True):
        assert environ.dftype() == np.float64 and sg.random.rand(1, key=0).dtype == np.float64
    assert environ.dftype() == np.float32


@pytest.mark.parametrize("wrong", [8, "float8", 32.5, None, [32]])
def test_precisions_that_there_are_not(wrong: Any) -> None:
    with (
        pytest.raises(ValueError, match="precision has to be 16, 32, 64 or 'bf16'"),
        environ.context(precision=wrong),
    ):
        pass


def test_compiled_draws_follow_the_precision() -> None:
    f = sg.compile.jit(lambda: sg.random.rand(2))
    assert f().dtype == np.float32
    with environ.context(precision="bf16"):
        assert f().dtype == jnp.bfloat16
    with environ.context(precision=64):
        assert f().dtype == np.float64
    assert f().dtype == np.float32 and f.trace_count == 3


def test_the_platform_that_is_there() -> None:
    environ.set(platform="cpu")
    environ.set_platform("CPU")
    assert environ.get_platform() == environ.get("platform") == "cpu"
    assert environ.get("host_device_count") == environ.get_host_device_count() == len(jax.devices("cpu"))


@pytest.mark.core
def test_a_platform_that_is_not_there_lists_those_that_are() -> None:
    for name in ("tpu", "abacus"):
        with pytest.raises(ValueError, match=rf"no platform '{name}'[\s\S]*'cpu'"):
            environ.set(platform=name)
    with pytest.raises(TypeError, match="a name such as"):
        environ.set(platform=3)  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="platform is changed while"):
        sg.compile.jit(lambda: environ.set(platform="cpu"))()


def test_the_number_of_cpu_devices_is_fixed_when_jax_has_started() -> None:
    have = len(jax.devices("cpu"))
    environ.set(host_device_count=have)
    with pytest.raises(StateGraphError, match=r"too late for \d+ CPU devices"):
        environ.set(host_device_count=have + 1)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="positive number"):
            environ.set_host_device_count(wrong)  # type: ignore[arg-type]


MOVING = """
import warnings, jax, jax.numpy as jnp, numpy as np
import stategraph as sg
from stategraph.environ import platforms
sg.environ.set(host_device_count=2)
first, second = jax.devices()
free, key = sg.State(jnp.arange(3.0)), sg.random.RandomState(1)
placed = sg.State(jax.device_put(jnp.ones(2), first))
step = sg.compile.jit(lambda: setattr(free, "value", free.value + key.rand(3)))
step()
before = np.asarray(free.value)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    platforms._choose(second)
    assert not caught and free.value.devices() == {first}  # nothing moves before a call
    total = sg.compile.jit(lambda: free.value.sum())
    total(), total()
assert "moved the arrays of" in str(caught[0].message) and len(caught) == 1
assert free.value.devices() == {second} and key.value.devices() == {second}
assert placed.value.devices() == {first}
assert (np.asarray(free.value) == before).all()
step()
assert free.value.devices() == {second} and jnp.ones(1).devices() == {second}
other = sg.random.RandomState(1)
assert (np.asarray(free.value) == before + np.asarray([other.rand(3), other.rand(3)])[1]).all()
assert step.trace_count == 1
"""


def test_states_move_to_another_device() -> None:
    import subprocess
    import sys

    from tests.support import ROOT

    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", MOVING],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_available_platforms() -> None:
    assert "cpu" in platforms.available()


def test_compiled_code_notices_that_64_bit_types_are_switched_on_though_it_asks_for_no_precision() -> None:
    step = sg.compile.jit(lambda x: x + jnp.arange(3.0))
    loop = functools.partial(sg.compile.for_loop, lambda x: x + jnp.ones(()), np.zeros(2, np.float32))
    x = np.ones(3, np.float32)
    for _ in range(2):
        assert step(x).dtype == loop().dtype == jnp.float32
        with jax.enable_x64(True):
            assert step(x).dtype == loop().dtype == jnp.float64
    assert step.trace_count == 2
