"""Event products in kernels, compared with the dense product."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stategraph import event, init
from stategraph.backends.codegen.kernel import generate
from stategraph.backends.events.change_primitive import csr_change
from stategraph.backends.events.jit_primitive import jit_product
from stategraph.backends.events.primitives import csr_outer, csr_outer_add, csr_product, dense_product
from stategraph.backends.events.ring_primitive import csr_ring
from stategraph.backends.native.frame import frame
from tests.backends.codegen.running import natively, without_kernels

pytest.importorskip("llvmlite")

RANDOM = np.random.default_rng(0)
MATRIX = (RANDOM.random((50, 33)) < 0.2) * RANDOM.normal(size=(50, 33))
MATRIX[7] = 0
CSR = event.CSR.from_dense(MATRIX)
WEIGHTS = jnp.asarray(MATRIX[MATRIX != 0], jnp.float32)
RATES = (0.0, 0.1, 1.0)


def vectors(size: int, *leading: int) -> list[Any]:
    return [jnp.asarray(RANDOM.random((*leading, size)) < rate) for rate in RATES]


@pytest.mark.parametrize(("transposed", "listed"), [(False, False), (True, False), (True, True)])
def test_sparse_products(transposed: bool, listed: bool) -> None:
    indptr, indices = CSR.indptr, CSR.indices
    columns, order = CSR.by_post
    by_post = (columns.indptr, columns.indices, order) if listed else ()

    def function(events: Any, values: Any, weights: Any, one: Any, batch: Any) -> Any:
        def send(x: Any, w: Any) -> Any:
            return csr_product(x, w, indptr, indices, CSR.shape, transposed, by_post)

        return [
            send(events, weights),
            send(values, weights),
            send(values, one),
            send(batch, weights),
            send(values, one) * 2 + 1,
        ]

    dense = (MATRIX.T if transposed else MATRIX, (MATRIX.T if transposed else MATRIX) != 0)
    for events, batch in zip(vectors(dense[0].shape[0]), vectors(dense[0].shape[0], 3), strict=True):
        values = events * jnp.asarray(RANDOM.normal(size=events.shape), jnp.float32)
        found = natively(function, events, values, WEIGHTS, jnp.float32(0.5), batch)
        one = values @ dense[1] * 0.5
        for a, b in zip(
            found, [events @ dense[0], values @ dense[0], one, batch @ dense[0], one * 2 + 1], strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_who_sends_the_same_events_shares_a_list_of_them() -> None:
    """Also as numbers; another step, and other events, have lists of their own."""
    again, others = event.CSR.from_dense(MATRIX[:, ::-1]), vectors(50)[1]

    def step(v: Any, _: None) -> tuple[Any, Any]:
        spikes = v > 0.5
        numbers = jnp.where(spikes, 1.0, 0.0)
        a = csr_product(spikes, WEIGHTS, CSR.indptr, CSR.indices, CSR.shape)
        b = csr_product(numbers, jnp.float32(0.5), again.indptr, again.indices, again.shape)
        c = csr_product(others, WEIGHTS, CSR.indptr, CSR.indices, CSR.shape)
        return v[::-1] * 0.9, a + b + c

    def function(v: Any) -> Any:
        return lax.scan(step, v, None, length=4)[1]

    v = jnp.asarray(RANDOM.random(50), jnp.float32)
    code = generate(without_kernels(function, v).body, layout=frame(), salt="").text
    assert code.count("call i64 @llvm.cttz") == 2
    found, wanted = natively(function, v)[0], []
    for _ in range(4):
        spikes = (np.asarray(v) > 0.5).astype(float)
        sums = spikes @ MATRIX + 0.5 * (spikes @ (MATRIX[:, ::-1] != 0))
        wanted.append(sums + np.asarray(others) @ MATRIX)
        v = v[::-1] * 0.9
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_dense_products() -> None:
    """Zeros of either sign are no events; where few are active, rows of silent neurons may hold anything."""
    matrix = jnp.asarray(MATRIX, jnp.float32)

    def function(events: Any, values: Any, back: Any, batch: Any, numbers: Any) -> Any:
        return [
            dense_product(events, matrix), dense_product(values, matrix), dense_product(back, matrix, transposed=True),
            dense_product(batch, matrix), dense_product(numbers, matrix, transposed=True),
        ]  # fmt: skip

    for events, back, batch in zip(vectors(50), vectors(33), vectors(50, 4), strict=True):
        values, numbers = jnp.where(events, 1.5, -0.0), jnp.where(back, -2.5, -0.0)
        found = natively(function, events, values, back, batch, numbers)
        wanted = [events @ matrix, values @ matrix, matrix @ back, batch @ matrix, matrix @ numbers]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_numbers_that_are_not_finite_count_where_there_are_events(transposed: bool) -> None:
    size = 40
    matrix = jnp.asarray(RANDOM.normal(size=(size, size)), jnp.float32)
    silent, sent = (3, 5), (7, 9)
    matrix = matrix.at[silent[::-1] if transposed else silent].set(jnp.nan)
    matrix = matrix.at[sent[::-1] if transposed else sent].set(jnp.inf)
    events = jnp.zeros(size).at[7].set(2.0).at[11].set(jnp.nan)
    (found,) = natively(lambda e, m: [dense_product(e, m, transposed)], events, matrix)
    assert np.isnan(found).all(), "an event that is no number reaches everybody"
    (found,) = natively(lambda e, m: [dense_product(e, m, transposed)], events.at[11].set(0.0), matrix)
    assert np.flatnonzero(~np.isfinite(found)).tolist() == [9], "only what was sent"


def test_products_that_are_added_in_place() -> None:
    """A product adds to what is there, also where the old value, the sum and its parts are needed elsewhere."""
    square = event.CSR.from_dense(np.eye(33)[::-1] + np.eye(33))

    def send(events: Any, by: float) -> Any:
        return csr_product(events, jnp.float32(by), square.indptr, square.indices, square.shape)

    def body(carry: Any, t: Any) -> Any:
        g, h, k, v = carry
        events = v > 0.5
        new_g = g * 0.5 + send(events, 0.1)
        new_h = send(events, 0.2) + h  # adds to the carried value itself
        sent = send(events.astype(jnp.float32), 0.3)
        new_k = k + sent
        twice = send(events, 0.1) + send(events, 0.1)
        v = jnp.sin(v * 9 + new_g + new_h + twice) + 0.1
        return (new_g, new_h, new_k, v), (sent[0], g.sum(), k[3], twice.max(), events)

    start = jnp.asarray(RANDOM.random(33), jnp.float32)

    def function(x: Any) -> Any:
        return lax.scan(body, (x, x + 1, x, x), jnp.arange(4))

    import jax

    # each step makes a difference of rounding up to nine times as large
    for a, b in zip(natively(function, start), jax.tree.leaves(jax.jit(function)(start)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_a_product_is_added_to_a_value_from_around_the_loop() -> None:
    square = event.CSR.from_dense(np.eye(33)[::-1])

    def send(events: Any) -> Any:
        return csr_product(events, jnp.float32(0.1), square.indptr, square.indices, square.shape)

    def outer(carry: Any, t: Any) -> Any:
        around = jnp.tanh(carry) + t
        last, _ = lax.scan(lambda inner, s: (around + send(inner > s), None), carry, jnp.arange(3) * 0.2)
        return last, around[::-1]

    def function(x: Any) -> Any:
        return lax.scan(outer, x, jnp.arange(4) * 0.1)

    import jax

    start = jnp.asarray(RANDOM.random(33), jnp.float32)
    for a, b in zip(natively(function, start), jax.tree.leaves(jax.jit(function)(start)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def drawn_csr(seed: int, pre: int = 50, post: int = 33) -> event.CSR:
    """Rows of different lengths, some empty, with synapses twice."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(0, 2 * pre // 3, 300))
    indptr = np.append(0, np.cumsum(np.bincount(rows, minlength=pre)))
    return event.CSR(indptr, rng.integers(0, post, 300), (pre, post))


