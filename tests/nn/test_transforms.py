"""Transforms: inverse, range and determinant against what JAX computes from ``forward`` alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn

ELEMENTWISE = [
    nn.IdentityT(),
    nn.AffineT(-2.0, 3.0),
    nn.AffineT(np.array([1.0, -2.0, 0.5, 3.0])),
    nn.SoftplusT(),
    nn.SoftplusT(np.array([0.0, 1.0, 2.0, -1.0])),
    nn.NegSoftplusT(1.0),
    nn.ExpT(-1.0),
    nn.LogT(2.0),
    nn.PositiveT(),
    nn.NegativeT(),
    nn.SigmoidT(),
    nn.SigmoidT(-1.0, 3.0),
    nn.ScaledSigmoidT(0.0, 2.0, 3.0),
    nn.TanhT(),
    nn.SoftsignT(1.0, 4.0),
    nn.ChainT(nn.AffineT(2.0, 1.0), nn.SoftplusT(), nn.AffineT(1.0, -3.0)),
    nn.ChainT(nn.SigmoidT(), nn.AffineT(3.0, 2.0)),
]
X = jnp.array([-3.0, -0.5, 0.25, 2.0])


@pytest.mark.parametrize("t", ELEMENTWISE, ids=repr)
def test_inverse_and_log_det_of_elementwise_transforms(t: nn.Transform) -> None:
    y = t.forward(X)
    assert y.dtype == X.dtype and np.all(np.asarray(t.contains(y)))
    np.testing.assert_allclose(t.inverse(y), X, rtol=2e-4, atol=2e-4)
    jacobian = jax.jacfwd(t.forward)(X)
    assert np.count_nonzero(np.asarray(jacobian) - np.diag(np.diag(jacobian))) == 0
    expected = np.log(np.abs(np.diag(np.asarray(jacobian, np.float64)))).sum()
    for given in (None, y):
        np.testing.assert_allclose(t.log_abs_det_jacobian(X, given), expected, rtol=1e-4, atol=1e-4)
    assert t.forward(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert jax.jit(t.forward)(X).shape == X.shape and t(X).shape == X.shape


def test_increasing_transforms_increase_and_stay_finite() -> None:
    for t in ELEMENTWISE:
        if isinstance(t, (nn.AffineT, nn.ChainT)) or np.ndim(getattr(t, "lower", 0)):
            continue
        far = jnp.array([-80.0, -20.0, -1.0, 0.0, 1.0, 20.0, 80.0])
        assert np.all(np.diff(np.asarray(t.forward(far))) >= 0), t
        assert np.isfinite(np.asarray(t.log_slope(far))).all(), t  # type: ignore[attr-defined]


@pytest.mark.core
def test_vector_transforms_against_their_jacobians() -> None:
    ordered, simplex = nn.OrderedT(), nn.SimplexT()
    y = ordered.forward(X)
    assert np.all(np.diff(y) > 0) and ordered.contains(y)
    np.testing.assert_allclose(ordered.inverse(y), X, rtol=1e-5, atol=1e-5)
    _, det = np.linalg.slogdet(np.asarray(jax.jacfwd(ordered.forward)(X)))
    np.testing.assert_allclose(ordered.log_abs_det_jacobian(X), det, rtol=1e-5)

    p = simplex.forward(X)
    assert p.shape == (5,) and np.all(p > 0) and simplex.contains(p) and not simplex.contains(p * 2)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(simplex.inverse(p), X, rtol=1e-4, atol=1e-4)
    _, det = np.linalg.slogdet(np.asarray(jax.jacfwd(lambda x: simplex.forward(x)[:-1])(X)))
    np.testing.assert_allclose(simplex.log_abs_det_jacobian(X), det, rtol=1e-4)
    np.testing.assert_allclose(simplex.log_abs_det_jacobian(X, p), det, rtol=1e-4)
    np.testing.assert_allclose(simplex.forward(jnp.zeros((2, 3))), np.full((2, 4), 0.25), rtol=1e-6)

    unit = nn.UnitVectorT()
    v = unit.forward(jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(v, [0.6, 0.8], rtol=1e-6)
    assert unit.contains(v) and not unit.contains(2 * v)
    np.testing.assert_allclose(unit.forward(unit.inverse(v)), v, rtol=1e-6)


def test_transforms_that_are_no_bijections() -> None:
    clip, relu = nn.ClipT(0.0, 1.0), nn.ReluT(lower_bound=2.0)
    np.testing.assert_array_equal(clip.forward(X), np.clip(X, 0, 1))
    np.testing.assert_array_equal(relu.forward(X), np.maximum(X, 0) + 2)
    np.testing.assert_array_equal(relu.inverse(relu.forward(jnp.array([1.0]))), [1.0])
    for t in (clip, relu, nn.UnitVectorT()):
        with pytest.raises(TypeError, match="has no log_abs_det_jacobian"):
            t.log_abs_det_jacobian(X)


def test_transforms_are_settings_that_compare_by_content() -> None:
    assert nn.SoftplusT() == nn.SoftplusT(0) and hash(nn.SoftplusT()) == hash(nn.SoftplusT(0.0))
    assert nn.SoftplusT() != nn.SoftplusT(1.0) and nn.SoftplusT() != nn.ExpT() and nn.LogT() != nn.ExpT()
    assert nn.SigmoidT(jnp.zeros(2), 1.0) == nn.SigmoidT(np.zeros(2, np.float32), 1.0)
    assert nn.ChainT(nn.SoftplusT(), nn.AffineT(2.0)) == nn.ChainT(nn.SoftplusT(), nn.AffineT(2.0))
    assert repr(nn.ChainT(nn.SoftplusT())) == "ChainT(SoftplusT(lower=0.0))"
    with pytest.raises(AttributeError):
        nn.SoftplusT().lower = 1.0  # type: ignore[misc]

    def model() -> Any:
        net = sg.nn.Module()
        net.a = nn.Param(jnp.ones(3), t=nn.SigmoidT(0.0, 2.0), reg=nn.L1Reg(0.1))  # type: ignore[attr-defined]
        return net

    assert sg.graph.graphdef(model()) == sg.graph.graphdef(model())
    assert hash(sg.graph.graphdef(model())) == hash(sg.graph.graphdef(model()))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.AffineT(0.0), "no inverse"),
        (lambda: nn.SigmoidT(1.0, 0.0), "needs lower < upper"),
        (lambda: nn.ClipT(1.0, 1.0), "needs lower < upper"),
        (lambda: nn.ScaledSigmoidT(beta=-1.0), "is positive"),
        (lambda: nn.ChainT(jnp.exp), "takes transforms"),  # type: ignore[arg-type]
        (lambda: jax.jit(lambda x: nn.SoftplusT(x).forward(x))(1.0), "computed by traced code"),
        (lambda: nn.Transform().forward(1), "no forward"),
        (lambda: nn.Transform().inverse(1), "no inverse"),
    ],
)
def test_wrong_options(make: Any, match: str) -> None:
    with pytest.raises((ValueError, TypeError, NotImplementedError), match=match):
        make()
