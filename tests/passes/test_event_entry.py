"""A spike State may hold anything when a program begins: what is computed of it is what plain JAX and NumPy compute.

``infer-events`` says of such values that they are events *if* the State held 0 and 1 (``entry``). Nothing that a program
does may rest on that: every product has to look at the values. So each way to write a product is tried in each kind of
program, with each kind of kernel, and one program is given all that a State may hold, one after another: it is compiled
once, and nobody asks the host.
"""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
import stategraph.augment
import stategraph.compile
from stategraph import event, init, nn
from stategraph.passes import DEFAULT
from tests.passes import entry_cases
from tests.passes.entry_cases import (
    LANES,
    POST,
    Form,
    N,
    Sender,
    differs,
    entries,
    expected,
    kernels,
    layers,
    matrices,
    of_arrays,
    of_connections,
    of_sparse_matrices,
    spiking,
)

PIPELINE = ",".join(DEFAULT).replace("rewrite-events", "rewrite-events{mode=always}")
"""Every product becomes one of events, and loops become kernels."""
APART = PIPELINE.replace(",outline-native", "")
"""Each product is computed by a kernel of its own, or by XLA where many are active."""
SEED = 0


# ----------------------------------------------------------------------------------------------------------- programs


def inputs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=(*shape, N)).astype(np.float32)


def spikes_of(x: np.ndarray) -> np.ndarray:
    return (x > 0).astype(np.float32)


Found = Iterator[tuple[Any, dict[str, Any]]]
"""What the State held when the products were made, and the products, by form."""
Use = Callable[[Any], Found]
"""What a compiled program makes of an entry value."""


def called(net: Sender, passes: str | None, rng: np.random.Generator) -> Use:
    """One call after another, and a write between two of them."""
    run, xs = sg.compile.jit(net, passes=passes), inputs(rng, 2)

    def use(entry: Any) -> Found:
        net.spike.value = jnp.asarray(entry)
        yield entry, run(xs[0])
        yield spikes_of(xs[0]), run(xs[1])
        net.spike.value = jnp.asarray(entry[::-1])
        yield entry[::-1], run(xs[0])

    return use


def looped(net: Sender, passes: str | None, rng: np.random.Generator) -> Use:
    """A loop."""
    run, xs = sg.compile.jit(lambda xs: sg.compile.for_loop(net, xs), passes=passes), inputs(rng, 3)

    def use(entry: Any) -> Found:
        net.spike.value = jnp.asarray(entry)
        yield from each([entry, *spikes_of(xs)], run(xs))

    return use


def each(held: Any, found: dict[str, Any]) -> Found:
    """What was found in each step."""
    for t, s in enumerate(held[: len(next(iter(found.values())))]):
        yield s, {name: np.asarray(sent)[t] for name, sent in found.items()}


def nested(net: Sender, passes: str | None, rng: np.random.Generator) -> Use:
    """Steps that are left out, in a loop in a loop."""
    xs, taken = inputs(rng, 2, 2), np.array([[False, True], [False, True]])
    nothing = {
        name: jnp.zeros(y.shape, y.dtype) for name, y in jax.eval_shape(shown(net), net.spike.value).items()
    }

    def inner(x: Any, take: Any) -> Any:
        return sg.compile.cond(take, lambda: net(x), lambda: nothing)

    def outer(xs: Any, taken: Any) -> Any:
        return sg.compile.for_loop(inner, xs, taken)

    run = sg.compile.jit(lambda *given: sg.compile.for_loop(outer, *given), passes=passes)

    def use(entry: Any) -> Found:
        net.spike.value = jnp.asarray(entry)
        found = run(xs, taken)
        yield entry, {name: sent[0, 1] for name, sent in found.items()}
        yield spikes_of(xs[0, 1]), {name: sent[1, 1] for name, sent in found.items()}

    return use


def shown(net: Sender) -> Callable[[Any], dict[str, Any]]:
    return lambda s: {name: form.send(s) for name, form in net.forms.items()}