def test_products_for_each_synapse() -> None:
    csr = drawn_csr(0)
    rows, columns = np.asarray(csr.rows), np.asarray(csr.indices)

    def function(events: Any, values: Any, post: Any, batch: Any, posts: Any) -> Any:
        def outer(pre: Any, post: Any) -> Any:
            return csr_outer(pre, post, csr.indptr, csr.indices, csr.shape)

        return [outer(events, post), outer(values, post), outer(values, post > 0), outer(batch, posts)]

    for events, batch in zip(vectors(50), vectors(50, 3), strict=True):
        values = events * jnp.asarray(RANDOM.normal(size=50), jnp.float32)
        posts = jnp.asarray(RANDOM.normal(size=(3, 33)), jnp.float32)
        found = natively(function, events, values, posts[0], batch, posts)
        wanted = [events[rows] * posts[0][columns], values[rows] * posts[0][columns]]
        wanted += [values[rows] * (posts[0] > 0)[columns], (batch[:, rows] * posts[:, columns]).sum(0)]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_products_for_each_synapse_are_added_in_place() -> None:
    """Also where the old sum is needed elsewhere, and to what the step has just computed."""
    csr = drawn_csr(2)
    rows, columns = np.asarray(csr.rows), np.asarray(csr.indices)

    def body(carry: Any, given: Any) -> Any:
        g, h, k = carry
        pre, post = given
        new_g = csr_outer_add(g, pre, post, csr.indptr, csr.indices, csr.shape)
        new_h = csr_outer_add(h * 0.5, pre > 0, post, csr.indptr, csr.indices, csr.shape)
        new_k = csr_outer_add(g, pre, post * 2, csr.indptr, csr.indices, csr.shape)
        return (new_g, new_h, new_k), (g[::-1].sum(), k[0])

    pre = jnp.asarray(RANDOM.normal(size=(5, 50)) * (RANDOM.random((5, 50)) < 0.3), jnp.float32)
    post = jnp.asarray(RANDOM.normal(size=(5, 33)), jnp.float32)
    start = jnp.asarray(RANDOM.normal(size=rows.size), jnp.float32)

    def function(x: Any, pre: Any, post: Any) -> Any:
        return lax.scan(body, (x, x, x), (pre, post))

    found = natively(function, start, pre, post)
    g = h = k = np.asarray(start, np.float64)
    seen = []
    for a, b in zip(np.asarray(pre), np.asarray(post), strict=True):
        seen.append((g.sum(), k[0]))
        g, h, k = (
            g + a[rows] * b[columns],
            h * 0.5 + (a > 0)[rows] * b[columns],
            g + 2 * a[rows] * b[columns],
        )
    for one, other in zip(found, [g, h, k, *np.transpose(seen)], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mu", [0.0, 1.0, 0.4])
def test_changes_of_weights_in_a_loop(mu: float) -> None:
    """Pre spikes depress and post spikes potentiate, in the memory of the weights, which products use as well."""
    csr = drawn_csr(1)
    rows, columns = np.asarray(csr.rows), np.asarray(csr.indices)
    back, order = csr.by_post
    law = {"low": -0.5, "high": 1.5, "mu": mu}

    def body(carry: Any, given: Any) -> Any:
        w, arrived = carry
        pre, post, x, y = given
        arrived = arrived * 0.5 + csr_product(pre, w, csr.indptr, csr.indices, csr.shape)
        w = csr_change(w, pre, y, jnp.float32(0.6), csr.indptr, csr.indices, shape=csr.shape, up=False, **law)
        w = csr_change(
            w, post, x, jnp.float32(0.7), back.indptr, back.indices, order, shape=back.shape, up=True, **law
        )
        return (w, arrived), (w.sum(), w[3])

    def oracle(w: Any, arrived: Any, steps: Any) -> Any:
        for pre, post, x, y in zip(*steps, strict=True):
            np.multiply(arrived, 0.5, out=arrived)
            np.add.at(arrived, columns, pre[rows] * w)
            down = w - pre[rows] * 0.6 * ((w + 0.5) / 2) ** mu * y[columns]
            w = np.where(pre[rows] != 0, np.clip(down, -0.5, 1.5), w)
            up = w + post[columns] * 0.7 * ((1.5 - w) / 2) ** mu * x[rows]
            w = np.where(post[columns] != 0, np.clip(up, -0.5, 1.5), w)
        return w, arrived

    for rate in (*RATES, 0.3):
        pre, post = RANDOM.random((5, 50)) < rate, RANDOM.random((5, 33)) < rate
        x, y = (RANDOM.normal(size=s).astype(np.float32) for s in ((5, 50), (5, 33)))
        if rate == 0.3:  # spikes with sizes
            post = (post * RANDOM.uniform(0.5, 2, post.shape)).astype(np.float32)
        w, arrived = RANDOM.uniform(-0.5, 1.5, 300).astype(np.float32), np.zeros(33, np.float32)
        steps = pre, post, x, y
        found = natively(lambda *given: lax.scan(body, given[:2], given[2:]), w, arrived, *steps)
        wanted = oracle(w.astype(np.float64), arrived.astype(np.float64), steps)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-4)
        assert (found[0] == -0.5).any() or not rate  # the bounds matter


