"""ReduceLROnPlateau against the same rule in plain Python, eager and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stategraph as sg
from stategraph import optim

pytest.importorskip("optax")


def plain(metrics: list[float], maximize: bool, relative: bool, cooldown: int, patience: int) -> list[float]:
    """The rule as it is usually written."""
    lr, best, bad, resting, found = 1.0, -np.inf if maximize else np.inf, 0, 0, []
    for metric in metrics:
        if maximize:
            better = metric > (best + abs(best) * 0.05 if relative else best + 0.05) or best == -np.inf
        else:
            better = metric < (best - abs(best) * 0.05 if relative else best - 0.05) or best == np.inf
        if better:
            best, bad = metric, 0
        else:
            bad += 1
        if resting > 0:
            resting -= 1
            bad = 0
        if bad > patience:
            lr, resting, bad = max(lr * 0.5, 0.1), cooldown, 0
        found.append(lr)
    return found


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(("cooldown", "patience"), [(0, 0), (0, 2), (3, 1)])
def test_it_follows_the_rule(maximize: bool, relative: bool, cooldown: int, patience: int) -> None:
    walk = np.cumsum(np.random.default_rng(cooldown + patience).normal(size=40) * 0.1)
    metrics = [float(x) for x in (3 + walk if maximize else 3 - walk)]
    optimizer = optim.SGD(1.0)
    plateau = optim.ReduceLROnPlateau(
        optimizer, 0.5, patience, 0.05, maximize, relative, cooldown=cooldown, min_lr=0.1
    )
    step = sg.compile.jit(plateau.step)
    found = []
    for i, metric in enumerate(metrics):
        plateau.step(metric) if i % 7 == 0 else step(metric)
        found.append(float(optimizer.lr))
    np.testing.assert_allclose(found, plain(metrics, maximize, relative, cooldown, patience), rtol=1e-6)


@pytest.mark.core
def test_a_nan_is_no_improvement_and_state_is_state() -> None:
    plateau = optim.ReduceLROnPlateau(optim.Adam(1.0), 0.1, patience=0)
    plateau.step(1.0)
    plateau.step(float("nan"))
    assert float(plateau.optimizer.lr) == pytest.approx(0.1) and float(plateau.best.value) == 1.0
    assert {path[-1] for path in sg.graph.states(plateau, optim.OptimState)} == {
        "best",
        "bad_steps",
        "resting",
        "lr_state",
        "step",
    }


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: optim.ReduceLROnPlateau(optim.SGD(optim.StepLR(0.1, 1))), TypeError),
        (lambda: optim.ReduceLROnPlateau(3), TypeError),  # type: ignore[arg-type]
        (lambda: optim.ReduceLROnPlateau(optim.SGD(0.1), factor=1.0), ValueError),
        (lambda: optim.ReduceLROnPlateau(optim.SGD(0.1), patience=-1), ValueError),
    ],
)
def test_wrong_options(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