def repeated(net: Sender, passes: str | None, rng: np.random.Generator) -> Use:
    """A loop until something holds; the last products are kept."""
    xs = inputs(rng, 2)

    def run(xs: Any) -> Any:
        def body(state: Any) -> Any:
            t, _ = state
            return t + 1, net(xs[t])

        nothing = jax.tree.map(
            lambda y: jnp.zeros(y.shape, y.dtype), jax.eval_shape(shown(net), net.spike.value)
        )
        return sg.compile.while_loop(lambda state: state[0] < len(xs), body, (0, nothing))[1]

    compiled = sg.compile.jit(run, passes=passes)

    def use(entry: Any) -> Found:
        net.spike.value = jnp.asarray(entry)
        yield entry, compiled(xs[:1])
        net.spike.value = jnp.asarray(entry)
        yield spikes_of(xs[0]), compiled(xs)

    return use


def lanes(net: Sender, passes: str | None, rng: np.random.Generator) -> Use:
    """Lanes of which one holds what it should not, each with its loop."""
    net.spike.value = jnp.zeros((LANES, N))
    mapped = sg.augment.vmap(lambda xs: sg.compile.for_loop(net, xs), in_states=net.spike)
    run, xs = sg.compile.jit(mapped, passes=passes), inputs(rng, LANES, 2)

    def use(entry: Any) -> Found:
        held = np.stack([spikes_of(xs[0, 1]), entry, np.zeros_like(entry)])
        net.spike.value = jnp.asarray(held)
        found = run(xs)
        for lane in range(LANES):
            own = {name: sent[lane] for name, sent in found.items()}
            yield from each([held[lane], *spikes_of(xs[lane])], own)

    return use


def lanes_of_steps(net: Sender, passes: str | None, rng: np.random.Generator) -> Use:
    """A loop whose steps have lanes."""
    net.spike.value = jnp.zeros((LANES, N))
    step = sg.augment.vmap(net, in_states=net.spike)
    run, xs = sg.compile.jit(lambda xs: sg.compile.for_loop(step, xs), passes=passes), inputs(rng, 2, LANES)

    def use(entry: Any) -> Found:
        held = np.stack([np.zeros_like(entry), entry, spikes_of(xs[0, 1])])
        net.spike.value = jnp.asarray(held)
        found = run(xs)
        for lane in range(LANES):
            own = {name: sent[:, lane] for name, sent in found.items()}
            yield from each([held[lane], *spikes_of(xs[:, lane])], own)

    return use


def simulated(net: Sender, passes: str | None, rng: np.random.Generator) -> Use:
    """``nn.run``, which records what is sent."""
    xs = inputs(rng, 3)

    def simulate(xs: Any) -> Any:
        return nn.run(net, 3.0, inputs=xs, monitor={"sent": lambda sent: sent}, dt=1.0)["sent"]

    run = sg.compile.jit(simulate, passes=passes)

    def use(entry: Any) -> Found:
        net.spike.value = jnp.asarray(entry)
        yield from each([entry, *spikes_of(xs)], run(xs))

    return use


def exported(net: Sender, passes: str | None, rng: np.random.Generator) -> Use:
    """A file, loaded again: its products are those of every platform."""
    xs = inputs(rng, 2)
    lowered = sg.trace(lambda xs: sg.compile.for_loop(net, xs), xs).lower(passes=passes)
    with tempfile.TemporaryDirectory() as folder:
        lowered.export(path=Path(folder) / "steps.sgx")
        loaded = sg.load_exported(Path(folder) / "steps.sgx")
    (path,) = (path for path in loaded.states if path.endswith("spike"))

    def use(entry: Any) -> Found:
        loaded.states[path] = jnp.asarray(entry)
        yield from each([entry, *spikes_of(xs)], loaded(xs))

    return use


PROGRAMS = {
    function.__name__: function
    for function in (called, looped, nested, repeated, lanes, lanes_of_steps, simulated, exported)
}


# ----------------------------------------------------------------------------------------------------------- products


def dealt(program: str, seed: int = SEED) -> list[str]:
    """The forms of a program, so that all programs together have all of them."""
    names, place = list(forms(seed)), list(PROGRAMS).index(program)
    random.Random(seed).shuffle(names)
    return names[place :: len(PROGRAMS)]


@functools.cache
def forms(seed: int) -> dict[str, Form]:
    w, mask = matrices(np.random.default_rng(seed))
    return {**of_arrays(w, mask), **of_sparse_matrices(w), **of_connections(layers(seed))}


