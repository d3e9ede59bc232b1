"""Products of a spike State that may hold anything when a program begins, and what they are by definition.

A *form* is one way to write a product. What it has to give comes from plain JAX, op by op, for products of arrays, and
from NumPy, synapse by synapse, for those of connections: neither knows anything of events.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

import stategraph as sg
from stategraph import event, init, nn
from stategraph.backends.events import dispatch
from stategraph.backends.native import binding

N, POST, LANES = 72, 60, 3
"""Neurons before and after, more than make a matrix that is always multiplied whole, and vectors in a batch."""


@attrs.frozen
class Form:
    """A product, as a user writes it; ``oracle`` is given the same, as concrete arrays."""

    send: Callable[[Any], Any]
    oracle: Callable[[Any], Any]


def entries(rng: np.random.Generator, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """What somebody may have written into a spike State, by name."""
    spikes = (rng.random(N) < 0.1).astype(dtype)
    few, all_ = np.zeros(N, dtype), np.ones(N, dtype)
    at = rng.permutation(N)

    def put(base: np.ndarray, *values: float) -> np.ndarray:
        found = base.copy()
        found[at[: len(values)]] = values
        return found

    return {
        "spikes": spikes,
        "halves": 0.5 * all_,
        "few halves": put(few, 0.5, 0.5, 0.25),
        "twos": put(spikes, 2.0, 3.0, 2.0),
        "negative": put(few, -1.0, 1.0, -0.5),
        "not a number": put(few, np.nan),
        "not a number among all": put(all_, np.nan),
        "infinite": put(spikes, np.inf),
        "both infinities": put(few, -np.inf, np.inf),
        "minus zero": -0.0 * all_,
        "below normal": put(spikes, np.finfo(dtype).tiny / 8),
        "huge": put(few, np.finfo(dtype).max / 8),
        "anything": rng.normal(size=N).astype(dtype),
    }


def matrices(rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Any, Any]:
    """A matrix with some zeros, and a mask of it."""
    w = rng.normal(size=(N, POST)).astype(dtype)
    w[rng.random(w.shape) < 0.2] = 0
    return jnp.asarray(w), jnp.asarray(rng.random(w.shape) < 0.5)


# ----------------------------------------------------------------------------------------------- products of arrays


def of_arrays(w: Any, mask: Any) -> dict[str, Form]:
    """Products with a matrix ``(N, POST)``, written in every way that becomes one of events."""
    t = w.T
    cube = jnp.stack([w, -w, 2 * w])
    half = jnp.asarray(0.5, w.dtype)
    later = jnp.roll

    def batch(s: Any) -> Any:
        return jnp.stack([s, later(s, 1), jnp.maximum(s, later(s, 2))])

    def masked(rows: Any) -> Any:
        return jnp.where(rows, w, 0).sum(0)

    found: dict[str, Callable[[Any], Any]] = {
        "s @ w": lambda s: s @ w,
        "w @ s": lambda s: t @ s,
        "s @ w.T": lambda s: s @ t.T,
        "batch": lambda s: batch(s) @ w,
        "batch, columns": lambda s: jnp.einsum("bi,ji->bj", batch(s), t),
        "einsum over two axes": lambda s: jnp.einsum("bi,bij->j", batch(s), cube),
        "mapped": lambda s: jax.vmap(lambda row: row @ w)(batch(s)),
        "positive rows": lambda s: masked(s[:, None] > 0),
        "rows that are not zero": lambda s: masked(s[:, None] != 0),
        "rows that are true": lambda s: masked(jnp.broadcast_to(s[:, None], w.shape).astype(bool)),
        "rows by whole numbers": lambda s: (s[:, None].astype(jnp.int32) * w).sum(0),
        "rows by small numbers": lambda s: (s[:, None].astype(jnp.int8).astype(w.dtype) * w).sum(0),
        "rows by short numbers": lambda s: (s[:, None].astype(jnp.bfloat16).astype(w.dtype) * w).sum(0),
        "rows by signs": lambda s: (jnp.sign(s)[:, None] * w).sum(0),
        "rows times": lambda s: (s[:, None] * w).sum(0),
        "columns times": lambda s: (t * s).sum(1),
        "rows of a case": lambda s: jax.lax.select_n(
            jnp.broadcast_to(s.astype(jnp.int32)[:, None], w.shape), jnp.zeros_like(w), w
        ).sum(0),
        "masked": lambda s: s @ (w * mask),
        "weights chosen": lambda s: s @ jnp.where(mask, w, 0),
        "truth": lambda s: s.astype(bool) @ w,
        "whole numbers": lambda s: s.astype(jnp.int32) @ w,
        "silent": lambda s: (1 - s) @ w,
        "of two": lambda s: (s * later(s, 1)) @ w,
        "largest of two": lambda s: jnp.maximum(s, later(s, 2)) @ w,
        "mostly zero": lambda s: (s * half) @ w,
        "joined": lambda s: jnp.concatenate([s[: N // 2], s[N // 2 :]]) @ w,
    }
    return {name: Form(send, send) for name, send in found.items()}


def of_sparse_matrices(w: Any) -> dict[str, Form]:
    """The same with matrices of ``jax.experimental.sparse``."""
    compressed, listed = sparse.BCSR.fromdense(w.T), sparse.BCOO.fromdense(w)
    found: dict[str, Callable[[Any], Any]] = {
        "BCSR @ s": lambda s: compressed @ s,
        "s @ BCOO": lambda s: s @ listed,
        "BCOO @ s": lambda s: listed.T @ s,
    }
    return {name: Form(send, send) for name, send in found.items()}


# ------------------------------------------------------------------------------------------- products of connections


def synapses_of(layer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pre, post, weight) of each synapse of connections."""
    matrix = np.asarray(layer.todense())
    there = matrix != 0 if not isinstance(layer, event.Linear) else np.ones(matrix.shape, bool)
    pre, post = np.nonzero(there)
    return pre, post, matrix[pre, post]


