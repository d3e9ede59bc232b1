"""``infer-events`` says only what is true, and ``rewrite-events`` changes no result: on random networks, with random and
with hostile State.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
import stategraph.augment
import stategraph.compile
from stategraph import ir
from stategraph.backends import reference
from stategraph.passes import event_products, event_rules, run_passes
from stategraph.passes.event_facts import event_facts
from tests.passes.event_chains import chain, samples
from tests.passes.event_networks import SIZE, Network, spikes, ways
from tests.passes.event_programs import HOIST
from tests.support import EventFacts, build

ALWAYS = "infer-events,rewrite-events{mode=always}"


def network(seed: int) -> tuple[Callable[[Any, Any], Any], Network]:
    """A function of steps of input and a matrix, and the States that it uses."""
    rng = random.Random(seed)
    net = Network(rng)
    steps, keep = rng.choice((1, 3)), rng.random() < 0.7

    def step(x: Any, w: Any) -> Any:
        net.x = x
        s = spikes(rng, net, rng.choice((1, 2)))
        product = rng.choice(
            (
                lambda: s @ w,
                lambda: w.T @ s,
                lambda: (jnp.where(s[:, None] > 0, w, 0.0)).sum(0),
                lambda: (s[:, None] * w).sum(0),
                lambda: jnp.stack([s, net.held()]) @ w,
                lambda: (s > 0) @ (w * (w > 0)),
                lambda: sg.event.declare(s, rate=0.1) @ w,
            )
        )()
        fired = sg.surrogate.sigmoid(product.reshape(-1, SIZE)[0] + x)
        net.spike.value = fired if keep else spikes(rng, net, 1)
        net.buffer.value = jnp.concatenate([net.buffer.value[1:], fired[None]])
        return product

    def run(xs: Any, w: Any) -> Any:
        if steps == 1:
            return step(xs[0], w)
        return sg.compile.for_loop(lambda x: step(x, w), xs)

    return run, net


def inputs(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.normal(size=(3, SIZE)), jnp.float32),
        jnp.asarray(rng.normal(size=(SIZE, SIZE)), jnp.float32),
    )


STATES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Any]] = {
    "silent": lambda rng, shape: np.zeros(shape),
    "all": lambda rng, shape: np.ones(shape),
    "random": lambda rng, shape: rng.random(shape) < 0.5,
    "halves": lambda rng, shape: np.full(shape, 0.5),
    "anything": lambda rng, shape: rng.normal(size=shape),
}


def states_of(program: ir.Program, kind: str) -> dict[str, tuple[Any, ...]]:
    rng = np.random.default_rng(3)
    return {
        path: tuple(jnp.asarray(STATES[kind](rng, type.shape), jnp.float32) for type in symbol.types)  # type: ignore[union-attr]
        for path, symbol in program.states.items()
    }


def compare_runs(before: ir.Program, after: ir.Program, seed: int, kinds: Any = STATES) -> int:
    """Both programs give the same; the facts in the second hold. How many were checked."""
    checked = 0
    for kind in kinds:
        states = states_of(before, kind)
        watcher = EventFacts(after, states)
        expected, wanted = reference.run(before, inputs(seed), states)
        found, reached = reference.run(after, inputs(seed), states, watcher=watcher)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        for path, leaves in wanted.items():
            for a, b in zip(leaves, reached[path], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        checked += watcher.checked
    return checked


@pytest.mark.core
@pytest.mark.parametrize("seed", range(8))
def test_facts_hold_and_rewritten_networks_compute_the_same(seed: int) -> None:
    run, _ = network(seed)
    traced = build(run, *inputs(seed)).program
    hoisted = run_passes(traced, HOIST).program
    noted = run_passes(traced, "infer-events").program  # State anywhere
    assert compare_runs(traced, noted, seed, ("random", "halves")) > 0
    assert compare_runs(traced, run_passes(hoisted, ALWAYS).program, seed) > 0


@pytest.mark.parametrize("pair", ["fired held", "fired anything", "anything held"])
def test_facts_of_everything_that_may_become_of_events_hold(pair: str) -> None:
    def run(x: Any) -> Any:
        net.x = x
        found = {"anything": lambda: x, "fired": net.fired, "held": net.held, "compared": net.compared}
        results = [way() for way in ways(net, *(found[name]() for name in pair.split()))]
        net.spike.value, net.buffer.value = net.fired(), jnp.stack([net.held(), net.late()])
        return results, net.spike.value @ jnp.ones((SIZE, SIZE))

    net = Network(random.Random(0))
    traced = build(run, jnp.zeros(SIZE)).program
    noted = run_passes(traced, "infer-events").program
    hoisted = run_passes(traced, f"{HOIST},infer-events").program
    for seed, program, kind in ((0, noted, "random"), (1, hoisted, "random"), (2, noted, "halves")):
        x = jnp.asarray(np.random.default_rng(seed).normal(0.6, 1.5, SIZE), jnp.float32)  # half of them spike
        states = states_of(program, kind)
        watcher = EventFacts(program, states)
        reference.run(program, [x], states, watcher=watcher)
        assert watcher.checked > 0 and watcher.entry == (kind == "random")


def check_chain(seed: int, length: int = 8) -> int:
    """Run a random chain of operations; the facts hold of every value. How many were checked."""
    run, _ = chain(seed, length)
    traced, checked = build(run, jnp.zeros(SIZE)).program, 0
    (path,) = (path for path, symbol in traced.states.items() if not symbol.born)
    for before in ("", f"{HOIST},"):
        program = run_passes(traced, f"{before}infer-events").program
        for x, held in samples(seed):
            states = {path: (jnp.asarray(held),)}
            watcher = EventFacts(program, states)
            with np.errstate(all="ignore"):
                reference.run(program, [jnp.asarray(x)], states, watcher=watcher)
            checked += watcher.checked
    return checked


@pytest.mark.parametrize("seed", (2, 3))
def test_facts_hold_of_whatever_operations_make(seed: int) -> None:
    assert check_chain(seed) > 0


@pytest.mark.no_program_checks
def test_a_wrong_rule_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(event_rules._RULES, "jax.add", event_rules._join)
    with pytest.raises((AssertionError, reference.ExecutionError), match="is said to be"):
        for seed in range(40):
            run, _ = network(seed)
            traced = build(run, *inputs(seed)).program
            compare_runs(traced, run_passes(traced, "infer-events").program, seed, ("random",))


@pytest.mark.no_program_checks
def test_a_product_the_wrong_way_round_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = event_products.Emit.dense
    monkeypatch.setattr(
        event_products.Emit,
        "dense",
        lambda emit, s, w, transposed, most: original(emit, s, w, not transposed, most),
    )
    with pytest.raises(AssertionError, match="Not equal"):
        for seed in range(10):
            run, _ = network(seed)
            traced = build(run, *inputs(seed)).program
            compare_runs(traced, run_passes(traced, ALWAYS).program, seed, ("random",))


def rewritten(function: Any, *args: Any, pipeline: str = f"{HOIST},{ALWAYS}") -> list[str]:
    program = run_passes(build(function, *args).program, pipeline).program
    return [op.name for op in program.walk() if op.name.startswith("event.") or "dot" in op.name]


SURROGATES = [
    function
    for name, function in vars(sg.surrogate).items()
    if inspect.isfunction(function) and name in sg.surrogate.__all__
]


@pytest.mark.parametrize("function", SURROGATES, ids=lambda function: function.__name__)
def test_every_surrogate_makes_spikes(function: Any) -> None:
    program = build(lambda x, w: function(x) @ w, jnp.ones(3), jnp.ones((3, 3))).program
    facts = event_facts(program)
    (product,) = program.walk("jax.dot_general")
    assert facts.of(product.operands[0]) == event_rules.SPIKE


@jax.custom_jvp
def sent_whole(s: Any, w: Any) -> Any:
    """Linear in the whole parts of ``s``; its rule calls it with anything."""
    return (s[:, None].astype(jnp.int32).astype(jnp.float32) * w).sum(0)


@sent_whole.defjvp
def _sent_whole_along(primals: Any, tangents: Any) -> Any:
    (s, w), (ds, dw) = primals, tangents
    return sent_whole(s, w), sent_whole(ds, w) + sent_whole(s, dw)


def test_a_rule_may_call_its_own_function_with_what_are_no_spikes() -> None:
    x, w = jnp.linspace(-1, 1, 6), jnp.arange(30.0).reshape(6, 5)
    spikes, along = (x > 0).astype(jnp.float32), jnp.full(6, 1.5)

    def slope(x: Any, along: Any) -> Any:
        return sg.augment.jvp(lambda s: sent_whole(s, w), ((x > 0).astype(jnp.float32),), (along,))

    program = run_passes(build(slope, x, along).program, f"{HOIST},{ALWAYS}").program
    assert next(program.walk("event.dense"), None) is not None
    found, _ = reference.run(program, [x, along], {})
    for a, b in zip(found, jax.jvp(lambda s: sent_whole(s, w), (spikes,), (along,)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.skipif(not hasattr(jnp, "float8_e8m0fnu"), reason="this JAX has no such dtype")
def test_what_passed_through_a_dtype_without_zero_is_no_event() -> None:
    def send(x: Any, w: Any) -> Any:
        powers = (x > 0).astype(jnp.float8_e8m0fnu).astype(jnp.float32)
        return powers @ w, (powers[:, None] * w).sum(0)

    x, w = jnp.linspace(-1, 1, 6), jnp.ones((6, 5))
    program = run_passes(build(send, x, w).program, f"{HOIST},{ALWAYS}").program
    assert not [op for op in program.walk("jax.convert_element_type") if op.result.event]
    for a, b in zip(reference.run(program, [x, w], {})[0], send(x, w), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isnan(b).all()


def test_a_membrane_that_is_only_reset_is_no_event() -> None:
    v = sg.HiddenState(jnp.zeros(4))

    def reset(mask: Any, w: Any) -> Any:
        v.value = jnp.where(mask, 0.0, v.value)
        return v.value @ w, (mask.astype(jnp.float32) * v.value) @ w

    assert rewritten(reset, jnp.zeros(4, bool), jnp.ones((4, 4))) == ["jax.dot_general", "jax.dot_general"]


def test_refractory_neurons_in_a_loop_with_a_delay_are_seen_through() -> None:
    class Net(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neurons = sg.nn.LIFRef(4)
            self.delay = sg.HiddenState(jnp.zeros((3, 4)))

        def update(self, x: Any, w: Any) -> Any:
            late = self.delay.value[0]
            s = self.neurons(late @ w + x)
            self.delay.value = jnp.concatenate([self.delay.value[1:], s[None]])
            return s

    net = Net()
    with sg.environ.context(dt=0.1, t=0.0):
        sg.nn.init_all_states(net)
        found = rewritten(
            lambda xs, w: sg.compile.for_loop(lambda x: net(x, w), xs), jnp.ones((5, 4)), jnp.ones((4, 4))
        )
    assert found == ["event.dense"]


N = 72  # larger than a matrix that is always multiplied whole


@pytest.mark.for_cpus
def test_weights_that_are_not_finite_count_where_spikes_are_and_a_check_names_their_State() -> None:
    class Net(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = sg.ParamState(jnp.ones((N, N)))
            self.spikes = sg.HiddenState(jnp.zeros(N))

        def update(self, x: Any) -> Any:
            sent = self.spikes.value @ (2 * self.weights.value).T
            self.spikes.value = sg.surrogate.sigmoid(x)
            return sent

    net = Net()
    xs = jnp.full((2, N), -1.0).at[0, 3].set(1.0)
    run, checked = (
        sg.compile.jit(lambda xs: sg.compile.for_loop(net, xs), passes=f"{more}{HOIST},{ALWAYS},dce")
        for more in ("", "check-weights,")
    )
    assert np.isfinite(run(xs)).all() and np.isfinite(checked(xs)).all()
    for where, expected in (
        ((5, 3), [5]),
        ((5, 4), []),
    ):  # the weight of a neuron that spikes, and of one that does not
        net.weights.value = jnp.ones((N, N)).at[where].set(jnp.inf)
        assert np.flatnonzero(~np.isfinite(run(xs)[1])).tolist() == expected
        with pytest.raises(sg.errors.CheckError, match=r"State @net\.weights, are not all finite") as caught:
            checked(xs)
        assert "self.spikes.value @ (2 * self.weights.value).T" in str(caught.value)
    lanes = sg.compile.jit(
        sg.augment.vmap(lambda x, w: sg.augment.grad(lambda w: (sg.surrogate.sigmoid(x) @ w).sum())(w)),
        passes="check-weights,default",
    )
    with pytest.raises(sg.errors.CheckError, match="not all finite"):
        lanes(jnp.ones((2, 3)), jnp.full((2, 3, 3), jnp.nan))


def layouts(x: Any, w: Any) -> list[Any]:
    """Products of spikes ``(4, 6)`` and of vectors of them with a matrix ``(6, 6)``, in every layout."""
    s = sg.surrogate.sigmoid(x)
    cube = jnp.stack([w, 2 * w, w.T, -w])
    numbers = (((1,), (1,)), ((), ()))
    return [
        s @ w,
        w @ s.T,
        s[0] @ w,
        w @ s[0],
        jnp.einsum("bi,ij->jb", s, w),
        jnp.einsum("bi,ji->bj", s, w),
        jnp.einsum("bi,bij->j", s, cube),  # over two axes
        jnp.tensordot(s.reshape(2, 2, 6), w, 1),
        jax.lax.dot_general(s, w, numbers, preferred_element_type=jnp.float32),
        jnp.where(s[0][:, None] > 0, w, 0.0).sum(0),
        (w * s[0]).sum(1),
        s @ (w * (w > 0)),
        (x > 0) @ w,
    ]


def test_products_in_every_layout_are_rewritten_with_their_derivatives_lanes_and_loops() -> None:
    x = jax.random.normal(jax.random.key(2), (4, 6))
    w = jax.random.normal(jax.random.key(3), (6, 6))

    def squares(x: Any, w: Any) -> Any:
        return sum((jnp.sin(y) ** 2).sum() for y in layouts(x, w))

    def slope(x: Any, w: Any) -> Any:
        into_x, into_w = sg.augment.grad(squares, argnums=(0, 1))(x, w)
        return (into_x**2).sum() + (into_w**2).sum()

    def loop(x: Any, w: Any) -> Any:
        return sg.compile.scan(lambda c, i: (c + 0.1, layouts(c, w)), x, jnp.arange(2))[1]

    def lanes(x: Any, w: Any) -> Any:
        xs, ws = jnp.stack([x, -x]), jnp.stack([w, 2 * w])
        mapped = [sg.augment.vmap(layouts, in_axes=axes) for axes in ((0, None), (None, 0), (0, 0))]
        return [mapped[0](xs, w), mapped[1](x, ws), mapped[2](xs, ws)]

    second = sg.augment.grad(slope, argnums=(0, 1))
    for function in (loop, second, lanes):
        args = (x, w)
        assert rewritten(function, *args).count("event.dense") >= 13
        after = "expand-transforms,inline-calls,dce"
        expected = sg.compile.jit(function, passes=f"{HOIST},{after}")(*args)
        found = sg.compile.jit(function, passes=f"{HOIST},{ALWAYS},{after}")(*args)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


def test_derivatives_and_lanes_of_rewritten_products_are_those_of_ordinary_ones() -> None:
    w = sg.ParamState(jax.random.normal(jax.random.key(0), (6, 6)))
    xs = jax.random.normal(jax.random.key(1), (3, 6))

    def loss(x: Any) -> Any:
        def step(s: Any, x: Any) -> Any:
            s = sg.surrogate.sigmoid(s @ w.value + x)
            return s, (s @ w.value).sum()

        return (jax.lax.scan(step, sg.surrogate.sigmoid(x), jnp.stack([x, 2 * x]))[1] ** 2).sum()

    def first(x: Any) -> Any:
        return sg.augment.grad(loss, w)(x)

    def second(x: Any) -> Any:
        return sg.augment.grad(lambda y: (sg.augment.grad(loss, argnums=0)(y) ** 2).sum(), w)(x)

    def lanes(xs: Any) -> Any:
        return sg.augment.vmap(lambda x: sg.surrogate.sigmoid(x) @ w.value)(xs)

    after = "expand-transforms,inline-calls,dce"
    for function, args in ((first, (xs[0],)), (second, (xs[0],)), (lanes, (xs,))):
        assert "event.dense" in rewritten(function, *args, pipeline=f"{HOIST},{ALWAYS},{after}")
        expected = sg.compile.jit(function, passes=f"{HOIST},{after}")(*args)
        found = sg.compile.jit(function, passes=f"{HOIST},{ALWAYS},{after}")(*args)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-4)


def test_sparse_matrices_of_JAX_become_event_products() -> None:
    sparse = pytest.importorskip("jax.experimental.sparse")
    dense = np.where(np.random.default_rng(0).random((5, 7)) < 0.4, 1.5, 0.0).astype(np.float32)
    matrix = sparse.BCSR.fromdense(dense)
    x = jnp.asarray(np.random.default_rng(1).normal(size=7), jnp.float32)

    def send(x: Any) -> Any:
        return matrix @ (x > 0).astype(jnp.float32)

    program = run_passes(build(send, x).program, f"{HOIST},{ALWAYS}").program
    assert [op.name for op in program.walk() if op.name.startswith("event.")] == ["event.csr"]
    np.testing.assert_allclose(reference.run(program, [x], {})[0][0], dense @ (x > 0), rtol=1e-6)


def test_synapses_in_any_order_are_sorted_before_a_loop() -> None:
    sparse = pytest.importorskip("jax.experimental.sparse")
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((5, 7)) < 0.4, rng.normal(size=(5, 7)), 0.0).astype(np.float32)
    matrix = sparse.BCOO.fromdense(dense, nse=20)  # more than there are: the others lie outside
    shuffled = rng.permutation(20)
    matrix = sparse.BCOO((matrix.data[shuffled], matrix.indices[shuffled]), shape=(5, 7))
    xs = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)

    def run(xs: Any) -> Any:
        def step(x: Any) -> Any:
            s = (x > 0).astype(jnp.float32)
            return s @ matrix, matrix.T @ s

        return sg.compile.for_loop(step, xs)

    program = run_passes(build(run, xs).program, f"{HOIST},{ALWAYS},inline-calls,cse").program
    (loop,) = program.walk("flow.scan")
    found = [op.name for op in loop.walk() if op.name.startswith(("event.", "jax.bcoo_dot", "jax.sort"))]
    assert found == ["event.csr", "event.csr"] and sum(1 for _ in program.walk("jax.sort")) == 1
    for found in reference.run(program, [xs], {})[0]:
        np.testing.assert_allclose(found, (xs > 0) @ dense, rtol=1e-5, atol=1e-6)
    alone = build(lambda x: (x > 0).astype(jnp.float32) @ matrix, xs[0]).program
    (told,) = run_passes(alone, f"{HOIST},{ALWAYS}").explanations[-1:]
    assert "sorted for each product" in told.reason


def test_synapses_that_fill_up_a_matrix_send_nothing_whatever_is_active() -> None:
    sparse = pytest.importorskip("jax.experimental.sparse")
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((5, 7)) < 0.4, rng.uniform(0.5, 1.5, (5, 7)), 0.0).astype(np.float32)
    dense[:, -1], dense[-1] = 0, [0, 1, 0, 0, 1, 0, 0]
    listed = sparse.BCOO.fromdense(dense, nse=20)
    rows, turned = (sparse.BCSR.fromdense(w, nse=20) for w in (dense, dense.T))
    xs = jnp.asarray(rng.normal(size=(3, 7)), jnp.float32).at[1, 6].set(jnp.inf).at[2, 4].set(jnp.inf)

    def run(xs: Any) -> Any:
        def step(x: Any) -> Any:
            s = sg.event.declare(jnp.where(x > 0, x, 0.0), rate=0.1)
            return s[:5] @ listed, listed @ s, rows @ s, turned @ s[:5]

        return sg.compile.for_loop(step, xs)

    program = run_passes(build(run, xs).program, f"{HOIST},{ALWAYS},inline-calls").program
    assert sum(op.name == "event.csr" for op in program.walk()) == 4
    events = np.where(xs > 0, xs, 0)
    with np.errstate(all="ignore"):
        forth, back = (
            np.where(w != 0, x[:, :, None] * w, 0).sum(1)
            for x, w in ((events[:, :5], dense), (events, dense.T))
        )
    compiled = [
        sg.compile.jit(run, passes=f"{HOIST},{ALWAYS}")(xs),
        sg.trace(run, xs).lower(passes=f"{HOIST},{ALWAYS}").export()(xs),
    ]
    for found in (reference.run(program, [xs], {})[0], *compiled):
        for a, b in zip(found, (forth, back, back, forth), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
