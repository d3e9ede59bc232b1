"""Metrics: numbers about training that are collected over many steps.

A metric is a Node whose States hold what was collected: ``update`` adds to it, ``compute`` gives the result, ``reset``
starts again. All three work in compiled code and in loops.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from stategraph.errors import describe
from stategraph.graph.node import Node
from stategraph.state import LongTermState, T


class MetricState(LongTermState[T]):
    """What a metric has collected."""

    __slots__ = ()


class Metric(Node):
    """Base class of metrics. Write ``reset``, ``update`` and ``compute``."""

    def reset(self) -> None:
        """Forget what was collected."""
        raise NotImplementedError(f"{type(self).__name__} has no method reset()")

    def update(self, **kwargs: Any) -> None:
        """Collect the numbers of one step."""
        raise NotImplementedError(f"{type(self).__name__} has no method update(**kwargs)")

    def compute(self) -> Any:
        """The result."""
        raise NotImplementedError(f"{type(self).__name__} has no method compute()")


class AverageMetric(Metric):
    """The mean of all numbers; NaN when there are none.

    Args:
      argname: the keyword argument of ``update`` that is averaged, a number or an array.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> loss = sg.nn.AverageMetric("loss")
    >>> loss.update(loss=jnp.array([1.0, 2.0]))
    >>> loss.update(loss=6.0)
    >>> loss.compute()
    Array(3., dtype=float32)
    """

    def __init__(self, argname: str = "values") -> None:
        self.argname = argname
        self.total: MetricState[jax.Array] = MetricState(jnp.zeros((), jnp.float32))
        self.count: MetricState[jax.Array] = MetricState(jnp.zeros((), jnp.int32))

    def reset(self) -> None:
        self.total.value = jnp.zeros_like(self.total.value)
        self.count.value = jnp.zeros_like(self.count.value)

    def update(self, **kwargs: Any) -> None:
        if self.argname not in kwargs:
            raise TypeError(
                describe(
                    f"{type(self).__name__} is updated without {self.argname!r}.",
                    why=f"it was given {', '.join(map(repr, kwargs)) or 'nothing'}",
                    fix=f"metric.update({self.argname}=...)",
                )
            )
        self._add(jnp.asarray(kwargs[self.argname]))

    def _add(self, values: jax.Array) -> None:
        self.total.value = self.total.value + jnp.sum(values, dtype=self.total.dtype)
        self.count.value = self.count.value + values.size

    def compute(self) -> jax.Array:
        return self.total.value / self.count.value


class AccuracyMetric(AverageMetric):
    """How often the largest logit is that of the label.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> accuracy = sg.nn.AccuracyMetric()
    >>> accuracy.update(logits=jnp.array([[1.0, 2.0], [3.0, 0.0]]), labels=jnp.array([1, 1]))
    >>> accuracy.compute()
    Array(0.5, dtype=float32)
    """

    def update(self, *, logits: Any, labels: Any, **others: Any) -> None:  # type: ignore[override]
        """Collect one step.

        Args:
          logits: ``(*batch, classes)``.
          labels: the right classes, integers ``(*batch,)``.
          **others: ignored, so that it can be part of a ``MultiMetric``.
        """
        logits, labels = jnp.asarray(logits), jnp.asarray(labels)
        if logits.shape[:-1] != labels.shape or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                describe(
                    f"AccuracyMetric is given logits {logits.dtype}{list(logits.shape)} and labels "
                    f"{labels.dtype}{list(labels.shape)}.",
                    why="labels are the numbers of classes, with the shape of the logits but for the last axis",
                )
            )
        self._add(jnp.argmax(logits, axis=-1) == labels)


class MultiMetric(Metric):
    """Several metrics under one: every ``update`` reaches all, ``compute`` gives a dict.

    Args:
      **metrics: the metrics by name; each is an attribute, too.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> metrics = sg.nn.MultiMetric(loss=sg.nn.AverageMetric("loss"), accuracy=sg.nn.AccuracyMetric())
    >>> metrics.update(loss=0.5, logits=jnp.array([[1.0, 2.0]]), labels=jnp.array([1]))
    >>> metrics.compute()
    {'loss': Array(0.5, dtype=float32), 'accuracy': Array(1., dtype=float32)}
    """

    def __init__(self, **metrics: Metric) -> None:
        for name, metric in metrics.items():
            if not isinstance(metric, Metric):
                raise TypeError(f"{name} is a {type(metric).__name__}, not a Metric")
            if hasattr(type(self), name) or name == "_names":
                raise ValueError(
                    f"{name!r} is the name of a method of MultiMetric; call the metric something else"
                )
        self._names = tuple(metrics)
        for name, metric in metrics.items():
            setattr(self, name, metric)

    def _metrics(self) -> dict[str, Metric]:
        return {name: getattr(self, name) for name in self._names}

    def reset(self) -> None:
        for metric in self._metrics().values():
            metric.reset()

    def update(self, **updates: Any) -> None:
        for metric in self._metrics().values():
            metric.update(**updates)

    def compute(self) -> dict[str, Any]:
        return {name: metric.compute() for name, metric in self._metrics().items()}
