"""Every kernel of the dispatch table against dense NumPy, and native kernels in programs that are kept."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event
from stategraph.backends.events import dispatch, pallas
from stategraph.backends.events.primitives import csr_product, dense_product
from stategraph.backends.native import binding
from tests.support import ROOT, check_kernels_for_gpus

ROWS = {
    "native": lambda row: row.process and row.platform == "cpu" and not row.alone,
    "pallas": lambda row: row.process and row.platform == "cuda",
    "function": lambda row: row.alone,
    "loop": lambda row: not row.process and row.platform == "cpu",
    "parallel": lambda row: not row.process and row.platform is None and "small" not in row.build.__name__,
}
"""Kinds of kernels; together they are the whole table."""


@pytest.fixture(autouse=True)
def several_neurons_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs for GPUs get tiles of several neurons, as they do in large networks."""
    monkeypatch.setattr(pallas, "PROGRAMS", 8)


def kernel(kind: str, op: str, operands: list[Any], **params: Any) -> Callable[..., Any]:
    """The kernel of a kind for these operands, compiled."""
    if kind == "native" and (jax.default_backend() != "cpu" or not binding.available()):
        pytest.skip("they are of numba, for CPUs")
    (row,) = (row for row in dispatch.TABLE if row.op == op and ROWS[kind](row))
    function = row.build([jax.typeof(x) for x in operands], **params)
    assert function is not None
    if kind == "pallas":
        check_kernels_for_gpus(functools.partial(function, **params), *operands)
        params = {**params, "interpret": jax.default_backend() != "gpu"}
    return jax.jit(lambda *given: function(*given, **params))


