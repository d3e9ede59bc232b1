"""Lists of events: by every kernel, in lanes, as an op of a program, and in loops that are kernels."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import stategraph as sg
from stategraph import event, ir, nn
from stategraph.backends.events import dispatch, pallas_dense
from stategraph.backends.events.compact_primitive import compact
from stategraph.backends.events.primitives import csr_product
from stategraph.nn import running_chunks
from tests.support import check_kernels_for_gpus

pytestmark = pytest.mark.core


def assert_lists(found: Any, dense: Any) -> None:
    """What comes after the places is unspecified."""
    found, places = np.asarray(found), np.flatnonzero(dense)
    assert found.dtype == np.int32 and found.shape == (1 + np.size(dense),)
    assert found[0] == len(places)
    np.testing.assert_array_equal(found[1 : 1 + len(places)], places)


@pytest.mark.parametrize("kind", ["native", "generic", "pallas"])
def test_kernels_list_in_order(kind: str) -> None:
    on_cpu = jax.default_backend() == "cpu"
    if kind == "native":
        pytest.importorskip("numba")
        if not on_cpu:
            pytest.skip("it is for CPUs")
    rng = np.random.default_rng(0)
    for shape in [(0,), (3, 73), (2, 1025)] if kind != "pallas" else [(3, 73), (2, 1025)]:
        aval = jax.ShapeDtypeStruct(shape, bool)
        run = dispatch.choose("event.compact", "cpu", kind == "native", [aval], {})[1]
        if kind == "pallas":
            check_kernels_for_gpus(pallas_dense.places, jnp.zeros(shape, bool))
            run = functools.partial(pallas_dense.places, interpret=on_cpu)
        run = jax.jit(run) if kind != "generic" else run
        for rate in (0.0, 0.2, 1.0):
            events = rng.random(shape) < rate
            assert_lists(run(events), events)


def test_a_list_is_an_op_of_a_program_and_has_lanes() -> None:
    events = jnp.arange(12).reshape(3, 4) % 5 == 0
    lowered = sg.trace(lambda x: compact(x), events).lower()
    assert [op.name for op in lowered.program.body.ops] == ["event.compact", "flow.yield"]
    assert ir.parse(str(lowered.program)) == lowered.program
    assert_lists(lowered.compile()(events), events)
    for lane, found in enumerate(jax.vmap(compact, in_axes=1)(events)):
        assert_lists(found, events[:, lane])
    with pytest.raises(TypeError, match="not of float32"):
        compact(jnp.zeros(3))
    (op,) = lowered.program.walk("event.compact")
    op.results[0].type = op.operands[0].type
    with pytest.raises(ir.VerifyError, match=r"of 12 events it is i32\[13\]"):
        ir.verify(lowered.program)


@pytest.mark.for_cpus
@pytest.mark.parametrize("size", [1, 150])
def test_a_loop_that_is_a_kernel_lists_what_it_would_stack(size: int) -> None:
    pytest.importorskip("llvmlite")
    from tests.backends.codegen.running import natively

    square = event.CSR.from_dense(np.eye(size)[::-1])

    def body(v: Any, t: Any) -> Any:
        spikes = v > 11
        sent = csr_product(spikes, jnp.float32(4), square.indptr, square.indices, square.shape)
        v = (3 * v + sent + t) % 16  # whole numbers: exact
        return v, (spikes, v == 3, jnp.broadcast_to(t > 2, v.shape), spikes.reshape(-1, 1), v < 8)

    def stacks(v: Any, reverse: bool, steps: int) -> Any:
        return lax.scan(body, v, jnp.arange(steps, dtype=jnp.float32), reverse=reverse)

    start = jnp.asarray(np.random.default_rng(size).integers(0, 16, size), jnp.float32)
    for reverse, steps in ((False, 7), (True, 4), (False, 1)):

        def listed(v: Any, reverse: bool = reverse, steps: int = steps) -> Any:
            last, (a, b, c, d, e) = stacks(v, reverse, steps)
            return last, compact(a), compact(b), compact(c), compact(d), compact(e), e, compact(v > 8)

        last, *lists, e, once = natively(listed, start)
        wanted, dense = jax.jit(stacks, static_argnums=(1, 2))(start, reverse, steps)
        np.testing.assert_array_equal(last, wanted)
        np.testing.assert_array_equal(e, dense[-1])
        assert_lists(once, start > 8)
        for found, stack in zip(lists, dense, strict=True):
            assert_lists(found, stack)


class Network(nn.Module):
    """Neurons that excite each other through synapses."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = nn.LIFRef((5, 8), tau=10.0, tau_ref=2.0, V_th=1.0)
        self.excite = event.FixedProb(40, 40, 0.2, 0.3, seed=0)

    def update(self) -> Any:
        arrived = self.neurons.get_spike().reshape(-1) @ self.excite
        return self.neurons(1.2 + 3.0 * jnp.linspace(0, 1, 40).reshape(5, 8) + arrived.reshape(5, 8))


@pytest.mark.parametrize("native", [True, False])
def test_a_recorded_network_lists_the_spikes_of_the_loop(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a kernel, and where nothing is listed."""
    from stategraph.nn import running

    if not native:
        monkeypatch.setattr(running, "can_list", lambda: False)
    monkeypatch.setattr(running_chunks, "LONGEST", 20)
    monkeypatch.setattr(running_chunks, "SHORTEST", 1)
    network, other = nn.init_all_states(Network()), nn.init_all_states(Network())
    monitor = {"all": network.neurons.spike, "some": (network.neurons.spike, (slice(1, 4), [7, 2]))}
    for first, steps in ((0, 41), (41, 20)):

        def step(i: Any) -> Any:
            with sg.environ.context(i=i, t=i * 0.5, dt=0.5):
                return other()

        rec = nn.run(network, steps * 0.5, None, monitor, dt=0.5)
        dense = np.asarray(sg.compile.for_loop(step, jnp.arange(first, first + steps)))
        assert 0.02 < dense.mean() < 0.5
        np.testing.assert_array_equal(rec["all"].dense, dense)
        np.testing.assert_array_equal(rec["some"].dense, dense[:, 1:4, [7, 2]].reshape(steps, -1))
        assert rec["all"].shape == (5, 8) and rec["all"].ids.dtype == np.int32
        assert rec["all"].steps.dtype == np.int32 and (np.diff(rec["all"].steps) >= 0).all()


def test_a_loop_and_its_list_are_one_kernel() -> None:
    square = event.CSR.from_dense(np.eye(9)[::-1])

    def body(v: Any, _: Any) -> Any:
        spikes = v > 0.7
        sent = csr_product(spikes, jnp.float32(0.2), square.indptr, square.indices, square.shape)
        return v * 0.9 + sent, spikes

    def function(v: Any) -> Any:
        last, spikes = lax.scan(body, v, length=5)
        return last, compact(spikes)

    program = sg.trace(function, jnp.zeros(9)).lower(passes="default").program
    (kernel,) = program.walk("native.kernel")
    assert [op.name for op in kernel.regions[0].ops] == ["flow.scan", "event.compact", "flow.yield"]


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_lists_on_devices_with_their_own_memory_are_fetched_in_part(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spikes = np.random.default_rng(0).random((6, 50)) < rate
    monkeypatch.setattr(running_chunks, "_shares_memory", lambda array: False)
    steps, places = running_chunks.Listed.of(jnp.asarray(spikes)).events()
    np.testing.assert_array_equal(np.stack([steps, places]), np.nonzero(spikes))
