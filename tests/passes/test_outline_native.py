"""Networks with kernels do what the same networks do without, and what is no network is left alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, nn
from stategraph.passes import DEFAULT, PassError

WITHOUT = ",".join(name for name in DEFAULT if name != "outline-native")


class Network(nn.Module):
    """Neurons of one kind that excite and inhibit each other through synapses of one kind."""

    def __init__(self, neuron: Any, synapse: Any, output: Any) -> None:
        super().__init__()
        self.neurons = neuron
        self.excite = nn.AlignPostProj(
            comm=event.FixedProb(32, 40, 0.2, 0.6, seed=1), syn=synapse(40), out=output(), post=neuron
        )
        self.inhibit = nn.DeltaProj(comm=event.FixedProb(8, 40, 0.3, -0.4, seed=2), post=neuron)

    def update(self, current: Any) -> Any:
        spikes = self.neurons.get_spike()
        self.excite(spikes[..., :32])
        self.inhibit(spikes[..., 32:])
        return self.neurons(current)


class Competing(nn.Module):
    """Neurons that each silence all others, driven by truth values through a small matrix: Diehl and Cook (2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = nn.LIF(40)
        self.weight = sg.ParamState(jnp.linspace(0.0, 0.1, 400).reshape(10, 40))
        self.learned = event.FixedProb(40, 40, 0.2, 0.3, seed=1)
        self.inhibit = nn.DeltaProj(comm=event.AllToAll(40, 40, -0.1, include_self=False), post=self.neurons)

    def update(self, current: Any) -> Any:
        spikes = self.neurons.get_spike()
        self.inhibit(spikes)
        return self.neurons(current + (current[:10] > 7.0) @ self.weight.value + spikes @ self.learned)


MODELS = {
    "Competing": Competing,
    "LIF": lambda: Network(nn.LIF(40), nn.Expon, nn.CUBA),
    "LIFRef": lambda: Network(nn.LIFRef(40, spk_reset="hard"), nn.Alpha, lambda: nn.COBA(E=3.0)),
    "ALIF": lambda: Network(nn.ALIF(40), nn.DualExpon, nn.CUBA),
    "ExpIF": lambda: Network(nn.ExpIF(40, R=20.0), nn.Expon, nn.CUBA),
    "AdExIF": lambda: Network(nn.AdExIF(40), nn.Expon, nn.CUBA),
    "Izhikevich": lambda: Network(nn.Izhikevich(40), nn.Expon, nn.CUBA),
    "HH": lambda: Network(nn.HH(40), nn.Expon, nn.CUBA),
}


def simulate(
    model: Any, passes: str, steps: int = 60, batch: int | None = None
) -> tuple[Any, dict[str, Any], Any]:
    """(spikes, State afterwards, the program)."""
    sg.random.seed(0)
    network = nn.init_all_states(model(), batch_size=batch)
    drive = jnp.linspace(3.0, 41.0, 40)

    def step(i: Any) -> Any:
        with sg.environ.context(t=i * 0.1):
            return network(drive)

    @sg.compile.jit(passes=passes)
    def run(numbers: Any) -> Any:
        return sg.compile.for_loop(step, numbers)

    with sg.environ.context(dt=0.1):
        numbers = jnp.arange(steps)
        program = run.lower(numbers).program
        spikes = run(numbers)
    states = {".".join(map(str, path)): np.asarray(state.value) for path, state in network.states().items()}
    return np.asarray(spikes), states, program


def kernels(program: Any) -> list[Any]:
    return list(program.walk("native.kernel"))


@pytest.mark.parametrize("model", MODELS)
def test_a_network_with_kernels_is_the_network_without(model: str) -> None:
    pytest.importorskip("llvmlite")
    spikes, states, program = simulate(MODELS[model], "default")
    wanted, others, plain = simulate(MODELS[model], WITHOUT)
    assert len(kernels(program)) == 1 and not kernels(plain)
    assert not any(op.name == "flow.scan" for op in program.body.ops)  # the loop is inside
    assert wanted.sum() > 0
    np.testing.assert_array_equal(spikes, wanted)
    for path, value in states.items():
        np.testing.assert_allclose(value, others[path], rtol=2e-3, atol=2e-3, err_msg=path)


def test_a_batch_of_networks() -> None:
    pytest.importorskip("llvmlite")
    spikes, _, program = simulate(MODELS["LIF"], "default", batch=3)
    wanted, _, _ = simulate(MODELS["LIF"], WITHOUT, batch=3)
    assert len(kernels(program)) == 1
    np.testing.assert_array_equal(spikes, wanted)


def test_without_loops_only_a_step_is_a_kernel() -> None:
    pytest.importorskip("llvmlite")
    spikes, _, program = simulate(MODELS["LIF"], WITHOUT + ",outline-native{loops=false}")
    (loop,) = program.walk("flow.scan")
    assert len(list(loop.walk("native.kernel"))) == 1
    np.testing.assert_array_equal(spikes, simulate(MODELS["LIF"], WITHOUT)[0])


def test_a_run_with_recording_is_one_kernel() -> None:
    network = nn.init_all_states(MODELS["LIFRef"]())
    v = network.neurons.V
    monitor = {"spikes": network.neurons.spike, "some": (v, slice(0, 5), 4), "all": (v, None, 5)}

    def run() -> Any:
        recorded = nn.run(network, 3.0, monitor=monitor, inputs=lambda t: jnp.full(40, 6.0), dt=0.1)
        return recorded["some"], recorded["all"]

    program = sg.trace(run).lower().program
    (kernel,) = kernels(program)
    assert not any(op.name in ("flow.scan", "event.csr", "event.csr_add") for op in program.body.ops)
    assert any(True for _ in kernel.walk("flow.scan"))
    blank = kernel.walk("jax.empty")  # every row of them is written
    assert {op.result.type.shape for op in blank} == {(8, 5), (6, 40)}


class Noisy(Network):
    """With three sources of random numbers."""

    def __init__(self) -> None:
        super().__init__(nn.LIF(40), nn.Expon, nn.CUBA)
        self.outside = nn.PoissonInput(self.neurons, None, 50, 40.0, 0.5)
        self.fibres = nn.PoissonSpike(32, 100.0, spk_type=jnp.float32)
        self.sent = nn.DeltaProj(comm=event.FixedProb(32, 40, 0.2, 0.6, seed=3), post=self.neurons)

    def update(self, current: Any) -> Any:
        self.outside()
        self.sent(self.fibres())
        return super().update(current + sg.random.normal(size=40))


@pytest.mark.parametrize("batch", [None, 3])
def test_a_loop_with_random_numbers_draws_the_same_in_a_kernel(batch: int | None) -> None:
    pytest.importorskip("llvmlite")
    spikes, states, program = simulate(Noisy, "default", batch=batch)
    key = sg.random.get_key()
    wanted, others, _ = simulate(Noisy, WITHOUT, batch=batch)
    assert len(kernels(program)) == 1 and not any(op.name == "flow.scan" for op in program.body.ops)
    assert wanted.sum() > 0
    np.testing.assert_array_equal(spikes, wanted)
    np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(sg.random.get_key()))
    for path, value in states.items():
        np.testing.assert_allclose(value, others[path], rtol=2e-3, atol=2e-3, err_msg=path)


