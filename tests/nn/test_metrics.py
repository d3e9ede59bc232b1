"""Metrics: what they compute, eagerly, compiled and in loops."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.nn.checking import numbers
from tests.oracle import agree

LOGITS = numbers(6, 5, 3)
LABELS = np.random.default_rng(1).integers(0, 3, (6, 5))


def both() -> Any:
    return nn.MultiMetric(loss=nn.AverageMetric("loss"), accuracy=nn.AccuracyMetric())


def test_averages_over_steps_of_different_sizes() -> None:
    metric = nn.AverageMetric()
    assert np.isnan(metric.compute())
    parts = [numbers(4), numbers(2, 3), 2, 0.5, jnp.float32(1.5), np.array([True, False])]
    for part in parts:
        metric.update(values=part)
    flat = np.concatenate([np.ravel(part) for part in parts])
    np.testing.assert_allclose(metric.compute(), flat.mean(), rtol=1e-6)
    assert metric.count.value == flat.size
    metric.reset()
    metric.update(values=3)
    assert metric.compute() == 3 and isinstance(metric.total, nn.MetricState)


def test_accuracy() -> None:
    metric = nn.AccuracyMetric()
    for logits, labels in zip(LOGITS, LABELS, strict=True):
        metric.update(logits=logits, labels=labels)
    np.testing.assert_allclose(metric.compute(), (LOGITS.argmax(-1) == LABELS).mean(), rtol=1e-6)


@pytest.mark.core
def test_metrics_in_compiled_loops() -> None:
    def make() -> Any:
        metrics = both()

        def step(logits: Any, labels: Any) -> None:
            metrics.update(loss=jnp.sum(logits**2, -1), logits=logits, labels=labels)

        def epoch(logits: Any, labels: Any) -> Any:
            metrics.reset()
            sg.compile.for_loop(step, logits, labels)
            return metrics.compute()

        return epoch, list(sg.graph.states(metrics).values())

    agree(make, (LOGITS, LABELS), (LOGITS[:3], LABELS[:3]))
    epoch, _ = make()
    found = epoch(LOGITS, LABELS)
    np.testing.assert_allclose(found["loss"], (LOGITS**2).sum(-1).mean(), rtol=1e-6)
    np.testing.assert_allclose(found["accuracy"], (LOGITS.argmax(-1) == LABELS).mean(), rtol=1e-6)


def test_metrics_are_nodes() -> None:
    metrics = both()
    metrics.update(loss=1.0, logits=LOGITS[0], labels=LABELS[0])
    assert list(sg.graph.states(metrics, nn.MetricState)) == [
        ("accuracy", "count"), ("accuracy", "total"), ("loss", "count"), ("loss", "total"),
    ]  # fmt: skip
    copy = sg.graph.clone(metrics)
    copy.reset()
    assert metrics.compute()["loss"] == 1 and np.isnan(copy.compute()["loss"])
    assert jax.tree.structure(metrics.compute()) == jax.tree.structure({"loss": 0, "accuracy": 0})


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(TypeError, match=r"(?s)without 'values'.*'loss'"):
        nn.AverageMetric().update(loss=1)
    for logits, labels in (
        (LOGITS[0], LOGITS[0]),
        (LOGITS[0], LABELS[0].astype(float)),
        (LOGITS[0], LABELS[0][:2]),
    ):
        with pytest.raises(ValueError, match="labels are the numbers of classes"):
            nn.AccuracyMetric().update(logits=logits, labels=labels)
    with pytest.raises(TypeError, match="not a Metric"):
        nn.MultiMetric(a=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'update'"):
        nn.MultiMetric(update=nn.AverageMetric())
    for method in ("reset", "update", "compute"):
        with pytest.raises(NotImplementedError, match=method):
            getattr(nn.Metric(), method)()