def by_synapse(layer: Any, back: bool = False) -> Callable[[Any], np.ndarray]:
    """What arrives, one synapse after another."""
    pre, post, weight = synapses_of(layer)
    sources, targets, size = (post, pre, layer.shape[0]) if back else (pre, post, layer.shape[1])

    def oracle(s: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            events = np.asarray(s)
            sent = events[..., sources] * weight.astype(events.dtype)
            arrived = np.zeros((size, *events.shape[:-1]), events.dtype)
            np.add.at(arrived, targets, np.moveaxis(sent, -1, 0))
        return np.moveaxis(arrived, 0, -1)

    return oracle


def layers(seed: int = 0) -> dict[str, Any]:
    """Connections of every kind, ``(N, POST)``; weights are never zero."""
    draw = init.Uniform(0.5, 1.5, seed=seed)
    made = np.random.default_rng(seed)
    graph = event.fixed_number(N, POST, 5, seed=seed)
    return {
        "FixedProb": event.FixedProb(N, POST, 0.1, 0.3, seed=seed),
        "FixedProb, weights": event.FixedProb(N, POST, 0.2, draw, seed=seed + 1),
        "FixedNumConn": event.FixedNumConn(N, POST, 6, draw, seed=seed),
        "Sparse": event.Sparse(graph, jnp.asarray(made.uniform(0.5, 1.5, graph.size), jnp.float32)),
        "Linear": event.Linear(N, POST, init.Normal(0.0, 1.0, seed=seed)),
        "Linear, one weight": event.Linear(N, POST, 0.3),
        "AllToAll": event.AllToAll(N, POST, init.Normal(0.0, 1.0, seed=seed), include_self=False),
        "JITConn": event.JITConn(N, POST, 0.2, 0.3, seed=seed),
        "JITConn, weights": event.JITConn(N, POST, 0.2, init.Normal(0.0, 1.0), seed=seed),
    }


def of_connections(made: dict[str, Any]) -> dict[str, Form]:
    """Products with connections, in both directions and with batches."""
    found: dict[str, Form] = {}
    for name, layer in made.items():
        found[f"s @ {name}"] = Form(lambda s, layer=layer: s @ layer, by_synapse(layer))  # type: ignore[misc]
        forth = by_synapse(layer)
        found[f"batch @ {name}"] = Form(
            lambda s, layer=layer: jnp.stack([s, jnp.roll(s, 1)]) @ layer,  # type: ignore[misc]
            lambda s, forth=forth: forth(np.stack([s, np.roll(s, 1)])),  # type: ignore[misc]
        )
        back = by_synapse(layer, back=True)
        found[f"{name} @ s"] = Form(
            lambda s, layer=layer: layer @ s[:POST],  # type: ignore[misc]
            lambda s, back=back: back(s[:POST]),  # type: ignore[misc]
        )
    one = event.OneToOne(N, init.Uniform(0.5, 1.5, seed=3))
    found["OneToOne"] = Form(lambda s: s @ one, lambda s: np.asarray(s) * np.asarray(one.weight.value))
    return found


# ------------------------------------------------------------------------------------------------------- comparing


def differs(found: Any, expected: Any) -> str:
    """How two results differ, and nothing if they do not: by more than sums in another order do."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape:
        return f"{a.shape} and not {b.shape}"
    tiny = np.finfo(np.float32 if np.asarray(found).dtype != np.float64 else np.float64)
    same = (np.isnan(a) & np.isnan(b)) | (a == b)
    with np.errstate(all="ignore"):
        finite = b[np.isfinite(b)]
        scale = np.abs(finite).max() if finite.size else 0.0
        close = np.abs(a - b) <= 64 * tiny.eps * scale + 1e-30
    wrong = ~(same | close)
    if not wrong.any():
        return ""
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{a[where]} and not {b[where]} at {where}, {int(wrong.sum())} of {wrong.size}"


def spiking(x: Any) -> Any:
    """What a step writes into the spike State."""
    return sg.surrogate.sigmoid(x)


class Sender(nn.Module):
    """Sends what its spike State holds in every form, then fires."""

    def __init__(self, forms: dict[str, Form], dtype: Any = jnp.float32) -> None:
        super().__init__()
        self.forms = forms
        self.spike = sg.HiddenState(jnp.zeros(N, dtype))

    def update(self, x: Any) -> dict[str, Any]:
        seen.append(len(self.forms))
        s = self.spike.value
        sent = {name: form.send(s) for name, form in self.forms.items()}
        self.spike.value = spiking(x).astype(s.dtype)
        return sent


seen: list[int] = []
"""One item for each time that Python ran a step."""


def expected(forms: dict[str, Form], s: Any) -> dict[str, np.ndarray]:
    """What each form gives of these events, op by op."""
    with jax.disable_jit(), np.errstate(all="ignore"):
        return {name: np.asarray(form.oracle(jnp.asarray(s))) for name, form in forms.items()}


# ------------------------------------------------------------------------------------------------------------ kernels


@contextlib.contextmanager
def kernels(kind: str) -> Iterator[None]:
    """Products are computed by the kernels of a kind: ``native``, ``function`` (without numba), ``pallas`` (interpreted)."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if kind != "native":
            binding.available.cache_clear()
            patch.setitem(sys.modules, "numba", None)
        if kind == "pallas":
            rows = [_interpreted(row) for row in dispatch.TABLE if row.platform == "cuda"]
            patch.setattr(dispatch, "TABLE", (*rows, *dispatch.TABLE))
        try:
            yield
        finally:
            binding.available.cache_clear()


def _interpreted(row: dispatch.Row) -> dispatch.Row:
    """A kernel for GPUs as one for CPUs."""

    def build(avals: Any, **params: Any) -> Any:
        found = row.build(avals, **params)
        return found and functools.partial(found, interpret=True)

    return attrs.evolve(row, platform="cpu", build=build)