def test_random_numbers_counted_in_the_older_way_are_so_in_a_kernel() -> None:
    pytest.importorskip("llvmlite")
    with jax.threefry_partitionable(False):
        spikes, _, program = simulate(Noisy, "default", steps=20)
        wanted, *_ = simulate(Noisy, WITHOUT, steps=20)
    assert len(kernels(program)) == 1 and wanted.any()
    np.testing.assert_array_equal(spikes, wanted)
    assert (wanted != simulate(Noisy, "default", steps=20)[0]).any()


def test_a_loop_that_draws_is_a_kernel_without_events_unless_it_draws_much() -> None:
    pytest.importorskip("llvmlite")
    total = sg.State(jnp.zeros(3))

    def program(size: int, passes: str = "default") -> Any:
        def step(i: Any) -> Any:
            total.value = total.value + sg.random.rand(size)[:3]
            return total.value

        return sg.compile.jit(lambda: sg.compile.for_loop(step, jnp.arange(4)), passes=passes)

    assert [op.name for op in program(7).lower().program.walk("native.kernel", "flow.scan")] == [
        "native.kernel",
        "flow.scan",
    ]
    assert not kernels(program(2**17 + 1).lower().program)
    assert not kernels(sg.trace(lambda: sg.random.rand(7) * 2).lower().program)  # no loop
    sums = []
    for passes in ("default", WITHOUT):
        sg.random.seed(3)
        total.value = jnp.zeros(3)
        sums.append(np.asarray(program(7, passes)()))
    np.testing.assert_array_equal(*sums)


