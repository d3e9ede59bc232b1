"""Event products that XLA compiles as one function each: the sums of the other forms bit for bit, and as fast as one function is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategraph import _jax, event
from stategraph.backends.events import changes, generic, loops, ring
from stategraph.backends.events.primitives import csr_product
from tests.support import run_on_devices

pytestmark = [
    pytest.mark.core,
    pytest.mark.for_cpus,
    pytest.mark.skipif(not _jax.KNOWS_CALLS, reason="not known of the XLA of this JAX"),
]
PRE, POST = 40, 23
_rng = np.random.default_rng(0)
_counts = _rng.integers(0, 20, PRE)  # rows without synapses, shorter and longer than a piece, with some twice
CSR = event.CSR(np.append(0, np.cumsum(_counts)), _rng.integers(0, POST, _counts.sum()), (PRE, POST))
COLUMNS, ORDER = CSR.by_post
LISTED = (COLUMNS.indptr, COLUMNS.indices, ORDER)
GIVEN = (CSR.indptr, CSR.indices)
SLOTS = 3
LATER = CSR.indices + POST * (np.arange(CSR.indices.size) % SLOTS).astype(np.int32)
LAW: dict[str, Any] = {"low": -1.0, "high": 1.5, "mu": 1.0, "up": True}
FORMS: dict[str, tuple[Any, Any, Any]] = {
    # one function, the loop that adds a row at once, and their operands of (events, post events, weights, sums)
    "csr": (loops.csr, generic.csr_by_rows, lambda e, y, w, t: (e, w, *GIVEN)),
    "csr listed": (loops.csr, generic.csr_by_rows, lambda e, y, w, t: (y, w, *GIVEN, *LISTED)),
    "csr_add": (loops.csr_add, None, lambda e, y, w, t: (t, e, w, *GIVEN)),
    "csr_ring": (
        loops.csr_ring,
        ring.ring_by_rows,
        lambda e, y, w, t: (jnp.tile(t, SLOTS + 1), e, w, CSR.indptr, LATER, jnp.int32(POST)),
    ),
    "csr_outer": (loops.csr_outer, generic.outer_by_rows, lambda e, y, w, t: (e, t, *GIVEN)),
    "csr_change": (loops.csr_change, changes.change_by_rows, lambda e, y, w, t: (w, e, t, w[0], *GIVEN)),
    "csr_change listed": (
        loops.csr_change,
        changes.change_by_rows,
        lambda e, y, w, t: (w, y, jnp.tile(t, 2)[:PRE], w[0], *LISTED),
    ),
    "dense": (
        loops.dense,
        generic.dense_by_rows,
        lambda e, y, w, t: (e, jnp.outer(jnp.resize(w, PRE), t)),
    ),
}


def params_of(form: str) -> dict[str, Any]:
    if form == "dense":
        return {"transposed": False, "threshold": 1.0}
    shape = (PRE, SLOTS * POST) if form == "csr_ring" else (PRE, POST)
    law = LAW if "change" in form else {}
    way = {"transposed": "listed" in form} if form.split()[0] in ("csr", "csr_add") else {}
    return {"shape": shape, **law, **way}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
@pytest.mark.parametrize("form", FORMS)
def test_sums_are_those_of_the_loop_over_rows(form: str, dtype: str) -> None:
    """In the same order, so to the last bit where nothing is multiplied and added at once."""
    if dtype == "complex64" and ("ring" in form or "change" in form):
        pytest.skip("for real numbers")
    ours, theirs, operands = FORMS[form]
    params = params_of(form)
    rng = np.random.default_rng(1)
    weight = rng.normal(size=CSR.indices.size)
    if "change" not in form:
        weight[[3, 30, 31]] = np.nan, np.inf, -np.inf
    batch = () if "change" in form or "listed" in form else (2,)
    events, back = rng.random((*batch, PRE)) < 0.4, rng.random((*batch, POST)) < 0.1
    total = rng.normal(size=(*batch, POST))
    given = operands(
        jnp.asarray(events), jnp.asarray(back), jnp.asarray(weight, dtype), jnp.asarray(total, dtype)
    )
    if form == "dense":
        given = (given[0], jnp.asarray(rng.normal(size=(PRE, POST)), dtype).at[3, 5].set(jnp.nan))
    found = jax.jit(lambda *x: ours(*x, **params))(*given)
    if theirs is None:  # each number is a sum from the one given on, not that and another sum
        tolerance = {"rtol": 3e-2, "atol": 3e-2} if dtype == "bfloat16" else {"rtol": 1e-5, "atol": 1e-5}
        expected = total + np.asarray(generic.csr_by_rows(*given[1:], **params), np.complex128)
        np.testing.assert_allclose(np.asarray(found, np.complex128), expected, **tolerance)
        return
    expected = jax.jit(lambda *x: theirs(*x, **params))(*given)
    assert found.dtype == expected.dtype == dtype
    found, expected = (np.asarray(x, np.complex128) for x in (found, expected))
    if "change" in form:  # a weight and a product
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=3e-2 if dtype == "bfloat16" else 1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


def test_a_product_is_one_function_and_exported_programs_have_none() -> None:
    """40,000 synapses take some 30 µs; with a function for each op of a round they would take 10 ms."""
    csr = event.fixed_number(400, 4000, 100, seed=0)
    weight = jnp.int32(2)  # of integers there are no kernels but XLA's
    send = jax.jit(lambda e: csr_product(e, weight, csr.indptr, csr.indices, csr.shape))
    events = jnp.ones(400, bool)
    compiled = send.lower(events).compile()
    assert "inlineable" in compiled.as_text()
    assert "inlineable" not in jax.export.export(send)(events).mlir_module()
    np.testing.assert_array_equal(compiled(events), 2 * np.bincount(np.asarray(csr.indices), minlength=4000))


@pytest.mark.parametrize("inside", ["call", "scan", "cond"])
def test_large_connectivity_may_be_a_constant_of_the_program(inside: str) -> None:
    rng = np.random.default_rng(0)
    indptr = np.append(0, np.cumsum(rng.integers(0, 600, PRE)))
    csr = event.CSR(indptr, rng.integers(0, POST, indptr[-1]), (PRE, POST))
    weight = jnp.asarray(rng.normal(size=csr.indices.size), jnp.float32)

    def product(events: Any) -> Any:
        return loops.csr(events, weight, csr.indptr, csr.indices, shape=csr.shape, transposed=False)

    def program(events: Any) -> Any:
        if inside == "scan":
            return jax.lax.scan(lambda g, _: (g + product(events), None), jnp.zeros(POST), length=2)[0] / 2
        if inside == "cond":
            return jax.lax.cond(events[3], product, lambda events: jnp.zeros(POST), events)
        return product(events)

    events = rng.random(PRE) < 0.5
    events[3] = True
    expected = events @ csr.todense(weight)
    np.testing.assert_allclose(jax.jit(program)(jnp.asarray(events)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pre", "post", "count"), [(50, 1, 3), (1, 4, 9), (1, 1, 1), (60, 40, 1)])
def test_sizes_of_which_xla_sees_that_an_operand_has_no_use(pre: int, post: int, count: int) -> None:
    csr = event.CSR(np.arange(pre + 1) * count, np.arange(pre * count) % post, (pre, post))
    columns, order = csr.by_post
    matrix = csr.todense(jnp.float32(0.5))
    events, back = np.arange(pre) % 2 == 0, np.arange(post) % 2 == 0
    for weight in (jnp.float32(0.5), jnp.full(pre * count, 0.5)):
        given = (weight, csr.indptr, csr.indices)
        params = {"shape": (pre, post), "transposed": False}
        send = jax.jit(lambda e, t, *x, p=params: (loops.csr(e, *x, **p), loops.csr_add(t, e, *x, **p)))
        for found, start in zip(send(jnp.asarray(events), jnp.ones(post), *given), (0, 1), strict=True):
            np.testing.assert_allclose(found, events @ matrix + start, rtol=1e-6)
        given = (*given, columns.indptr, columns.indices, order)
        found = jax.jit(lambda e, *x: loops.csr(e, *x, shape=(pre, post), transposed=True))(
            jnp.asarray(back), *given
        )
        np.testing.assert_allclose(found, matrix @ back, rtol=1e-6)


def test_programs_that_are_divided_among_devices() -> None:
    here = Path(__file__).parent
    run_on_devices(here / "products_on_devices.py", here / "products_on_shards.py", count=4)
