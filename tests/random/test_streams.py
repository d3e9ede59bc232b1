"""Draws are those of ``jax.random`` on split keys, eagerly and in every kind of compiled code."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import init, random
from stategraph.errors import StateAccessError, StateGraphError, TraceError
from stategraph.random.sampler import Sampler
from tests.support import ROOT

SHAPES = [(), (7,), (4, 33)]


@pytest.fixture(autouse=True)
def own_stream() -> Any:
    """Tests leave the default stream alone."""
    with random.seed_context(0):
        yield


def next_key() -> jax.Array:
    """The key that the next draw uses."""
    return jax.random.split(random.get_key(), 2)[1]


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def same_key(a: jax.Array, b: jax.Array) -> None:
    same(jax.random.key_data(a), jax.random.key_data(b))


# -------------------------------------------------------------------------------------- the seed documents


@pytest.mark.core
def test_numbers_of_the_seed_documents() -> None:
    random.seed(42)
    same_key(random.get_key(), jax.random.key(42))
    expected = [[0.72766423, 0.78786755, 0.18169427], [0.26263022, 0.11072934, 0.20263076]]
    same(random.rand(2, 3), np.array(expected, np.float32))
    random.rand(3)
    for _ in range(3):
        random.split_key()  # the documents draw the weights of three layers here
    expected = [0.7928349, 0.14884543, 0.46262634, 0.9012923, 0.20398748]
    same(random.rand(5), np.array(expected, np.float32))


PLAIN: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "rand": (lambda s: random.rand(*s), lambda k, s: jax.random.uniform(k, s)),
    "random": (lambda s: random.random(s), lambda k, s: jax.random.uniform(k, s)),
    "randn": (lambda s: random.randn(*s), lambda k, s: jax.random.normal(k, s)),
    "normal": (lambda s: random.normal(0, 0.1, size=s), lambda k, s: jax.random.normal(k, s) * 0.1),
    "normal at": (lambda s: random.normal(1.3, 0.7, s), lambda k, s: jax.random.normal(k, s) * 0.7 + 1.3),
    "uniform": (
        lambda s: random.uniform(-1.3, 2.7, s),
        lambda k, s: jax.random.uniform(k, s, minval=-1.3, maxval=2.7),
    ),
    "choice": (lambda s: random.choice(77, size=s), lambda k, s: jax.random.choice(k, 77, s)),
    "choice p": (
        lambda s: random.choice(np.arange(3.0), s, p=[0.2, 0.3, 0.5]),
        lambda k, s: jax.random.choice(k, np.arange(3.0), s, p=np.array([0.2, 0.3, 0.5])),
    ),
    "randint": (lambda s: random.randint(-5, 17, s), lambda k, s: jax.random.randint(k, s, -5, 17)),
    "bernoulli": (lambda s: random.bernoulli(0.3, s), lambda k, s: jax.random.bernoulli(k, 0.3, s)),
    "exponential": (lambda s: random.exponential(2.5, s), lambda k, s: jax.random.exponential(k, s) * 2.5),
    "permutation": (lambda s: random.permutation(12), lambda k, s: jax.random.permutation(k, 12)),
    "split_key": (
        lambda s: jax.random.key_data(random.split_key()),
        lambda k, s: jax.random.key_data(k),
    ),
}


PLAIN_AT_ALL_SHAPES = ("rand", "randn", "normal")


@pytest.mark.parametrize("name", PLAIN)
def test_a_draw_is_the_plain_call_on_the_second_key(name: str) -> None:
    draw, plain = PLAIN[name]
    for shape in SHAPES if name in PLAIN_AT_ALL_SHAPES else SHAPES[1:2]:
        following, own = jax.random.split(random.get_key(), 2)
        same(draw(shape), plain(own, shape))
        same_key(random.get_key(), following)


SAMPLERS = {
    "uniform": (random.uniform, (-1.3, 2.7)),
    "randint": (random.randint, (-5, 17)),
    "bernoulli": (random.bernoulli, (0.3,)),
    "logistic": (random.logistic, ()),
    "t": (random.standard_t, (3.7,)),
    "weibull": (random.weibull, (1.7,)),
    "triangular": (random.triangular, (-0.3, 0.4, 1.7)),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_compiling_a_draw_with_its_key_changes_no_bit(name: str) -> None:
    function, parameters = SAMPLERS[name]
    key = next_key()
    compiled = function(*parameters, size=(50,)) if parameters else function(size=(50,))
    alone = function(*parameters, size=(50,), key=key) if parameters else function(size=(50,), key=key)
    same(compiled, alone)


def test_a_key_is_used_as_it_is_and_leaves_the_stream_alone() -> None:
    before = random.get_key()
    for key in (7, np.uint32(7), jax.random.key(7), jax.random.PRNGKey(7), np.asarray(jax.random.PRNGKey(7))):
        same(random.rand(3, key=key), jax.random.uniform(jax.random.key(7), (3,)))
    same_key(random.get_key(), before)
    with pytest.raises(TypeError, match="a seed or key is needed"):
        random.rand(3, key="seed")


# ------------------------------------------------------------------------------------------------- streams


def several() -> Any:
    """Draws of every kind, in loops and branches too."""
    first = random.rand(3)

    def step(carry: Any, x: Any) -> Any:
        return carry + random.randint(0, 100), random.randn(2)

    carry, ys = jax.lax.scan(step, 0, jnp.arange(4))
    chosen = jax.lax.cond(first[0] > 0.5, lambda: random.rand(), lambda: random.randn())
    count, _ = jax.lax.while_loop(
        lambda c: c[1] < 3, lambda c: (c[0] + random.randint(0, 9), c[1] + 1), (0, 0)
    )
    return first, carry, ys, chosen, count, random.choice(10, 3)


@pytest.mark.core
def test_compiled_code_draws_what_eager_code_draws() -> None:
    random.seed(3)
    with jax.disable_jit():
        expected = [several() for _ in range(2)]
        key = random.get_key()
    random.seed(3)
    compiled = sg.compile.jit(several)
    # The last step of a normal number is rounded once where XLA makes one instruction of it, and twice elsewhere.
    for result in expected:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=3e-7), compiled(), result)
    same_key(random.get_key(), key)
    assert compiled.trace_count == 1


def test_for_loop_scan_and_python_loop_draw_the_same() -> None:
    def three(loop: Callable[[], Any]) -> np.ndarray:
        random.seed(5)
        return np.asarray(loop())

    python = three(lambda: jnp.stack([random.rand(2) for _ in range(3)]))
    same(three(lambda: sg.compile.for_loop(lambda i: random.rand(2), jnp.arange(3))), python)
    same(three(lambda: sg.compile.scan(lambda c, i: (c, random.rand(2)), 0, jnp.arange(3))[1]), python)
    same(three(sg.compile.jit(lambda: jnp.stack([random.rand(2) for _ in range(3)]))), python)


def test_eager_draws_and_compiled_calls_alternate() -> None:
    random.seed(9)
    expected = [random.rand() for _ in range(6)]
    random.seed(9)
    compiled = sg.compile.jit(lambda: random.rand())
    drawn = [compiled(), compiled(), random.rand(), compiled(), random.rand(), compiled()]
    same(jnp.stack(drawn), jnp.stack(expected))
    assert compiled.trace_count == 1


def test_grad_and_remat_draw_once() -> None:
    w = sg.ParamState(jnp.arange(1.0, 4.0))

    def loss() -> Any:
        noise = random.randn(3)
        return (w.value * noise).sum() ** 2

    random.seed(1)
    noise = np.asarray(random.randn(3))
    after = random.get_key()
    expected = 2 * float((np.arange(1.0, 4.0) * noise).sum()) * noise
    for function in (loss, lambda: jax.checkpoint(loss)()):
        random.seed(1)
        np.testing.assert_allclose(sg.augment.grad(function, w)(), expected, rtol=1e-5)
        same_key(random.get_key(), after)
        random.seed(1)
        np.testing.assert_allclose(sg.compile.jit(sg.augment.grad(function, w))(), expected, rtol=1e-5)
        same_key(random.get_key(), after)


def test_every_thread_draws_its_own_numbers() -> None:
    random.seed(2)
    expected = sorted(float(random.rand()) for _ in range(200))
    random.seed(2)
    drawn: list[float] = []
    compiled = sg.compile.jit(lambda: random.rand())
    compiled()
    random.seed(2)

    def work(i: int) -> None:
        drawn.extend([float((compiled if i % 2 else random.rand)()) for _ in range(50)])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(drawn) == expected


def test_draws_inside_foreign_transformations() -> None:
    with pytest.raises(StateAccessError, match=r"DEFAULT.*drawn from[\s\S]*key="):
        jax.jit(lambda: random.rand(3))()
    with pytest.raises(StateAccessError, match=r"inside jax.vmap[\s\S]*augment.vmap"):
        jax.vmap(lambda x: x + random.rand())(jnp.zeros(3))
    with pytest.raises(StateAccessError, match=r"inside jax.vmap[\s\S]*augment.vmap"):
        sg.compile.jit(lambda xs: jax.vmap(lambda x: x + random.rand())(xs))(jnp.zeros(3))
    key = jax.random.key(1)
    same(jax.jit(lambda k: random.rand(3, key=k))(key), random.rand(3, key=key))
    keys = jax.random.split(key, 3)
    same(jax.vmap(lambda k: random.rand(2, key=k))(keys)[1], random.rand(2, key=keys[1]))
    same(jax.jit(lambda: random.RandomState(4).rand(2))(), random.RandomState(4).rand(2))


# ---------------------------------------------------------------------------------------------------- keys


def test_keys_for_oneself() -> None:
    start = random.get_key()
    keys = jax.random.split(start, 4)
    same_key(random.split_key(3), keys[1:])
    same_key(random.get_key(), keys[0])
    random.set_key(start)
    same_key(random.split_keys(3), keys[1:])
    random.set_key(start)
    same(random.get_key_data(), jax.random.key_data(start))
    assert random.split_key(0).shape == (0,)
    with pytest.raises(ValueError, match="n has to be at least 0"):
        random.split_key(-1)


def test_backup_and_restore() -> None:
    start = random.get_key()
    random.split_key(2, backup=True)
    with pytest.raises(ValueError, match="backed up already"):
        random.backup_key()
    random.restore_key()
    same_key(random.get_key(), start)
    with pytest.raises(ValueError, match="no key has been backed up"):
        random.restore_key()
    random.self_assign_multi_keys(4)
    assert random.get_key().shape == (4,)
    random.restore_key()


def test_a_backup_does_not_outlive_its_trace() -> None:
    def roundtrip() -> Any:
        random.backup_key()
        drawn = random.rand(2)
        random.restore_key()
        return drawn, random.rand(2)

    first, second = sg.compile.jit(roundtrip)()
    same(first, second)
    sg.compile.jit(lambda: random.backup_key())()
    with pytest.raises(StateAccessError, match="made in a trace"):
        random.restore_key()


def test_seed_context_is_undone_also_in_traces_and_after_errors() -> None:
    def inside() -> Any:
        with random.seed_context(11):
            own = random.rand(2)
        return own, random.rand(2)

    random.seed(6)
    expected = inside()
    same(expected[0], random.RandomState(11).rand(2))
    random.seed(6)
    jax.tree.map(same, sg.compile.jit(inside)(), expected)
    before = random.get_key()
    with pytest.raises(KeyError), random.seed_context(1):
        raise KeyError
    same_key(random.get_key(), before)


def test_clones_and_forks_are_independent_streams() -> None:
    a, b, *more = random.clone(), random.clone_rng(), *random.fork(2)
    drawn = {tuple(np.asarray(rng.rand(2)).tolist()) for rng in (a, b, *more, random)}
    assert len(drawn) == 5
    assert random.clone_rng(clone=False) is random.DEFAULT is random.default_rng()
    same(random.default_rng(3).rand(2), random.clone_rng(3).rand(2))
    same(random.RandomState(a).rand(2), a.rand(2))


def test_copies_and_pickles_go_on_from_the_same_key() -> None:
    rng = random.RandomState(8, name="mine", tag="noise")
    twins = [copy.copy(rng), copy.deepcopy(rng), pickle.loads(pickle.dumps(rng))]
    expected = rng.rand(3)
    for twin in twins:
        same(twin.rand(3), expected)
        assert twin.name == "mine" and twin.tag == {"noise"}


def test_seeding_in_traced_code() -> None:
    def seeded(n: Any) -> Any:
        random.seed(n)
        return random.rand(2)

    same(sg.compile.jit(seeded)(5), random.RandomState(5).rand(2))
    with pytest.raises(TraceError, match="seeded without a seed"):
        sg.compile.jit(lambda: random.seed())()


def test_without_a_seed_the_numbers_cannot_be_foreseen() -> None:
    random.seed()
    first = random.get_key_data()
    random.seed()
    assert (first != random.get_key_data()).any()
    assert (random.RandomState().get_key_data() != random.RandomState().get_key_data()).any()


def test_a_stream_in_a_model_is_a_state_of_it() -> None:
    class Noise(sg.nn.Module):
        def __init__(self) -> None:
            self.rng = random.RandomState(4)

        def update(self) -> Any:
            return self.rng.randn(2)

    model = Noise()
    trace = sg.trace(model)
    assert "RandomState<key<fry>[]>" in str(trace.program) and "rng" in str(trace.program)
    same(sg.compile.jit(model)(), random.RandomState(4).randn(2))


@pytest.mark.core
def test_importing_and_seeding_do_not_start_jax() -> None:
    code = """
