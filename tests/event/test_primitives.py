"""The primitives of event products: against dense NumPy, under every transformation, and as ops of a program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, ir
from stategraph.backends.events.primitives import csr_outer, csr_product, dense_product
from stategraph.passes.pipeline import DEFAULT

pytestmark = pytest.mark.core


def connectivity(rng: np.random.Generator, pre: int, post: int, synapses: int) -> tuple[Any, Any]:
    """(indptr, indices): rows of different lengths, some empty, with synapses twice."""
    rows = np.sort(rng.integers(0, max(2 * pre // 3, 1), synapses))
    indptr = np.append(0, np.cumsum(np.bincount(rows, minlength=pre)))
    return indptr.astype(np.int32), rng.integers(0, post, synapses).astype(np.int32)


def dense(weight: Any, indptr: Any, indices: Any, shape: tuple[int, int]) -> Any:
    rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
    return jnp.zeros(shape, jnp.asarray(weight).dtype).at[rows, indices].add(weight)


def given(rng: np.random.Generator, rate: float, kind: str, *shape: int) -> Any:
    values = (rng.random(shape) < rate) * rng.uniform(0.5, 2.0, shape)
    return jnp.asarray(values != 0 if kind == "bool" else values.astype(kind))


@pytest.mark.parametrize(("kind", "transposed"), [("bool", False), ("float32", False), ("bool", True)])
def test_sparse_products_are_dense_ones(kind: str, transposed: bool) -> None:
    rng = np.random.default_rng(0)
    shape = (41, 33)
    indptr, indices = connectivity(rng, *shape, 150)
    for weight in (np.float32(0.7), rng.normal(size=indices.size).astype(np.float32)):
        matrix = np.asarray(dense(weight, indptr, indices, shape), np.float64)
        if transposed:
            matrix = matrix.T
        for rate in (0.0, 0.2):
            events = given(rng, rate, kind, 3, matrix.shape[0])
            expected = np.asarray(events, np.float64) @ matrix
            for own, wanted in ((events[0], expected[0]), (events, expected)):
                found = csr_product(own, weight, indptr, indices, shape, transposed)
                assert found.dtype == jnp.float32
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "transposed"), [("bool", False), ("float32", True)])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_dense_products_are_dense_whatever_the_threshold(kind: str, transposed: bool, threshold: Any) -> None:
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(23, 7)), jnp.float32)
    facing = matrix.T if transposed else matrix
    for rate in (0.0, 0.2, 1.0):
        events = given(rng, rate, kind, 3, facing.shape[0])
        for own in (events[0], events):
            found = dense_product(own, matrix, transposed, threshold)
            np.testing.assert_allclose(found, own.astype(jnp.float32) @ facing, rtol=1e-5, atol=1e-5)


CASES = ["csr", "csr one weight", "csr transposed", "outer", "dense", "dense transposed"]


def case(name: str, rng: np.random.Generator, batch: tuple[int, ...]) -> tuple[Any, Any, list[Any]]:
    """(the product, the same with dense matrices, operands to differentiate)."""
    shape = (12, 9)
    indptr, indices = connectivity(rng, *shape, 40)
    one = "one" in name
    weight = jnp.asarray(rng.normal(size=() if one else 40), jnp.float32)
    transposed = "transposed" in name
    sent = shape[1] if transposed else shape[0]
    events = given(rng, 0.4, "float32", *batch, sent)
    if name.startswith("dense"):
        matrix = jnp.asarray(rng.normal(size=shape), jnp.float32)
        return (
            lambda e, m: dense_product(e, m, transposed, 1.0),
            lambda e, m: e @ (m.T if transposed else m),
            [events, matrix],
        )
    if name == "outer":
        rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
        other = jnp.asarray(rng.normal(size=(*batch, shape[1])), jnp.float32)
        return (
            lambda a, b: csr_outer(a, b, indptr, indices, shape),
            lambda a, b: (a[..., rows] * b[..., indices]).reshape(-1, 40).sum(0),
            [events, other],
        )

    def expected(e: Any, w: Any) -> Any:
        matrix = dense(w, indptr, indices, shape)
        return e @ (matrix.T if transposed else matrix)

    return lambda e, w: csr_product(e, w, indptr, indices, shape, transposed), expected, [events, weight]


@pytest.mark.parametrize(("name", "batch"), [*((name, ()) for name in CASES), ("csr", (3,)), ("outer", (3,))])
def test_derivatives_of_first_and_second_order(name: str, batch: tuple[int, ...]) -> None:
    ours, theirs, operands = case(name, np.random.default_rng(1), batch)

    def first(f: Any) -> Any:
        return jax.grad(lambda *x: (jnp.sin(f(*x)) ** 2).sum(), argnums=(0, 1))

    def second(f: Any) -> Any:
        return jax.grad(lambda *x: sum((g**2).sum() for g in first(f)(*x)), argnums=(0, 1))

    for take in (first, second):
        for found, expected in zip(jax.jit(take(ours))(*operands), take(theirs)(*operands), strict=True):
            np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    moved = [jnp.ones_like(x) for x in operands]
    for found, expected in zip(jax.jvp(ours, operands, moved), jax.jvp(theirs, operands, moved), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "batch"), [*((name, ()) for name in CASES), ("csr", (2,)), ("dense", (2,))])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (1, 0)])
def test_lanes_of_each_operand(name: str, batch: tuple[int, ...], axes: tuple[Any, Any]) -> None:
    rng = np.random.default_rng(2)
    ours, theirs, operands = case(name, rng, batch)
    lanes = []
    for x, axis in zip(operands, axes, strict=True):
        if axis is not None:
            scale = jnp.asarray(rng.integers(0, 3, 3), x.dtype)
            axis = min(axis, x.ndim)
            x = jnp.stack([x * s for s in scale], axis)
        lanes.append((x, axis))
    values, at = [x for x, _ in lanes], tuple(axis for _, axis in lanes)
    found = jax.vmap(ours, in_axes=at)(*values)
    np.testing.assert_allclose(found, jax.vmap(theirs, in_axes=at)(*values), rtol=1e-4, atol=1e-4)


def test_lanes_of_connectivity() -> None:
    rng = np.random.default_rng(3)
    shape = (10, 8)
    pairs = [connectivity(rng, *shape, 30) for _ in range(3)]
    indptr, indices = (jnp.stack(list(map(jnp.asarray, part))) for part in zip(*pairs, strict=True))
    events = given(rng, 0.3, "bool", 10)
    found = jax.vmap(lambda p, i: csr_product(events, jnp.float32(2.0), p, i, shape))(indptr, indices)
    for own, (p, i) in zip(found, pairs, strict=True):
        np.testing.assert_allclose(own, events @ dense(jnp.float32(2.0), p, i, shape), rtol=1e-5)


def test_products_are_ops_of_a_program() -> None:
    csr = event.CSR([0, 2, 2, 3], [0, 1, 1], (3, 2))
    weight = sg.ParamState(jnp.array([1.0, 2.0, 3.0]))
    matrix = jnp.arange(6.0).reshape(2, 3)

    def step(spikes: Any) -> Any:
        return dense_product(event.product(spikes, weight.value, csr), matrix)

    lowered = sg.trace(step, jnp.zeros(3, bool)).lower()
    names = [op.name for op in lowered.program.walk("event.csr", "event.dense")]
    assert names == ["event.csr", "event.dense"]
    assert ir.parse(str(lowered.program)) == lowered.program
    spikes = jnp.array([True, False, True])
    np.testing.assert_allclose(lowered.compile()(spikes), spikes @ csr.todense(weight.value) @ matrix)
    gradient = sg.trace(sg.augment.grad(lambda s: step(s).sum(), weight), jnp.zeros(3, bool)).lower()
    assert "event.csr_outer" in str(gradient.program)


@pytest.mark.parametrize("passes", ["default", "default without kernels"])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_gradients_to_weights_are_collected_in_place_over_the_steps_of_a_loop(
    batch: tuple[int, ...], passes: str
) -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.random((20, 20)) < 0.3) * rng.normal(size=(20, 20))
    csr = event.CSR.from_dense(matrix)
    weight = sg.ParamState(jnp.asarray(matrix[matrix != 0], jnp.float32))
    xs = jnp.asarray(rng.normal(size=(4, *batch, 20)), jnp.float32)

    def last(xs: Any, send: Any) -> Any:
        def step(v: Any, x: Any) -> Any:
            return 0.7 * v + x + send(sg.surrogate.sigmoid(v - 0.5)), None

        return (jax.lax.scan(step, jnp.zeros_like(xs[0]), xs)[0] ** 2).sum()

    def loss(xs: Any) -> Any:
        return last(xs, lambda spikes: event.product(spikes, weight.value, csr))

    chosen = ",".join(name for name in DEFAULT if name != "outline-native") if "without" in passes else passes
    gradient = sg.compile.jit(sg.augment.grad(loss, weight), passes=chosen)
    program = gradient.lower(xs).program
    assert [op.name for op in program.walk("event.csr_outer", "event.csr_outer_add")] == [
        "event.csr_outer_add"
    ]
    wanted = jax.grad(lambda m: last(xs, lambda spikes: spikes @ m))(jnp.asarray(matrix, jnp.float32))
    np.testing.assert_allclose(gradient(xs), wanted[np.nonzero(matrix)], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"shape": (3, 2), "transposed": True}, "the events are"),
        ({"shape": (2, 2), "transposed": False}, "for 2 rows"),
        ({"shape": (3, 5), "transposed": False}, "its result is"),
        ({"shape": (3, 2)}, "transposed is True or False"),
    ],
)
def test_the_verifier_knows_what_fits(attributes: dict[str, Any], message: str) -> None:
    i32 = jnp.zeros(4, jnp.int32)
    function = lambda e, w, p, i: csr_product(e, w, p, i, (3, 2))
    program = sg.trace(function, jnp.zeros(3, bool), jnp.zeros(4), i32, i32).program
    (op,) = program.walk("event.csr")
    op.attributes.clear()
    op.attributes.update(attributes)
    with pytest.raises(ir.VerifyError, match=message):
        ir.verify(program)
