"""Initialisers: their numbers are those of JAX's, from the stream of stategraph.random; what param makes of what it
is given."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import init

pytestmark = pytest.mark.core

jax_init = jax.nn.initializers


def next_key(seed: int) -> jax.Array:
    return jax.random.split(jax.random.key(seed), 2)[1]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (init.ZeroInit(), jax_init.zeros),
        (init.Constant(0.25), jax_init.constant(0.25)),
        (init.Normal(0.0, 0.5), jax_init.normal(0.5)),
        (init.Uniform(0.0, 2.0), jax_init.uniform(2.0)),
        (init.KaimingNormal(), jax_init.he_normal()),
        (init.KaimingUniform(), jax_init.he_uniform()),
        (init.XavierNormal(), jax_init.glorot_normal()),
        (init.XavierUniform(), jax_init.glorot_uniform()),
        (init.LecunNormal(), jax_init.lecun_normal()),
        (init.LecunUniform(), jax_init.lecun_uniform()),
        (
            init.VarianceScaling(3.0, "fan_out", "normal", 0, 1),
            jax_init.variance_scaling(3.0, "fan_out", "normal", 0, 1),
        ),
        (init.Orthogonal(2.0, 0), jax_init.orthogonal(2.0, 0)),
    ],
    ids=lambda value: repr(value) if isinstance(value, init.Initializer) else "",
)
@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 2)])
def test_the_numbers_are_those_of_jax(ours: Any, theirs: Any, shape: tuple[int, ...]) -> None:
    sg.random.seed(7)
    expected = theirs(next_key(7), shape, jnp.float32)
    np.testing.assert_allclose(ours(shape), expected, rtol=1e-5)
    half = ours(shape, jnp.bfloat16)
    assert half.shape == shape and half.dtype == jnp.bfloat16


def test_a_scale_may_be_an_array() -> None:
    for kind in (init.KaimingNormal, init.LecunUniform, init.XavierNormal):
        for scale in (np.array(3.0), jnp.exp(jnp.asarray(1.0))):
            np.testing.assert_array_equal(kind(scale, seed=0)((3, 4)), kind(float(scale), seed=0)((3, 4)))


def test_the_numbers_of_the_documents() -> None:
    sg.random.seed(42)
    sg.random.rand(2, 3)
    sg.random.rand(3)
    expected = [[-0.42749512, -0.46094188, -1.1391693], [-1.5929017, 2.1525893, 0.7923302]]
    np.testing.assert_allclose(init.KaimingNormal()((2, 3)), expected, rtol=2e-6)


def test_distributions() -> None:
    n = 20_000
    normal = init.Normal(1.0, 2.0, seed=0)(n)
    assert abs(normal.mean() - 1) < 0.05 and abs(normal.std() - 2) < 0.05
    cut = init.TruncatedNormal(1.0, 2.0, lower=0.0, upper=1.5, seed=0)(n)
    assert 0 <= cut.min() < 0.01 and 1.49 < cut.max() <= 1.5
    uniform = init.Uniform(-1.0, 3.0, seed=0)(n)
    assert -1 <= uniform.min() < -0.99 and 2.99 < uniform.max() < 3
    assert abs(init.Gamma(3.0, 2.0, seed=0)(n).mean() - 6) < 0.2
    assert abs(init.Exponential(2.0, seed=0)(n).mean() - 2) < 0.1
    kernel = init.DeltaOrthogonal(seed=0)((3, 3, 4, 4))
    np.testing.assert_allclose(kernel[1, 1].T @ kernel[1, 1], np.eye(4), atol=1e-5)
    assert not kernel.at[1, 1].set(0).any()
    assert init.Identity(2.0)((2, 3)).tolist() == [[2, 0, 0], [0, 2, 0]]
    assert init.Identity()(2).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="matrices"):
        init.Identity()((1, 2, 3))


def test_streams() -> None:
    a, b = init.Normal(seed=3), init.Normal(seed=3)
    first = a(4)
    assert (first == b(4)).all() and (a(4) != first).any(), "a seed starts a stream"
    rng = sg.random.RandomState(3)
    assert (init.Normal(seed=rng)(4) == first).all() and (init.Normal(seed=rng)(4) == b(4)).all()
    sg.random.seed(3)
    assert (init.Normal()(4) == first).all()

    @sg.compile.jit
    def draw() -> Any:
        return init.KaimingNormal()((3, 4)), init.Orthogonal()((3, 3))

    sg.random.seed(1)
    eager = init.KaimingNormal()((3, 4)), init.Orthogonal()((3, 3))
    sg.random.seed(1)
    compiled = draw()
    for x, y in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_text_and_equality() -> None:
    assert repr(init.ZeroInit()) == "ZeroInit()" and repr(init.Normal(scale=0.1)) == "Normal(scale=0.1)"
    assert repr(init.Normal(seed=3)) == "Normal(seed=3)"
    assert repr(init.VarianceScaling(1.0, "fan_in", "normal")).startswith("VarianceScaling(scale=1.0, mode=")
    for one in (init.Normal(0.0, 2.0), init.XavierNormal(), init.Constant(2.0), init.Constant(np.ones(2))):
        other = copy.deepcopy(one)
        assert one == other and hash(one) == hash(other)
    assert init.Normal() != init.Normal(scale=2.0) and init.Normal(seed=1) != init.Normal(seed=2)
    assert init.KaimingNormal() != init.LecunNormal()


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="mode"):
        init.VarianceScaling(1.0, "fan", "normal")
    with pytest.raises(ValueError, match="distribution"):
        init.VarianceScaling(1.0, "fan_in", "cauchy")
    with pytest.raises(ValueError, match="nonlinearity"):
        init.calculate_init_gain("softest")
    assert init.calculate_init_gain("leaky_relu", 1.0) == 1.0 == init.calculate_init_gain("conv_transpose2d")


def test_param() -> None:
    given = jnp.arange(3.0)
    assert init.param(given, 3) is not None and init.param(given, 3).tolist() == [0, 1, 2]
    assert init.param(given, (2, 3)).shape == (3,)
    assert init.param(given, 3, 2).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert init.param(jnp.zeros((2, 3)), 3, 2).shape == (2, 3)
    assert init.param(init.Constant(2.0), [np.int64(3)], 2).tolist() == [[2, 2, 2]] * 2
    assert init.param(lambda shape: jnp.ones(shape), (2, 2)).shape == (2, 2)
    assert init.param(None, 3) is None and init.param(0.5, 3) == 0.5
    sg.random.seed(0)
    np.testing.assert_allclose(
        init.param(jax_init.he_normal(), (2, 3)), jax_init.he_normal()(next_key(0), (2, 3))
    )
    state = init.param(sg.HiddenState(given), 3, 2)
    assert type(state) is sg.HiddenState and state.shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(parameter=None, sizes=3, allow_none=False), ValueError, "missing"),
        (dict(parameter=2.0, sizes=3, allow_scalar=False), ValueError, r"Constant\(2.0\)"),
        (
            dict(parameter=jnp.ones(4), sizes=3),
            ValueError,
            r"\(4,\) does not fit a parameter of the shape \(3,\)",
        ),
        (dict(parameter=jnp.ones((5, 3)), sizes=3, batch_size=2), ValueError, "does not fit"),
        (dict(parameter="normal", sizes=3), TypeError, "A str stands for a parameter"),
        (dict(parameter=init.ZeroInit(), sizes="ab"), TypeError, "size has to be"),
    ],
)
def test_param_says_what_is_wrong(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        init.param(**arguments)


def test_a_function_that_gives_another_shape_is_refused() -> None:
    assert init.param(lambda shape: jnp.ones(shape), (3,)).shape == (3,)
    assert init.param(lambda shape: jnp.ones(()), (3,)).shape == ()
    with pytest.raises(ValueError, match=r"of_five\(\(3,\)\) gave an array of the shape \(5,\)"):

        def of_five(shape: tuple[int, ...]) -> jax.Array:
            return jnp.ones(5)

        init.param(of_five, (3,))
    with pytest.raises(ValueError, match="gave an array of the shape"):
        sg.event.FixedProb(3, 3, 0.5, lambda shape: jnp.ones(99))