def check(kind: str, program: str, names: list[str], seed: int, passes: str | None) -> int:
    """Give a program all that its State may hold; returns how many products were compared."""
    rng = np.random.default_rng(seed)
    chosen = {name: forms(seed)[name] for name in names}
    known: dict[bytes, dict[str, np.ndarray]] = {}
    compared, problems = 0, []
    with kernels(kind):
        use = PROGRAMS[program](Sender(chosen), passes, rng)
        steps = 0
        for name, entry in entries(rng).items():
            for s, found in use(entry):
                wanted = known.get(s.tobytes()) or expected(chosen, s)
                known[s.tobytes()] = wanted
                for form, sent in found.items():
                    compared += 1
                    difference = differs(sent, wanted[form])
                    if difference:
                        problems.append(f"{form}, {name}: {difference}")
            steps = steps or len(entry_cases.seen)
            assert len(entry_cases.seen) == steps, "it was traced again"
    assert not problems, f"{program} with {kind} kernels, seed {seed}:\n" + "\n".join(problems)
    return compared


CASES = [
    *(("native", program, (PIPELINE, APART)[i % 2]) for i, program in enumerate(PROGRAMS)),
    ("function", "nested", APART),
    ("function", "lanes", PIPELINE),
    ("pallas", "looped", APART),
]


@pytest.mark.for_cpus
@pytest.mark.parametrize(
    ("kind", "program", "passes"), CASES, ids=lambda given: given if len(given) < 20 else ""
)
def test_products_of_whatever_a_spike_State_holds(kind: str, program: str, passes: str) -> None:
    assert check(kind, program, dealt(program), SEED, passes) > 100


def test_the_program_says_what_it_knows_and_asks_nobody() -> None:
    net = Sender(
        {name: forms(SEED)[name] for name in ("s @ w", "w @ s", "positive rows", "masked", "s @ BCOO")}
    )
    xs = inputs(np.random.default_rng(0), 2)
    lowered, again = (
        sg.trace(lambda xs: sg.compile.for_loop(net, xs), xs).lower(passes=APART)
        for net.spike.value in (jnp.zeros(N), jnp.full(N, 0.5))
    )
    assert again.program == lowered.program, "what the State holds while it is traced makes a difference"
    (loop,) = lowered.program.walk("flow.scan")
    held = [arg for arg in loop.regions[0].args if arg.event is not None]
    assert [arg.event for arg in held] == ["entry"]
    products = [op for op in loop.walk() if op.name.startswith("event.")]
    assert [op.name for op in products].count("event.dense") == 4 and products[-1].name == "event.csr"
    assert not [op.name for op in loop.walk() if "dot_general" in op.name]
    (told,) = (e for e in lowered.explain() if e.pass_name == "infer-events")
    assert "each product tests" in told.reason and told.numbers == {"elements": N}
    text = lowered.as_text("stablehlo", native=True)
    assert "callback" not in text and "infeed" not in text and "outfeed" not in text


# ---------------------------------------------------------------------------------------------------------- gradients


def check_gradients(kind: str, names: list[str], seed: int, passes: str | None) -> None:
    """Gradients of a loop to the weights of each product, and to what the State held."""
    rng = np.random.default_rng(seed)
    w, mask = matrices(rng)
    xs = inputs(rng, 2)
    weights = {name: sg.ParamState(w) for name in names}
    spikes = {name: sg.HiddenState(jnp.zeros(N)) for name in names}
    shapes = jax.eval_shape(lambda s: {name: of_arrays(w, mask)[name].send(s) for name in names}, xs[0])
    by = {name: jnp.asarray(rng.uniform(0.5, 1.5, y.shape), jnp.float32) for name, y in shapes.items()}

    def part(name: str, w: Any, s: Any) -> Any:
        return (by[name] * of_arrays(w, mask)[name].send(s)).sum()

    def loss(xs: Any) -> Any:
        def step(x: Any) -> Any:
            total = sum(part(name, weights[name].value, spikes[name].value) for name in names)
            for spike in spikes.values():
                spike.value = spiking(x)
            return total

        return sg.compile.for_loop(step, xs).sum()

    def plain(name: str, s: Any) -> Any:
        return jax.grad(lambda w, s: part(name, w, s) + part(name, w, jnp.asarray(spikes_of(xs[0]))), (0, 1))(
            w, s
        )

    problems = []
    with kernels(kind):
        run = sg.compile.jit(sg.augment.grad(loss, [*weights.values(), *spikes.values()]), passes=passes)
        for entry_name, entry in entries(rng).items():
            for spike in spikes.values():
                spike.value = jnp.asarray(entry)
            found = run(xs)
            for i, name in enumerate(names):
                with jax.disable_jit():
                    wanted = plain(name, jnp.asarray(entry))
                for what, a, b in zip("ws", (found[i], found[len(names) + i]), wanted, strict=True):
                    difference = differs(a, b)
                    if difference:
                        problems.append(f"{name} to {what}, {entry_name}: {difference}")
    assert not problems, f"gradients with {kind} kernels, seed {seed}:\n" + "\n".join(problems)