def test_changes_in_place_keep_what_others_need() -> None:
    """Old weights that are read after the change, given back, or changed twice from the same start."""
    csr = drawn_csr(2)

    def change(w: Any, pre: Any, by: float) -> Any:
        return csr_change(
            w, pre, jnp.ones(33), jnp.float32(by), csr.indptr, csr.indices,
            shape=csr.shape, up=True, low=-9.0, high=9.0, mu=0.0,
        )  # fmt: skip

    def body(carry: Any, pre: Any) -> Any:
        w, v = carry
        first = change(w, pre, 0.25)
        second = change(w, ~pre, 0.5)
        third = change(first * 2, pre, 0.125)
        return (second, third), (w[::3], first.max(), v[:5])

    def function(w: Any, v: Any, pre: Any) -> Any:
        return lax.scan(body, (w, v), pre)

    import jax

    w, v = (jnp.asarray(RANDOM.random(300), jnp.float32) for _ in range(2))
    pre = jnp.asarray(RANDOM.random((4, 50)) < 0.4)
    for a, b in zip(natively(function, w, v, pre), jax.tree.leaves(function(w, v, pre)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("each", [False, True])
def test_delayed_products_go_around_a_ring(each: bool) -> None:
    slots, post = 4, 11
    csr = drawn_csr(3, 50, slots * post)
    weight = jnp.asarray(RANDOM.normal(size=300), jnp.float32) if each else jnp.float32(0.5)
    matrix = np.asarray(csr.todense(weight), np.float64)

    def body(buffer: Any, given: Any) -> Any:
        step, spikes = given
        buffer = csr_ring(
            buffer, spikes, weight, csr.indptr, csr.indices, (step % slots) * post, (50, slots * post)
        )
        return buffer, buffer[slots * post :]

    for rate in RATES:
        spikes = RANDOM.random((9, 50)) < rate
        given = jnp.arange(9, dtype=jnp.int32), jnp.asarray(spikes)
        start = np.zeros((slots + 1) * post, np.float32)
        _, arrived = natively(lambda b, *given: lax.scan(body, b, given), start, *given)
        coming = np.zeros((9 + slots, post))
        for t in range(9):
            coming[t : t + slots] += (spikes[t] @ matrix).reshape(slots, post)
        np.testing.assert_allclose(arrived, coming[:9], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("prob", "weight", "include_self"),
    [(0.2, 0.5, True), (0.3, init.Normal(0.5, 0.25), False), (1.0, init.Uniform(-1.0, 3.0), False)],
)
def test_products_with_synapses_made_of_a_seed(prob: float, weight: Any, include_self: bool) -> None:
    layer = event.JITConn(50, 40, prob, weight, seed=3, include_self=include_self)
    matrix, given = np.asarray(layer.todense(), np.float64), layer.weight.value

    def function(events: Any, values: Any, batch: Any, back: Any) -> Any:
        def send(x: Any, transposed: bool = False) -> Any:
            return jit_product(x, given, layer.seed, transposed=transposed, **layer._connectivity())

        return [send(events), send(values), send(batch), send(back, True)]

    for events, batch, back in zip(vectors(50), vectors(50, 3), vectors(40), strict=True):
        values = events * jnp.asarray(RANDOM.normal(size=50), jnp.float32)
        found = natively(function, events, values, batch, back * 1.5)
        wanted = [events @ matrix, values @ matrix, batch @ matrix, matrix @ (back * 1.5)]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