def drawn(seed: int) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """(shape, indptr, indices): rows of different lengths, some empty, with synapses twice."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
    count = int(rng.integers(0, 300)) if seed else 0
    rows = np.sort(rng.integers(0, max(2 * shape[0] // 3, 1), count))
    indptr = np.append(0, np.cumsum(np.bincount(rows, minlength=shape[0]))).astype(np.int32)
    return shape, indptr, rng.integers(0, shape[1], count).astype(np.int32)


def events_of(rng: np.random.Generator, rate: float, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    values = (rng.random(shape) < rate) * rng.uniform(0.5, 2.0, shape)
    values[values == 0] = -0.0  # no event either
    return values != 0 if dtype == "bool" else values.astype(dtype)


CASES = [
    # op, events, one weight, batch, transposed
    ("event.csr", "bool", True, (), False),
    ("event.csr", "bool", False, (), False),
    ("event.csr", "float32", True, (), False),
    ("event.csr", "float32", False, (3,), False),
    ("event.csr", "bool", True, (), True),
    ("event.csr", "float32", False, (3,), True),
    ("event.csr_add", "bool", True, (), False),
    ("event.csr_add", "float32", False, (3,), False),
    ("event.csr_add", "bool", False, (), True),
]
LISTED = [
    ("event.csr", "bool", True, ()),
    ("event.csr_add", "float32", False, ()),
    ("event.csr", "float32", False, (3,)),
]


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(("op", "dtype", "one", "batch", "transposed"), CASES)
def test_sparse_kernels(kind: str, op: str, dtype: str, one: bool, batch: Any, transposed: bool) -> None:
    for seed in (0, 1, 2) if kind == "native" else (1,):  # a kernel of XLA is compiled for each size
        rng = np.random.default_rng(seed)
        shape, indptr, indices = drawn(seed)
        weight = rng.normal(size=() if one else indices.size).astype(np.float32)
        matrix = np.zeros(shape)
        np.add.at(matrix, (np.repeat(np.arange(shape[0]), np.diff(indptr)), indices), weight)
        facing = matrix.T if transposed else matrix
        total = rng.normal(size=(*batch, facing.shape[1])).astype(np.float32)
        sums = [total] if op == "event.csr_add" else []
        params = {"shape": shape, "transposed": transposed}
        run: Any = None
        for rate in (0.0, 0.1, 1.0):
            events = events_of(rng, rate, dtype, (*batch, facing.shape[0]))
            operands = [*map(jnp.asarray, (*sums, events, weight, indptr, indices))]
            run = run or kernel(kind, op, operands, **params)
            expected = events.astype(np.float64) @ facing + (total if sums else 0)
            found = run(*operands)
            assert found.dtype == jnp.float32
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(("op", "dtype", "one", "batch"), LISTED)
def test_products_from_post_to_pre_by_listed_columns(
    kind: str, op: str, dtype: str, one: bool, batch: Any
) -> None:
    """Few events by their columns, many by all synapses."""
    rng = np.random.default_rng(0)
    shape, indptr, indices = drawn(1)
    columns, order = event.CSR(indptr, indices, shape).by_post
    weight = rng.normal(size=() if one else indices.size).astype(np.float32)
    matrix = np.zeros(shape)
    np.add.at(matrix, (np.repeat(np.arange(shape[0]), np.diff(indptr)), indices), weight)
    sums = [rng.normal(size=(*batch, shape[0])).astype(np.float32)] if op == "event.csr_add" else []
    run: Any = None
    for rate in (0.0, 0.05, 1.0):
        events = events_of(rng, rate, dtype, (*batch, shape[1]))
        given = (*sums, events, weight, indptr, indices, columns.indptr, columns.indices, order)
        operands = [*map(jnp.asarray, given)]
        run = run or kernel(kind, op, operands, shape=shape, transposed=True)
        expected = events.astype(np.float64) @ matrix.T + (sums[0] if sums else 0)
        np.testing.assert_allclose(run(*operands), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(
    ("dtype", "batch", "added"),
    [("bool", (), False), ("float32", (3,), False), ("float32", (), True), ("bool", (3,), True)],
)
def test_outer_kernels(kind: str, dtype: str, batch: tuple[int, ...], added: bool) -> None:
    rng = np.random.default_rng(0)
    shape, indptr, indices = drawn(1)
    rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
    post = rng.normal(size=(*batch, shape[1])).astype(np.float32)
    run: Any = None
    for rate in (0.0, 0.1, 1.0):
        pre = events_of(rng, rate, dtype, (*batch, shape[0]))
        sums = [rng.normal(size=rows.size).astype(np.float32)] if added else []
        operands = [*map(jnp.asarray, (*sums, pre, post, indptr, indices))]
        run = run or kernel(kind, f"event.csr_outer{'_add' * added}", operands, shape=shape)
        expected = (pre[..., rows].astype(np.float64) * post[..., indices]).reshape(-1, rows.size).sum(0)
        expected += sums[0] if added else 0
        np.testing.assert_allclose(run(*operands), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(
    ("dtype", "up", "mu"), [("bool", False, 0.0), ("float32", True, 1.0), ("bool", True, 0.4)]
)
def test_change_kernels(kind: str, dtype: str, up: bool, mu: float) -> None:
    """Weights that are changed by rows (down), and in the order of another list of the synapses (up)."""
    rng = np.random.default_rng(0)
    shape, indptr, indices = drawn(1)
    rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
    others, amount, law = rng.normal(size=shape[1]), 0.7, {"low": -0.5, "high": 1.5, "mu": mu, "up": up}
    order = [rng.permutation(indices.size).astype(np.int32)] if up else []
    run: Any = None
    for rate in (0.0, 0.2, 1.0):
        weight = rng.uniform(-0.5, 1.5, indices.size).astype(np.float32)
        events = events_of(rng, rate, dtype, (shape[0],))
        given = (weight, events, others.astype(np.float32), np.float32(amount), indptr, indices, *order)
        operands = [*map(jnp.asarray, given)]
        run = run or kernel(kind, "event.csr_change", operands, shape=shape, **law)
        places = order[0] if order else np.arange(indices.size)
        old, event = weight[places].astype(np.float64), events[rows].astype(np.float64)
        distance = ((1.5 - old if up else old + 0.5) / 2) ** mu
        new = np.clip(old + (1 if up else -1) * event * amount * distance * others[indices], -0.5, 1.5)
        expected = weight.astype(np.float64)
        expected[places] = np.where(event != 0, new, old)
        np.testing.assert_allclose(run(*operands), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(
    ("dtype", "batch", "transposed", "threshold"),
    [
        ("bool", (), False, 1.0),
        ("float32", (), False, None),
        ("float32", (), True, 0.3),
        ("bool", (3,), False, 0.3),
        ("float32", (3,), True, None),
    ],
)
def test_dense_kernels(kind: str, dtype: str, batch: Any, transposed: bool, threshold: Any) -> None:
    if kind == "pallas" and (batch or transposed):
        pytest.skip("that is an ordinary product")
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(37, 21)).astype(np.float32)
    facing = matrix.T if transposed else matrix
    params = {"transposed": transposed, "threshold": threshold}
    run: Any = None
    for rate in (0.0, 0.1, 1.0):
        events = events_of(rng, rate, dtype, (*batch, facing.shape[0]))
        operands = [jnp.asarray(events), jnp.asarray(matrix)]
        run = run or kernel(kind, "event.dense", operands, **params)
        np.testing.assert_allclose(run(*operands), events @ facing.astype(np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes_of_weights(dtype: str) -> None:
    """Those that have no native kernel take the generic one, without a message."""
    shape, indptr, indices = drawn(1)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("error")
        weight = jnp.asarray(rng.integers(1, 4, indices.size), dtype)
        events = rng.random(shape[0]) < 0.3
        found = csr_product(events, weight, indptr, indices, shape)
        assert found.dtype == weight.dtype
        matrix = np.zeros(shape)
        rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
        np.add.at(matrix, (rows, indices), np.asarray(weight, np.float64))
        np.testing.assert_array_equal(np.asarray(found, np.float64), events @ matrix)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "op", ["csr", "csr listed", "csr_add", "csr_ring", "csr_outer", "csr_outer_add", "dense"]
)
def test_kernels_for_gpus_add_short_floats_up_as_longer_ones(op: str, dtype: str) -> None:
    """So what they give is the sum in numbers of any length, rounded once; twice where it is added to another."""
    rng = np.random.default_rng(0)
    shape, indptr, indices = drawn(1)
    rows, post = np.repeat(np.arange(shape[0]), np.diff(indptr)), shape[1]
    each = jnp.asarray(rng.normal(size=indices.size), dtype)
    matrix = np.zeros(shape)
    np.add.at(matrix, (rows, indices), np.asarray(each, np.float64))
    values = jnp.asarray(events_of(rng, 0.5, "float32", (shape[0],)), dtype)
    others = jnp.asarray(rng.normal(size=post), dtype)
    sent, received = (np.asarray(x, np.float64) for x in (values, others))
    products = np.asarray(values[rows] * others[indices], np.float64)
    columns, order = event.CSR(indptr, indices, shape).by_post
    listed = columns.indptr, columns.indices, order
    ring, empty = (
        jnp.tile(others, 2),
        jnp.zeros(post, dtype),
    )  # what is sent a step later arrives in the second half
    forward, backward = {"shape": shape, "transposed": False}, {"shape": shape, "transposed": True}
    cases: dict[str, Any] = {
        "csr": ((values, each, indptr, indices), forward, sent @ matrix),
        "csr listed": ((others, each, indptr, indices, *listed), backward, matrix @ received),
        "csr_add": ((others, values, each, indptr, indices), forward, received + sent @ matrix),
        "csr_ring": (
            (jnp.append(ring, empty), values, each, indptr, indices + post, np.int32(post)),
            {"shape": (shape[0], 2 * post)},
            np.concatenate([received + sent @ matrix, 0 * received, received]),
        ),
        "csr_outer": ((values, others, indptr, indices), {"shape": shape}, products),
        "csr_outer_add": ((0 * each + 1, values, others, indptr, indices), {"shape": shape}, 1 + products),
        "dense": (
            (values, jnp.asarray(matrix, dtype)),
            {"transposed": False, "threshold": 0.5},
            sent @ np.asarray(jnp.asarray(matrix, dtype), np.float64),
        ),
    }
    given, params, expected = cases[op]
    operands = [jnp.asarray(x) for x in given]
    found = kernel("pallas", f"event.{op.split()[0]}", operands, **params)(*operands)
    assert found.dtype == dtype
    step = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=step, atol=step)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_of_short_floats_are_those_of_ordinary_products(dtype: str) -> None:
    """Not so ``1 + 1 + ...`` in such a type itself: the sum stays at 2,048 and at 256."""
    size = 5000
    spikes = np.arange(size) % 2 == 0
    ones = event.CSR(np.arange(size + 1), np.zeros(size, int), (size, 1))
    columns = event.CSR([0, size], np.arange(size), (1, size))
    for jitted in (lambda f: f, jax.jit):
        for found in (
            jitted(lambda s: csr_product(s, jnp.ones((), dtype), ones.indptr, ones.indices, ones.shape))(spikes),
            jitted(lambda s: csr_product(s * jnp.ones((), dtype), jnp.ones(size, dtype), ones.indptr, ones.indices, ones.shape))(spikes),
            jitted(lambda s: event.product(s, jnp.ones((), dtype), columns, transpose=True))(spikes),
            jitted(lambda s: dense_product(s, jnp.ones((size, 1), dtype), threshold=0.9))(spikes),
            jitted(lambda s: dense_product(s, jnp.ones((1, size), dtype), True, 0.9))(spikes),
        ):  # fmt: skip
            assert found.dtype == dtype
            np.testing.assert_allclose(np.asarray(found, np.float64), [size // 2], rtol=4e-3)


def test_every_op_has_a_kernel_for_every_platform_and_small_matrices_are_multiplied() -> None:
    bools, floats = jax.typeof(jnp.zeros(4, bool)), jax.typeof(jnp.zeros((4, 4)))
    for platform in ("cpu", "cuda", "tpu"):
        name, _ = dispatch.choose(
            "event.dense", platform, False, [bools, floats], {"transposed": False, "threshold": None}
        )
        assert name == "matrix product"
    with pytest.raises(LookupError, match="no kernel"):
        dispatch.choose("event.other", "cpu", False, [], {})


def test_kernels_of_gpus_are_for_gpus_and_sums_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    _, indptr, indices = drawn(1)
    operands = [jnp.zeros(60, bool), jnp.float32(0.5), jnp.asarray(indptr), jnp.asarray(indices)]
    avals, params = [jax.typeof(x) for x in operands], {"shape": (60, 40), "transposed": False}

    def name(*changes: Any) -> str:
        given = {0: "cuda", 1: True, 2: avals, 3: params} | dict(changes)
        return dispatch.choose("event.csr", *(given[i] for i in range(4)))[0]

    monkeypatch.setattr(dispatch, "on_gpu", lambda: False)  # a program lowered for another machine
    assert name() == "all synapses"
    monkeypatch.setattr(dispatch, "on_gpu", lambda: True)
    assert name() == "Pallas: rows of active neurons"
    half, other = (
        [avals[0], jax.typeof(jnp.zeros((), dtype)), *avals[2:]] for dtype in (jnp.float16, jnp.int32)
    )
    assert name((2, half)) == "Pallas: rows of active neurons"
    empty = [*avals[:3], jax.typeof(jnp.zeros(0, jnp.int32))]
    for change in ((1, False), (2, other), (2, empty)):
        assert name(change) == "all synapses"
    for flags, found in (
        ("--xla_gpu_deterministic_ops=true", "all synapses"),
        ("--xla_dump_to=/tmp --xla_gpu_deterministic_ops", "all synapses"),
        ("--xla_gpu_deterministic_ops=false", "Pallas: rows of active neurons"),
    ):
        monkeypatch.setenv("XLA_FLAGS", flags)
        assert name() == found


def test_triton_compiles_for_recent_gpus_of_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform, capability, found in (
        ("gpu", "9.0", True),
        ("gpu", "8.6", True),
        ("gpu", "7.5", False),
        ("gpu", "gfx90a", False),  # of AMD
        ("cpu", "", False),
    ):
        device = SimpleNamespace(platform=platform, compute_capability=capability)
        monkeypatch.setattr(dispatch, "_device", lambda device=device: device)
        monkeypatch.setattr(dispatch, "_lowers_kernels", lambda: True)
        assert dispatch.on_gpu() == found
    monkeypatch.undo()
    assert dispatch.on_gpu() == (jax.default_backend() == "gpu")
    with jax.default_device("cpu"):
        assert not dispatch.on_gpu()


@pytest.mark.parametrize("way", ["it has no such module", "it refuses"])
def test_a_jax_without_triton_has_no_kernels_for_gpus_and_one_message_says_so(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent = SimpleNamespace(platform="gpu", compute_capability="9.0")
    monkeypatch.setattr(dispatch, "_device", lambda: recent)
    if way == "it refuses":
        from stategraph.backends.events import pallas_dense

        monkeypatch.setattr(pallas_dense, "LISTED", -1)
    else:
        monkeypatch.setitem(sys.modules, "stategraph.backends.events.pallas_dense", None)
    dispatch._lowers_kernels.cache_clear()
    avals = [jax.typeof(jnp.zeros(4, bool))]
    try:
        with pytest.warns(RuntimeWarning, match="does not lower kernels in Pallas") as found:
            names = [dispatch.choose("event.compact", "cuda", True, avals, {})[0] for _ in range(3)]
        assert names == ["all elements"] * 3 and len(found) == 1
    finally:
        dispatch._lowers_kernels.cache_clear()


def products(spikes: Any, first: event.CSR, second: event.CSR) -> Any:
    return event.product(spikes, 0.5, first), event.product(spikes, jnp.ones(second.size), second)


@pytest.mark.for_cpus
def test_projections_of_one_population_share_one_list_of_its_spikes() -> None:
    pytest.importorskip("numba")
    first, second = (event.fixed_number(60, 40, 5, seed=seed) for seed in (0, 1))
    lowered = sg.trace(lambda s: products(s, first, second), jnp.zeros(60, bool)).lower(passes="default")
    text = lowered.as_text("hlo", native=True)
    assert text.count('custom_call_target="stategraph_event_compact') == 1
    assert text.count('custom_call_target="stategraph_event_rows') == 2


def test_text_and_exported_programs_name_no_function_of_this_process(tmp_path: Path) -> None:
    csr = event.fixed_number(60, 40, 5, seed=0)
    step = sg.trace(lambda s: event.product(s, 0.5, csr), jnp.zeros(60, bool))
    lowered = step.lower()
    spikes = jnp.arange(60) % 3 == 0
    expected = np.asarray(spikes @ csr.todense(0.5))
    np.testing.assert_allclose(lowered.compile()(spikes), expected)
    assert "stategraph_event" not in lowered.as_text("stablehlo")
    assert "stategraph_event" not in lowered.as_text("hlo")
    exported = sg.export(step, platforms=("cpu", "cuda"))
    exported.save(tmp_path / "step.sgx")
    np.testing.assert_allclose(sg.load_exported(tmp_path / "step.sgx")(spikes), expected)


@pytest.mark.for_cpus
def test_kernels_come_from_the_caches_in_another_process(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    answers = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("kernels_elsewhere.py")), str(tmp_path)],
            env={**os.environ, "STATEGRAPH_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    first, second = answers
    assert first["result"] == second["result"] == first["loaded"] == second["loaded"] == [3.0, 6.0]
    assert first["kernels"] == second["kernels"] != []  # nothing was compiled under another name
    assert first["objects"] == second["objects"] != []
    assert len({*first["learned"], *second["learned"]}) == 1  # of models that were pickled, and copied
    one, *others = (*first["lists"], *second["lists"])
    assert len(one) > 600 and others == [one] * 3
    assert first["numba"] == second["numba"] >= len(first["kernels"])
    assert second["hits"] > first["hits"]


@pytest.mark.for_cpus
def test_without_numba_products_are_generic_and_one_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    csr = event.fixed_number(30, 20, 3, seed=0)
    spikes = jnp.arange(30) % 3 == 0
    binding.available.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    try:
        with pytest.warns(RuntimeWarning, match=r"stategraph\[events\]") as found:
            ours = jax.jit(lambda s: products(s, csr, csr))(spikes)
            dense = jax.jit(lambda s: dense_product(s, jnp.ones((30, 300))))(spikes)
        assert len(found) == 1
    finally:
        binding.available.cache_clear()
    np.testing.assert_allclose(ours[0], spikes @ csr.todense(0.5))
    np.testing.assert_allclose(dense, np.full(300, 10.0))