def check_gradients_of_connections(kind: str, names: list[str], seed: int, passes: str | None) -> None:
    """The same for connections, against the product of both ends of each synapse."""
    rng = np.random.default_rng(seed)
    made = {name: layers(seed)[name] for name in names}
    spikes = {name: sg.HiddenState(jnp.zeros(N)) for name in made}
    weights = {name: layer.weight for name, layer in made.items()}
    by = {name: rng.uniform(0.5, 1.5, POST).astype(np.float32) for name in made}

    def loss() -> Any:
        return sum((by[name] * (spikes[name].value @ layer)).sum() for name, layer in made.items())

    def of_synapses(name: str, s: Any) -> tuple[np.ndarray, np.ndarray]:
        layer, outer = made[name], np.outer(s, by[name])
        matrix = np.asarray(layer.todense())
        if isinstance(layer, event.Linear):
            outer = outer * (1 - np.eye(N, POST)) if name == "AllToAll" else outer
        else:  # some pairs have two synapses
            count = (
                np.asarray(layer.connections.todense(1.0)) if isinstance(layer, event.Sparse) else matrix != 0
            )
            outer = np.where(count != 0, outer * count, 0)
        return (outer.sum() if layer.weight.value.ndim == 0 else outer), (matrix * by[name]).sum(1)

    problems = []
    with kernels(kind):
        run = sg.compile.jit(sg.augment.grad(loss, [*weights.values(), *spikes.values()]), passes=passes)
        for entry_name, entry in entries(rng).items():
            for spike in spikes.values():
                spike.value = jnp.asarray(entry)
            found = run()
            for i, (name, layer) in enumerate(made.items()):
                with np.errstate(all="ignore"):
                    wanted = of_synapses(name, entry)
                grad, to_events = found[i], found[len(made) + i]
                if isinstance(layer, event.Sparse) and grad.ndim:
                    grad = layer.connections.todense(grad)
                for what, a, b in zip("ws", (grad, to_events), wanted, strict=True):
                    difference = differs(a, b)
                    if difference:
                        problems.append(f"{name} to {what}, {entry_name}: {difference}")
    assert not problems, f"gradients with {kind} kernels, seed {seed}:\n" + "\n".join(problems)


@pytest.mark.for_cpus
def test_gradients_of_products_of_whatever_a_spike_State_holds() -> None:
    check_gradients("native", ["s @ w", "batch, columns", "rows by whole numbers", "masked"], SEED, APART)


@pytest.mark.for_cpus
def test_gradients_of_connections_with_whatever_a_spike_State_holds() -> None:
    check_gradients_of_connections("native", ["FixedProb", "Sparse", "Linear", "JITConn"], SEED, APART)


# ----------------------------------------------------------------------------------------- what remembers its events


