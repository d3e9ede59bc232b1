"""Schedules against formulas in NumPy, and against optax where it has the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from stategraph import optim

STEPS = [0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 14, 15, 20, 29, 30, 31, 60, 100]


def warm_restarts(n: int) -> float:
    length = 4
    while n >= length:
        n, length = n - length, length * 3
    return 0.01 + 0.09 * (1 + math.cos(math.pi * n / length)) / 2


CASES: list[tuple[Any, Callable[[int], float]]] = [
    (optim.ConstantLR(0.1), lambda n: 0.1),
    (optim.StepLR(0.1, 10, 0.5), lambda n: 0.1 * 0.5 ** (n // 10)),
    (optim.StepLR(0.1, 2, 0.5, every=5), lambda n: 0.1 * 0.5 ** (n // 10)),
    (optim.MultiStepLR(0.1, [5, 15], 0.1), lambda n: 0.1 * 0.1 ** ((n >= 5) + (n >= 15))),
    (optim.PiecewiseConstantLR([5, 15], [1.0, 0.5, 0.25]), lambda n: [1.0, 0.5, 0.25][(n >= 5) + (n >= 15)]),
    (optim.ExponentialLR(0.1, 0.9), lambda n: 0.1 * 0.9**n),
    (optim.ExponentialDecayLR(0.1, 10, 0.5), lambda n: 0.1 * 0.5 ** (n / 10)),
    (optim.InverseTimeDecayLR(0.1, 10, 0.5), lambda n: 0.1 / (1 + 0.5 * n / 10)),
    (optim.InverseTimeDecayLR(0.1, 10, 0.5, staircase=True), lambda n: 0.1 / (1 + 0.5 * (n // 10))),
    (optim.PolynomialLR(0.1, 20, 2.0, 0.01), lambda n: 0.01 + 0.09 * (1 - min(n, 20) / 20) ** 2),
    (optim.LinearLR(0.1, 0.5, 1.0, 10), lambda n: 0.1 * (0.5 + 0.5 * min(n, 10) / 10)),
    (optim.CosineAnnealingLR(0.1, 10, 0.01), lambda n: 0.01 + 0.09 * (1 + math.cos(math.pi * n / 10)) / 2),
    (
        optim.CosineAnnealingWarmRestarts(0.1, 4, eta_min=0.01),
        lambda n: 0.01 + 0.09 * (1 + math.cos(math.pi * (n % 4) / 4)) / 2,
    ),
    (optim.CosineAnnealingWarmRestarts(0.1, 4, 3, 0.01), warm_restarts),
    (
        optim.SequentialLR([0.5, optim.ExponentialLR(0.1, 0.9), lambda n: n / 100], (3, 14)),
        lambda n: 0.5 if n < 3 else 0.1 * 0.9 ** (n - 3) if n < 14 else (n - 14) / 100,
    ),
]


@pytest.mark.parametrize(("schedule", "formula"), CASES, ids=lambda case: type(case).__name__)
def test_the_formula(schedule: Any, formula: Callable[[int], float]) -> None:
    rate = jax.jit(schedule)
    np.testing.assert_allclose([rate(n) for n in STEPS], [formula(n) for n in STEPS], rtol=1e-5, atol=1e-7)
    assert rate(3).shape == () and hash(schedule) == hash(type(schedule)(**_options(schedule)))


def _options(schedule: Any) -> dict[str, Any]:
    return {field.name: getattr(schedule, field.name) for field in schedule.__attrs_attrs__}


@pytest.mark.core
def test_the_same_as_optax() -> None:
    optax = pytest.importorskip("optax")
    pairs = [
        (
            optim.WarmupCosineSchedule(0.1, 10, 30, 0.01),
            optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 30, 0.01),
        ),
        (optim.OneCycleLR(0.1, 50), optax.cosine_onecycle_schedule(50, 0.1)),
        (optim.PolynomialLR(0.1, 20, 2.0, 0.01), optax.polynomial_schedule(0.1, 0.01, 2.0, 20)),
        (optim.ExponentialDecayLR(0.1, 10, 0.5), optax.exponential_decay(0.1, 10, 0.5)),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose([ours(n) for n in STEPS], [theirs(n) for n in STEPS], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.StepLR(0.1, 0),
        lambda: optim.StepLR(0.1, 1, every=0),
        lambda: optim.MultiStepLR(0.1, [5, 2]),
        lambda: optim.PiecewiseConstantLR([5], [1.0]),
        lambda: optim.WarmupCosineSchedule(0.1, 10, 10),
        lambda: optim.OneCycleLR(0.1, 10, pct_start=1.0),
        lambda: optim.SequentialLR([0.1, 0.2], [3, 4]),
        lambda: optim.CosineAnnealingLR(0.1, 2.5),  # type: ignore[arg-type]
    ],
)
def test_wrong_options(make: Any) -> None:
    with pytest.raises(ValueError):
        make()