def test_programs_in_16_bits_stay_in_xla() -> None:
    def loop(x: Any) -> Any:
        return jax.lax.fori_loop(0, 5, lambda i, y: y * 0.5 + x, x)

    for dtype in (jnp.float16, jnp.bfloat16):
        compiled = sg.compile.jit(loop, passes="default,outline-native{scope=all}")
        x = jnp.linspace(-1.0, 1.0, 7, dtype=dtype)
        assert not kernels(compiled.lower(x).program)
        np.testing.assert_array_equal(compiled(x), jax.jit(loop)(x))


def test_random_numbers_of_another_generator_stay_in_xla() -> None:
    pytest.importorskip("llvmlite")
    network = nn.init_all_states(Noisy())
    found = []
    for passes in ("default", WITHOUT):
        nn.reset_all_states(network)
        stream = sg.random.RandomState(jax.random.key(0, impl="rbg"))

        def run(stream: Any = stream) -> Any:
            step = lambda i: super(Noisy, network).update(20.0 + stream.normal(size=40))
            return sg.compile.for_loop(step, jnp.arange(20))

        with sg.environ.context(dt=0.1):
            compiled = sg.compile.jit(run, passes=passes)
            if passes == "default":
                (loop,) = compiled.lower().program.walk("flow.scan")
                assert len(list(loop.walk("native.kernel"))) == 1
            found.append(np.asarray(compiled()))
    assert found[0].any()
    np.testing.assert_array_equal(*found)


def test_gradients_pass_through_kernels() -> None:
    """The backward loop has event products too; what a kernel computes is what is differentiated."""
    network = nn.init_all_states(MODELS["LIF"]())
    weight = network.excite.comm.weight

    def loss() -> Any:
        def step(i: Any) -> Any:
            with sg.environ.context(t=i * 0.1):
                return network(jnp.full(40, 6.0))

        return sg.compile.for_loop(step, jnp.arange(20)).sum() + (network.neurons.V.value**2).sum()

    found = []
    for passes in ("default", WITHOUT):
        nn.reset_all_states(network)
        with sg.environ.context(dt=0.1):
            gradient = sg.augment.grad(loss, grad_states={"w": weight})
            found.append(sg.compile.jit(lambda gradient=gradient: gradient(), passes=passes)()["w"])
    assert float(found[1]) != 0
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def test_exported_programs_and_text_have_no_machine_code() -> None:
    network = nn.init_all_states(MODELS["LIF"]())

    def run() -> Any:
        with sg.environ.context(dt=0.1):
            return sg.compile.for_loop(lambda i: network(jnp.ones(40)), jnp.arange(5))

    lowered = sg.trace(run).lower()
    assert kernels(lowered.program)
    exported = lowered.export()
    assert exported is not None
    assert "stategraph_kernel" not in lowered.as_text("jaxpr")


def test_programs_without_events_are_not_touched() -> None:
    program = sg.trace(lambda x: jax.lax.scan(lambda c, y: (c + y, c), x[0], x), jnp.ones(4)).lower().program
    assert not kernels(program)