class Remembering(nn.Module):
    """A spike State that is sent through delays and projections, and that changes weights."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        drawn = init.Uniform(0.3, 0.7, seed=1)
        self.spike = sg.HiddenState(jnp.zeros(N))
        self.layer = event.FixedProb(N, POST, 0.2, drawn, seed=2)
        dense = self.layer.todense()
        there = np.asarray(dense) != 0
        comm = (lambda s: jnp.where(there, s[:, None] * dense, 0).sum(0)) if plain else self.layer
        self.delayed = event.Delayed(
            event.FixedProb(N, POST, 0.1, drawn, seed=3), init.Uniform(0.0, 3.0, seed=4)
        )
        self.stdp = event.STDP(event.FixedProb(N, POST, 0.1, drawn, seed=5), A_plus=0.1, A_minus=0.1, mu=1.0)
        self.history = nn.Delay(jnp.zeros(N), time=3.0)
        self.history.register_entry("late", 2.0)
        self.direct, self.aligned = nn.LIF(POST, V_th=5.0), nn.LIF(POST, V_th=5.0)
        self.delta = nn.DeltaProj(comm=comm, post=self.direct)
        self.exponential = nn.AlignPostProj(
            comm=comm, syn=nn.Expon.desc(POST, tau=5.0), out=nn.CUBA.desc(), post=self.aligned
        )
        self.comm = comm

    def update(self, x: Any) -> dict[str, Any]:
        s = self.spike.value
        self.history(s)
        late = self.history.at("late")
        self.delta(s)
        self.exponential(s)
        self.direct(0.0)
        self.aligned(0.0)
        found = {"late": late @ self.layer if self.comm is self.layer else self.comm(late)}
        found |= {"V": self.direct.V.value, "V of aligned": self.aligned.V.value}
        if self.comm is self.layer:
            self.stdp(s, s[:POST])
            found |= {"delayed": s @ self.delayed, "weights": self.stdp.connections.weight.value}
        self.spike.value = spiking(x)
        return found


def remembered(net: Remembering, held: np.ndarray) -> dict[str, np.ndarray]:
    """What delays and plasticity make of events, synapse by synapse."""
    csr, steps = net.delayed.connections.connections, net.delayed.steps
    weight = np.asarray(net.delayed.weight.value)
    arrived = np.zeros((len(held) + net.delayed.slots, POST), np.float32)
    plastic = net.stdp.connections
    pre, post = np.asarray(plastic.connections.rows), np.asarray(plastic.connections.indices)
    w = np.asarray(plastic.weight.value)
    x, y, learned = np.zeros(N, np.float32), np.zeros(POST, np.float32), []
    for t, s in enumerate(held):
        np.add.at(arrived, (t + steps, np.asarray(csr.indices)), s[np.asarray(csr.rows)] * weight)
        x, y = x * np.float32(np.exp(-1 / 20)), y * np.float32(np.exp(-1 / 20))
        sent, received = s[pre], s[post]
        w = np.where(sent != 0, np.clip(w - np.float32(0.1) * sent * w * y[post], 0, 1), w)
        w = np.where(received != 0, np.clip(w + np.float32(0.1) * received * (1 - w) * x[pre], 0, 1), w)
        x, y = x + s, y + s[:POST]
        learned.append(w)
    return {"delayed": arrived[: len(held)], "weights": np.stack(learned)}


def check_memory(kind: str, seed: int, passes: str | None) -> None:
    rng = np.random.default_rng(seed)
    xs, problems = inputs(rng, 5), []
    with kernels(kind), sg.environ.context(dt=1.0), np.errstate(all="ignore"):
        net, plain = (nn.init_all_states(Remembering(plain)) for plain in (False, True))
        run = sg.compile.jit(lambda xs: sg.compile.for_loop(net, xs), passes=passes)
        for name, entry in entries(rng).items():
            for each_net in (net, plain):
                nn.reset_all_states(each_net)
                each_net.spike.value = jnp.asarray(entry)
            net.stdp.connections.weight.value = plain.stdp.connections.weight.value
            wanted = remembered(net, np.stack([entry, *spikes_of(xs[:-1])]))
            found = run(xs)
            with jax.disable_jit():
                wanted |= jax.tree.map(lambda *rows: np.stack(rows), *[plain(x) for x in xs])
            for what, b in wanted.items():
                difference = differs(found[what], b)
                if difference:
                    problems.append(f"{what}, {name}: {difference}")
    assert not problems, f"memory with {kind} kernels:\n" + "\n".join(problems)


@pytest.mark.for_cpus
def test_delays_projections_and_plasticity_with_whatever_a_spike_State_holds() -> None:
    check_memory("native", SEED, PIPELINE)
