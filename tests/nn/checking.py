"""How layers are checked: against a formula in NumPy, compiled against plain Python, gradients, and what they print."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stategraph as sg
from tests.oracle import agree


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers in single precision."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def arrays(model: Any) -> dict[str, Any]:
    """The values of a model's States by dotted path, as NumPy arrays."""
    return {
        ".".join(map(str, path)): jax.tree.map(np.asarray, state.value)
        for path, state in sg.graph.states(model).items()
    }


def check_layer(
    make: Callable[[], Any],
    x: np.ndarray,
    formula: Callable[..., Any] | None = None,
    *,
    tolerance: float = 2e-5,
    gradients: bool = True,
) -> Any:
    """Check a layer: ``formula(x, **values of its States by path, dots as underscores)`` gives its output; compiled
    code gives what plain Python gives, gradients included; those are finite. Returns a layer."""
    sg.random.seed(0)
    layer = make()

    def differentiated(layer: Any) -> Any:
        def loss(x: Any) -> Any:
            y = layer(x)
            return jnp.sum(jnp.sin(y)), y

        parameters = sg.graph.states(layer, sg.ParamState)
        wanted = (dict(parameters),) if parameters else ()
        return sg.augment.grad(loss, *wanted, argnums=0, has_aux=True)

    copies = iter([sg.graph.clone(layer) for _ in range(2)])  # made here: initialisers are slow op by op

    def program() -> Any:
        copy = next(copies)
        function = differentiated(copy) if gradients else lambda x: ((), copy(x))
        return function, list(sg.graph.states(copy).values())

    ((grads, y),) = agree(program, (jnp.asarray(x),), tolerance=1e-3, reference=False)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    if formula is not None:
        values = {path.replace(".", "_"): value for path, value in arrays(layer).items()}
        np.testing.assert_allclose(y, formula(x, **values), rtol=tolerance, atol=tolerance)
    if layer.out_size is not None:
        assert y.shape[y.ndim - len(layer.out_size) :] == layer.out_size
    text = repr(layer)
    assert text.startswith(type(layer).__name__ + "(") and not re.search(r"0x[0-9a-f]{4}", text)
    assert text == repr(make())
    return layer