import stategraph as sg, jax
sg.random.seed(42)
sg.environ.set(host_device_count=3)          # refused once JAX has started
assert len(jax.devices()) == 3 and sg.environ.get('host_device_count') == 3
own = jax.random.split(jax.random.key(42))[1]
assert (sg.random.rand(3) == jax.random.uniform(own, (3,))).all()
"""
    command = [sys.executable, "-c", code]
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_use_may_be_in_a_trace_or_a_thread() -> None:
    fresh = random.RandomState.deferred("fresh")
    fresh.seed(5)
    same(sg.compile.jit(lambda: fresh.rand(2))(), random.RandomState(5).rand(2))
    fresh = random.RandomState.deferred("fresh")
    fresh.seed(5)
    found: list[float] = []
    threads = [threading.Thread(target=lambda: found.append(float(fresh.rand()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rng = random.RandomState(5)
    assert sorted(found) == sorted(float(rng.rand()) for _ in range(4))


def test_a_captured_key_warns_when_it_moves() -> None:
    rng = random.RandomState(1)
    jax.jit(lambda: jax.random.uniform(rng.get_key()))()
    with pytest.warns(UserWarning, match="keeps its old value"):
        rng.rand()


def test_dispatches_of_an_eager_draw() -> None:
    """The common draws are one compiled call; their kernels are kept per shape and dtype."""
    from stategraph.random import basic

    for sampler in (basic._unit, basic._normal, basic._uniform, basic._randint, basic._bernoulli):
        assert isinstance(sampler, Sampler) and sampler._kernel is not None
    random.rand(3)
    size = basic._unit._kernel._cache_size()
    for _ in range(3):
        random.rand(3)
    assert basic._unit._kernel._cache_size() == size


@pytest.mark.parametrize("shape", [(7,), (3, 3, 4, 8), (200, 100)])
def test_an_eager_draw_has_the_bits_of_jax(shape: tuple[int, ...]) -> None:
    """Though its kernel is compiled with options of its own."""
    weights = init.XavierNormal()
    draws = {
        random.rand: jax.random.uniform,
        random.randn: jax.random.normal,
        lambda *shape: random.truncated_normal(-2.0, 2.0, shape): lambda key, shape: (
            jax.random.truncated_normal(key, -2.0, 2.0, shape)
        ),
        lambda *shape: weights((*shape, 2)): lambda key, shape: jax.nn.initializers.glorot_normal()(
            key, (*shape, 2)
        ),
    }
    for ours, theirs in draws.items():
        random.seed(3)
        expected = theirs(jax.random.split(jax.random.key(3))[1], shape)
        if jax.default_backend() == "cpu":
            np.testing.assert_array_equal(ours(*shape), expected)
        else:  # multiplied in one kernel, by numbers that XLA may round later
            np.testing.assert_allclose(ours(*shape), expected, rtol=2e-5)


def test_errors_are_the_projects() -> None:
    assert issubclass(StateAccessError, StateGraphError)
    with pytest.raises(AttributeError, match="no attribute 'no_such_distribution'"):
        random.DEFAULT.no_such_distribution