def test_a_loop_whose_event_products_stay_in_xla_stays_there() -> None:
    """XLA has threads for products of batches, and for what is around them."""

    def program(v: Any, w: Any) -> Any:
        def step(v: Any, _: Any) -> Any:
            sent = (v > 1).astype(v.dtype)
            return 0.9 * v + sent @ w - sent, None

        return jax.lax.scan(step, v, None, length=3)[0]

    v = jnp.linspace(0, 2, 8 * 512).reshape(8, 512)
    lowered = sg.trace(program, v, jnp.ones((512, 512))).lower(
        passes="default,rewrite-events{mode=always},outline-native"
    )
    assert next(lowered.program.walk("event.dense"), None) is not None
    assert next(lowered.program.walk("native.kernel"), None) is None


def test_the_scope_all_makes_kernels_of_programs_without_events() -> None:
    pytest.importorskip("llvmlite")

    def loop(x: Any) -> Any:
        return jax.lax.fori_loop(0, 5, lambda i, y: jnp.tanh(y) * i + y[::-1], x)

    x = jnp.linspace(-1.0, 1.0, 7)
    compiled = sg.compile.jit(loop, passes="default,outline-native{scope=all}")
    (kernel,) = kernels(compiled.lower(x).program)
    assert [op.name for op in kernel.regions[0].ops[:-1] if op.regions] == ["flow.scan"]
    np.testing.assert_allclose(compiled(x), jax.jit(loop)(x), rtol=1e-4, atol=1e-5)


def test_a_scope_that_is_none_is_refused() -> None:
    with pytest.raises(PassError, match="'scope' of 'outline-native' is one of events, all, not 'most'"):
        sg.compile.jit(lambda x: x, passes="outline-native{scope=most}").lower(1.0)


@pytest.mark.for_cpus
@pytest.mark.parametrize(("size", "inside"), [(300, True), (520, False)])
def test_large_matrices_that_change_are_computed_outside_of_kernels(size: int, inside: bool) -> None:
    """XLA has threads for them."""

    def send(v: Any, w: Any) -> Any:
        spikes = event.declare((v >= 1).astype(jnp.float32), use="events")
        return spikes @ (w * (w > 0)), spikes.sum()

    def learn(v: Any, w: Any) -> Any:
        weights, before = sg.ShortTermState(w), sg.ShortTermState(v)

        def step() -> None:
            before.value = v + send(before.value, weights.value)[0]
            weights.value = weights.value * 0.5

        sg.compile.for_loop(step, length=3)
        return before.value, weights.value

    v, w = jnp.zeros(size).at[3].set(1.0), jnp.ones((size, size)) - jnp.eye(size)
    for function in (send, learn):
        compiled = sg.compile.jit(function)
        kernels = list(compiled.lower(v, w).program.walk("native.kernel"))
        (kernel,) = (kernel for kernel in kernels if any(kernel.walk("event.dense")))
        assert any(op.result.type.shape == (size, size) for op in kernel.walk("jax.mul")) == inside
        assert any(kernel.walk("flow.scan")) == (inside and function is learn)
        for a, b in zip(compiled(v, w), function(v, w), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_effects_keep_their_order_around_a_kernel(capfd: pytest.CaptureFixture[str]) -> None:
    """One print needs what the kernel computes, the next one does not; both stand before the kernel's last op."""
    pytest.importorskip("llvmlite")
    count = sg.State(jnp.float32(1.0))

    def function(x: Any) -> Any:
        a = jnp.sin(x) * 2
        jax.debug.print("first {}", a[0], ordered=True)
        jax.debug.print("second {}", 3, ordered=True)
        count.value = a[1]
        seen = count.value
        jax.debug.print("third", ordered=True)
        return jnp.cos(a) + a, seen

    x = jnp.arange(3.0)
    compiled = sg.compile.jit(function, passes="outline-native{min_ops=1,scope=all}," + WITHOUT)
    found, seen = compiled(x)
    jax.effects_barrier()
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["first", "second", "third"]
    np.testing.assert_allclose(found, jnp.cos(2 * jnp.sin(x)) + 2 * jnp.sin(x), rtol=1e-5)
    np.testing.assert_allclose(seen, 2 * np.sin(1.0), rtol=1e-5)
