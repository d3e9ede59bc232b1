"""Whether a product with events becomes an event product: the decisions of the cost model, and who may overrule them."""

from __future__ import annotations

from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
import stategraph.augment
import stategraph.compile
from stategraph.passes import PassError, run_passes
from stategraph.passes.event_costs import TABLE, Size, threshold
from stategraph.passes.native_ops import why_not
from tests.passes.event_programs import HOIST, send
from tests.support import build


def decision(function: Any, *args: Any, options: str = "platform=cpu") -> Any:
    outcome = run_passes(build(function, *args).program, f"{HOIST},infer-events,rewrite-events{{{options}}}")
    (found,) = [e for e in outcome.explanations if e.pass_name == "rewrite-events"]
    return found


LARGE = (jnp.ones(1000), jnp.ones((1000, 1000)))


@pytest.mark.parametrize(
    ("args", "options", "taken", "reason"),
    [
        (LARGE, "platform=cpu", True, "times cheaper; the rate is assumed"),
        (LARGE, "platform=cpu rate=0.9", False, "events would cost"),
        (LARGE, "platform=tpu", False, "a matrix is multiplied whole"),
        (LARGE, "platform=gpu", False, "if the guess is wrong"),
        ((jnp.ones(2000), jnp.ones((2000, 1500))), "platform=gpu", True, "times cheaper"),
        (
            (jnp.ones((8, 2000)), jnp.ones((2000, 1500))),
            "platform=gpu",
            False,
            "a matrix is multiplied whole",
        ),
        (LARGE, "mode=never", False, "mode=never"),
        ((jnp.ones(30), jnp.ones((30, 30))), "platform=cpu-native", False, "events would cost"),
        ((jnp.ones(30), jnp.ones((30, 30))), "mode=always", True, "mode=always"),
        ((jnp.ones(120), jnp.ones((120, 120))), "platform=cpu-native", False, "if the guess is wrong"),
        ((jnp.ones((128, 100)), jnp.ones((100, 100))), "platform=cpu", False, "events would cost"),
    ],
)
def test_the_decision_and_its_figures_are_explained(
    args: Any, options: str, taken: bool, reason: str
) -> None:
    found = decision(send, *args, options=options)
    assert found.decision.startswith("became event.dense" if taken else "stays"), found
    assert reason in found.reason and found.numbers["pre"] == args[1].shape[0]
    assert found.location.known and found.advice


def test_declarations_decide() -> None:
    x, w = LARGE
    declare = sg.event.declare
    assert decision(lambda x, w: declare(x, rate=0.01) @ w, x, w).decision.startswith("became")
    assert decision(lambda x, w: declare(x, rate=0.9) @ w, x, w).decision.startswith("stays")
    assert decision(lambda x, w: declare(x, use="dense") @ w, x, w).decision.startswith("stays")
    assert decision(lambda x, w: declare(x, use="events") @ w, x[:8], w[:8]).decision.startswith("became")
    assert decision(lambda x, w: (1 - declare(x > 0, rate=0.02)) @ w, x, w).numbers["rate"] == 0.98
    assert decision(lambda x, w: (~(x > 0)) @ w, x, w).numbers["rate"] == 0.99


@pytest.mark.parametrize(
    ("rows", "precision", "platform", "refused"),
    [
        (1, "highest", "gpu", ""),  # of a vector every row is added exactly
        (2, None, "gpu", ""),
        (2, "highest", "cpu", ""),
        (2, "highest", "gpu", "its precision is chosen"),
        (2, jax.lax.Precision.HIGH, "tpu", "its precision is chosen"),
        (1, jax.lax.DotAlgorithmPreset.F32_F32_F32, "cpu", "its algorithm is chosen"),
    ],
)
def test_a_precision_that_the_user_chose_is_kept(
    rows: int, precision: Any, platform: str, refused: str
) -> None:
    events = jnp.ones((rows, 30)) if rows > 1 else jnp.ones(30)
    found = decision(
        lambda x, w: jnp.dot(sg.surrogate.sigmoid(x), w, precision=precision),
        *(events, jnp.ones((30, 30))),
        options=f"mode=always platform={platform}",
    )
    assert found.decision.startswith("stays" if refused else "became") and refused in found.reason


@pytest.mark.parametrize("cores", [2, 4, 64])
def test_a_batch_whose_rate_nobody_declared_says_above_which_share_it_is_an_ordinary_product(
    monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setitem(TABLE, "cpu-native", attrs.evolve(TABLE["cpu-native"], cores=cores))
    w = sg.ParamState(jnp.ones((400, 400)))

    def train(x: Any, rate: float | None) -> Any:
        def loss() -> Any:
            return (sg.event.declare(sg.surrogate.sigmoid(x), rate=rate) @ w.value).sum()

        return sg.augment.grad(loss, w)()

    def thresholds(x: Any, rate: float | None) -> list[float | None]:
        program = build(lambda x: train(x, rate), x).program
        program = run_passes(program, f"{HOIST},infer-events,rewrite-events{{platform=cpu-native}}").program
        products = list(program.walk("event.dense"))
        for product in products:
            in_kernels = product.attributes["threshold"] is None
            assert (why_not(product) is None) == in_kernels, "a kernel of a loop has no ordinary product"
        return [product.attributes["threshold"] for product in products]

    batch = jnp.ones((128, 400))
    share = threshold(TABLE["cpu-native"], Size(128, 400, 400), transposed=False)
    # among many cores an ordinary product of a batch is faster than the rows on one
    assert thresholds(batch, None) == ([] if cores == 64 else [share])
    assert 0.01 < share < 0.06 / cores * 2 or cores == 64
    assert thresholds(batch, 0.0001) == ([] if cores == 64 else [None])
    assert thresholds(batch[0], None) == [None]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_with_weights_of_16_bits_stay_where_there_are_no_kernels_for_them(dtype: str) -> None:
    x, w = jnp.ones(1000, dtype), jnp.ones((1000, 1000), dtype)
    for platform in ("cpu", "cpu-native"):
        found = decision(send, x, w, options=f"platform={platform}")
        assert found.decision.startswith("stays") and "16 a matrix is multiplied whole" in found.reason
    assert decision(send, x, w, options="mode=always").decision.startswith("became")


def test_programs_without_products_or_events_are_left_alone() -> None:
    for function in (lambda x: (x > 0).astype(jnp.float32), lambda x: x @ jax.nn.relu(x)):
        before = run_passes(build(function, jnp.ones(3)).program, HOIST).program
        assert run_passes(before, "infer-events,rewrite-events").program == before


def test_options_and_rates_that_are_none_are_refused() -> None:
    program = build(lambda x: x, 1.0).program
    for options in ("mode=sometimes", "rate=2.0"):
        with pytest.raises(PassError, match="rewrite-events"):
            run_passes(program, f"rewrite-events{{{options}}}")
    with pytest.raises(ValueError, match="no share"):
        sg.event.declare(jnp.ones(3), rate=2.0)
    with pytest.raises(ValueError, match="'events', 'dense'"):
        sg.event.declare(jnp.ones(3), use="sparse")  # type: ignore[arg-type]


def test_a_declaration_changes_nothing_outside_of_a_trace() -> None:
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(sg.event.declare(x, rate=0.5), x)
    np.testing.assert_array_equal(jax.grad(lambda y: (sg.event.declare(y) ** 2).sum())(x), 2 * x)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda y: sg.event.declare(y, use="dense")))(x), x)
