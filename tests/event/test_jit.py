"""Connections that are made of a seed: every kernel against the dense matrix, and that against what is stored."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, init
from stategraph.backends import reference
from stategraph.backends.events import jit_generic, loops, pallas_jit
from stategraph.backends.events.jit_primitive import jit_product
from tests.oracle import agree
from tests.support import check_kernels_for_gpus

LAWS = {"one": 0.5, "uniform": init.Uniform(-1.0, 3.0), "normal": init.Normal(0.5, 0.25)}
SIZES = (70, 45)


def connections(law: str, **options: Any) -> event.JITConn:
    return event.JITConn(*SIZES, **{"prob": 0.2, "weight": LAWS[law], "seed": 3, **options})


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("include_self", [True, False])
def test_the_synapses_are_those_that_would_be_stored(law: str, include_self: bool) -> None:
    made = np.asarray(connections(law, include_self=include_self).todense())
    stored = event.FixedProb(*SIZES, 0.2, 1.0, include_self=include_self, seed=3).todense()
    np.testing.assert_array_equal(made != 0, np.asarray(stored) != 0)


def test_the_weights_have_their_law() -> None:
    large = {law: event.JITConn(400, 500, 0.3, weight, seed=0) for law, weight in LAWS.items()}
    weights = {law: matrix[matrix != 0] for law, c in large.items() for matrix in (np.asarray(c.todense()),)}
    assert set(weights["one"]) == {0.5}
    for law, mean, deviation in (("normal", 0.5, 0.25), ("uniform", 1.0, 4 / np.sqrt(12))):
        found = weights[law]
        assert abs(found.mean() - mean) < 5 * deviation / np.sqrt(found.size)
        assert abs(found.std() / deviation - 1) < 0.01
    # normal: 68.3 % and 95.4 % within one and two deviations
    distance = np.abs(weights["normal"] - 0.5) / 0.25
    assert abs((distance < 1).mean() - 0.6827) < 0.01 and abs((distance < 2).mean() - 0.9545) < 0.005
    assert weights["uniform"].min() >= -1 and weights["uniform"].max() < 3


@pytest.mark.core
@pytest.mark.parametrize(("law", "transposed"), [("one", False), ("normal", True), ("uniform", False)])
def test_every_kernel_is_the_product_with_the_matrix(law: str, transposed: bool) -> None:
    layer = connections(law, include_self=False)
    matrix = np.asarray(layer.todense())
    matrix = matrix.T if transposed else matrix
    params = {**layer._connectivity(), "transposed": transposed}
    weight, seed = layer.weight.value, layer.seed
    on_gpu = functools.partial(pallas_jit.jit, interpret=jax.default_backend() != "gpu")
    active = jnp.zeros(matrix.shape[0], bool)
    check_kernels_for_gpus(functools.partial(pallas_jit.jit, **params), active, weight, seed)

    @jax.jit
    def every(events: Any, values: Any) -> Any:
        found = [layer._send(events, transposed), layer._send(values[0], transposed)[None]]
        for kernel in (loops.jit, jit_generic.jit_by_rows, jit_generic.jit_by_synapses):
            found += [kernel(events, weight, seed, **params)]
        found += [on_gpu(given, weight, seed, **params) for given in (events, values[:1])]
        return [*found, jit_generic.jit_by_rows(values[0], weight, seed, **params)[None]]

    rng = np.random.default_rng(0)
    for rate in (0.0, 0.3, 1.0):
        events = rng.random((2, matrix.shape[0])) < rate
        values = (events * rng.normal(size=events.shape)).astype(np.float32)
        wanted = events @ matrix, values[:1] @ matrix
        for arrived, which in zip(every(events, values), (0, 1, 0, 0, 0, 0, 1, 1), strict=True):
            np.testing.assert_allclose(arrived, wanted[which], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "prob", "include_self"),
    [((37, 600), 0.5, False), ((50, 30), 0.3, False), ((20, 200), 1.0, True)],
)
def test_rows_of_any_length_and_number_are_those_of_the_matrix(
    shape: tuple[int, int], prob: float, include_self: bool
) -> None:
    """Rows are made for 16 neurons at once, and kept for 128 turns."""
    layer = event.JITConn(*shape, prob, LAWS["uniform"], include_self=include_self, seed=5)
    matrix = np.asarray(layer.todense())
    stored = event.FixedProb(*shape, prob, 1.0, include_self=include_self, seed=5).todense()
    np.testing.assert_array_equal(matrix != 0, np.asarray(stored) != 0)
    send = jax.jit(lambda events: (events @ layer, layer @ jnp.arange(1.0, shape[1] + 1)))
    for active in (0, 1, 15, 16, 17, shape[0]):
        events = np.random.default_rng(active).permutation(shape[0]) < active
        arrived, back = send(events)
        np.testing.assert_allclose(arrived, events @ matrix, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(back, matrix @ np.arange(1.0, shape[1] + 1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("transposed", [False, True])
def test_values_that_are_no_ordinary_numbers_arrive_as_in_a_sum_over_active_neurons(transposed: bool) -> None:
    layer = event.JITConn(40, 40, 0.2, 0.5, seed=2)
    matrix = np.asarray(layer.todense())
    values = np.zeros(40, np.float32)
    values[[1, 5, 6, 30]] = [np.nan, np.inf, -0.0, -2.0]
    found = jax.jit(lambda v: layer @ v if transposed else v @ layer)(values)
    synapses = matrix != 0 if transposed else matrix.T != 0
    wanted = [(values[own] * np.float32(0.5)).sum() for own in synapses]
    np.testing.assert_array_equal(found, wanted)


def test_synapses_exist_with_the_probability_and_independently() -> None:
    shape, prob = (4000, 64), 0.07
    layer = event.JITConn(*shape, prob, 1.0, include_self=False, seed=11)
    there = np.asarray(layer.todense()) != 0
    assert not there[np.arange(64), np.arange(64)].any()
    there, count = there[64:], shape[0] - 64
    deviation = np.sqrt(prob * (1 - prob))
    # each place, each pair of places, and neighbouring rows
    assert np.abs(there.mean(0) - prob).max() < 4.5 * deviation / np.sqrt(count)
    centred = (there - prob) / deviation
    both = centred.T @ centred / np.sqrt(count)
    pairs = both[np.triu_indices(64, 1)]
    assert np.abs(pairs).max() < 5 and abs((pairs**2).mean() - 1) < 5 * np.sqrt(2 / pairs.size)
    assert abs((centred[1:] * centred[:-1]).mean()) < 5 / np.sqrt(centred.size)
    # the number of a row's synapses is binomial: its mean and its variance
    numbers = there.sum(1)
    variance = 64 * deviation**2
    assert abs(numbers.mean() - 64 * prob) < 5 * np.sqrt(variance / count)
    assert abs(numbers.var() / variance - 1) < 5 * np.sqrt(2 / count)


@pytest.mark.parametrize("transposed", [False, True])
def test_kernels_for_gpus_add_short_floats_up_as_longer_ones(transposed: bool) -> None:
    layer = connections("one", prob=0.9)
    weight, params = jnp.asarray(0.3, jnp.bfloat16), {**layer._connectivity(), "transposed": transposed}
    matrix = np.asarray(layer.todense()) / 0.5 * float(weight)
    events = jnp.ones(SIZES[1] if transposed else SIZES[0], bool)
    on_gpu = functools.partial(pallas_jit.jit, interpret=jax.default_backend() != "gpu", **params)
    check_kernels_for_gpus(functools.partial(pallas_jit.jit, **params), events, weight, layer.seed)
    found = jax.jit(on_gpu)(events, weight, layer.seed)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), matrix.sum(int(transposed)), rtol=2**-8)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_batch_may_be_empty_where_all_synapses_are_looked_at(transposed: bool) -> None:
    layer = connections("one")
    product = functools.partial(jit_generic.jit_by_synapses, **layer._connectivity(), transposed=transposed)
    sent, arrived = reversed(SIZES) if transposed else SIZES
    found = jax.eval_shape(product, jnp.zeros((0, sent), bool), layer.weight.value, layer.seed)
    assert found.shape == (0, arrived)


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_one_active_neuron_sends_the_same_bits_on_every_path(law: str) -> None:
    layer = connections(law)
    event_of_one = jnp.arange(SIZES[0]) == 7
    native = jax.jit(lambda e: e @ layer)(event_of_one)
    params = {**layer._connectivity(), "transposed": False}
    send = jax.jit(lambda e: jit_generic.jit_by_rows(e, layer.weight.value, layer.seed, **params))
    generic = send(event_of_one)
    np.testing.assert_array_equal(np.asarray(native) != 0, np.asarray(generic) != 0)
    np.testing.assert_array_max_ulp(
        np.asarray(native), np.asarray(generic), 1
    )  # of the law's multiply and add
    np.testing.assert_array_max_ulp(np.asarray(native), np.asarray(layer.todense()[7]), 1)


@pytest.mark.core
@pytest.mark.parametrize("law", ["one", "normal"])
def test_gradients_to_weights_and_events_are_those_of_the_matrix(law: str) -> None:
    layer = connections(law)
    x, y = np.linspace(0.5, 2, SIZES[0], dtype=np.float32), np.linspace(-1, 1, SIZES[1], dtype=np.float32)
    one, random = (
        jit_generic.jit_matrix(jnp.array(unit), layer.seed, **{**layer._connectivity(), "law": "normal"})
        for unit in ((1.0, 0.0), (0.0, 1.0))
    )

    def ours(weight: Any, x: Any) -> Any:
        layer.weight.value = weight
        return jnp.sin(x @ layer).sum() + jnp.sin(layer @ y).sum()

    def theirs(weight: Any, x: Any) -> Any:
        matrix = weight * one if law == "one" else weight[0] * one + weight[1] * random
        return jnp.sin(x @ matrix).sum() + jnp.sin(matrix @ y).sum()

    weight = layer.weight.value
    found = sg.compile.jit(sg.augment.grad(ours, argnums=(0, 1)))(weight, x)
    for one_of, other in zip(found, jax.grad(theirs, (0, 1))(weight, x), strict=True):
        np.testing.assert_allclose(one_of, other, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("law", ["one", "uniform", "normal"])
def test_the_matrix_has_gradients_to_weights(law: str) -> None:
    layer = connections(law)
    params = layer._connectivity()
    weight = layer.weight.value

    def total(weight: Any) -> Any:
        return jit_generic.jit_matrix(weight, layer.seed, **params).sum()

    def sent(weight: Any) -> Any:
        return jit_product(jnp.ones(SIZES[0], bool), weight, layer.seed, transposed=False, **params).sum()

    expected = jax.grad(sent)(weight)
    np.testing.assert_allclose(jax.grad(total)(weight), expected, rtol=1e-4)
    program = sg.trace(sg.augment.grad(sent), weight).program
    (found,), _ = reference.run(program, [weight], {})
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.core
@pytest.mark.parametrize(("law", "axes"), [("normal", (0, None)), ("normal", (None, 0)), ("one", (0, 0))])
def test_lanes_of_events_and_of_weights(law: str, axes: tuple[Any, Any]) -> None:
    layer = connections(law)
    events = np.random.default_rng(1).random((3, SIZES[0])) < 0.3
    weights = jnp.stack([layer.weight.value * k for k in (1.0, 2.0, -1.0)])

    def send(events: Any, weight: Any) -> Any:
        params = {**layer._connectivity(), "transposed": False}
        return event.jit.jit_product(events, weight, layer.seed, **params)

    given = (events if axes[0] == 0 else events[0], weights if axes[1] == 0 else weights[1])
    found = jax.jit(jax.vmap(send, in_axes=axes))(*given)
    lane = jax.jit(send)
    for i in range(3):
        own = [g[i] if axis == 0 else g for g, axis in zip(given, axes, strict=True)]
        np.testing.assert_allclose(found[i], lane(*own), rtol=1e-5, atol=1e-5)


@pytest.mark.core
def test_compiled_products_are_those_of_plain_python_and_of_the_interpreter() -> None:
    def make() -> Any:
        layer = connections("normal")
        g = sg.ShortTermState(jnp.zeros(SIZES[1]))

        def step(spikes: Any) -> Any:
            g.value = g.value * 0.5 + spikes @ layer
            return layer @ g.value

        return step, [g]

    agree(make, (np.arange(SIZES[0]) % 3 == 0,))


@pytest.mark.core
def test_products_are_ops_of_a_program() -> None:
    layer = connections("normal")
    spikes = jnp.arange(SIZES[0]) % 3 == 0
    traced = sg.trace(lambda s: s @ layer, spikes)
    assert "event.jit" in str(traced.program) and 'law = "normal"' in str(traced.program)
    np.testing.assert_allclose(traced.lower().compile()(spikes), spikes @ layer, rtol=1e-5)


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_probabilities_zero_and_one(prob: float) -> None:
    layer = connections("one", prob=prob)
    np.testing.assert_array_equal(layer.todense(), np.full(SIZES, 0.5 * prob, np.float32))
    ones = np.ones(SIZES[0], bool)
    np.testing.assert_allclose(ones @ layer, np.full(SIZES[1], 35 * prob, np.float32))
    np.testing.assert_allclose(layer @ np.ones(SIZES[1]), np.full(SIZES[0], 22.5 * prob, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prob": 1.5}, "between 0 and 1"),
        ({"prob": 1e-9}, "too small"),
        ({"weight": np.ones(3)}, "no law of the weights"),
        ({"weight": init.KaimingNormal()}, "no law of the weights"),
    ],
)
def test_what_cannot_be_made_is_an_error_at_construction(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        connections("one", **options)


def test_a_weight_can_be_a_quantity() -> None:
    u = pytest.importorskip("saiunit")
    arrived = np.ones(SIZES[0], bool) @ connections("one", weight=0.5 * u.mS)
    assert arrived.unit == u.mS
    np.testing.assert_allclose(arrived.mantissa, np.ones(SIZES[0], bool) @ connections("one"))


def test_a_law_of_weights_can_have_a_unit() -> None:
    u = pytest.importorskip("saiunit")
    sent = np.ones(SIZES[0], bool)
    for plain, *measured in (
        (init.Normal(2.0, 0.1), init.Normal(2.0, 0.1, unit=u.mS), init.Normal(2.0 * u.mS, 0.1 * u.mS)),
        (init.Uniform(2.0, 3.0), init.Uniform(2.0, 3.0, unit=u.mS), init.Uniform(2.0 * u.mS, 3000.0 * u.uS)),
        (init.Constant(2.0), init.Constant(2.0 * u.mS)),
    ):
        expected = sent @ connections("one", weight=plain)
        for law in measured:
            arrived = sent @ connections("one", weight=law)
            assert arrived.unit == u.mS
            np.testing.assert_allclose(arrived.mantissa, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("product", [loops.jit, jit_generic.jit_by_rows, jit_generic.jit_by_synapses])
def test_sums_of_short_floats_are_those_of_ordinary_products(product: Any, dtype: str) -> None:
    """Not so ``1 + 1 + ...`` in such a type itself: the sum stays at 2,048 and at 256."""
    size = 5000
    seed = connections("one").seed
    spikes = jnp.arange(size) % 2 == 0
    for shape, transposed in (((size, 1), False), ((1, size), True)):
        found = product(
            spikes,
            jnp.ones((), dtype),
            seed,
            shape=shape,
            prob=1.0,
            law="one",
            include_self=True,
            transposed=transposed,
        )
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, np.float64), [size // 2], rtol=4e-3)
