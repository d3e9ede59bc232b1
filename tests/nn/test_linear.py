"""Linear layers, against matrix products in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

import stategraph as sg
from stategraph import nn
from tests.nn.checking import check_layer, numbers


def dense(x: Any, weight: Any) -> Any:
    return x @ weight["weight"] + weight.get("bias", 0)


@pytest.mark.core
def test_linear() -> None:
    check_layer(lambda: nn.Linear(4, 3, b_init=nn.init.Normal()), numbers(5, 4), dense)
    check_layer(lambda: nn.Linear((4,), (3,), b_init=None), numbers(4), dense)
    check_layer(lambda: nn.Linear((2, 4), (2, 3)), numbers(6, 2, 4), dense)


def test_linear_prints_as_in_the_documents() -> None:
    assert repr(nn.Linear(2, 3)) == (
        "Linear(\n  in_size=(2,),\n  out_size=(3,),\n  w_mask=None,\n  weight=ParamState(\n    value={\n"
        "      'bias': ShapedArray(float32[3]),\n      'weight': ShapedArray(float32[2,3])\n    }\n  )\n)"
    )
    layer = nn.Linear(2, 3)
    assert [path for path, _ in sg.graph.iter_leaf(layer)] == [("_in_size", 0), ("_out_size", 0), ("weight",)]
    assert sg.graph.graphdef(layer).attributes == ("_in_size", "_name", "_out_size", "w_mask", "weight")
    assert layer.weight.value["weight"].shape == (2, 3) and layer.in_size == (2,) and layer.out_size == (3,)


def test_the_weights_of_the_documents() -> None:
    sg.random.seed(42)
    sg.random.rand(2, 3), sg.random.rand(3)
    layers = [nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5)]
    expected = [[-0.42749512, -0.46094188, -1.1391693], [-1.5929017, 2.1525893, 0.7923302]]
    np.testing.assert_allclose(layers[0].weight.value["weight"], expected, rtol=2e-6)
    expected = [0.7928349, 0.14884543, 0.46262634, 0.9012923, 0.20398748]
    np.testing.assert_array_equal(sg.random.rand(5), np.asarray(expected, np.float32))
    assert all((layer.weight.value["bias"] == 0).all() for layer in layers)
    assert nn.count_parameters(layers) == 9 + 16 + 25


def test_a_mask_holds_in_value_and_gradient() -> None:
    mask = (np.random.default_rng(1).random((4, 3)) < 0.5).astype(np.float32)

    def formula(x: Any, weight: Any) -> Any:
        return x @ (weight["weight"] * mask) + weight["bias"]

    layer = check_layer(lambda: nn.Linear(4, 3, w_mask=mask), numbers(5, 4), formula)
    grads = sg.augment.grad(lambda: layer(numbers(5, 4)).sum(), layer.weight)()
    assert (grads["weight"][mask == 0] == 0).all() and (grads["weight"][mask == 1] != 0).all()
    assert nn.Linear(4, 3, w_mask=nn.init.Constant(2.0)).w_mask.shape == (4, 3)


def test_all_to_all() -> None:
    x = numbers(5, 4)
    check_layer(lambda: nn.AllToAll(4, 3, b_init=nn.init.Normal()), x, dense)

    def without_self(x: Any, weight: Any) -> Any:
        return x @ (weight["weight"] * (1 - np.eye(*weight["weight"].shape, dtype=np.float32)))

    def shared(include_self: bool, n: int) -> Any:
        def formula(x: Any, weight: Any) -> Any:
            matrix = np.full((x.shape[-1], n), weight["weight"])
            return x @ (matrix if include_self else matrix * (1 - np.eye(*matrix.shape)))

        return formula

    for n in (3, 6):
        check_layer(lambda n=n: nn.AllToAll(4, n, include_self=False), x, without_self, gradients=n == 6)
        for include_self in (True, False):
            check_layer(
                lambda n=n, s=include_self: nn.AllToAll(4, n, w_init=0.5, include_self=s),
                x,
                shared(include_self, n),
                gradients=n == 6,
            )


def test_one_to_one() -> None:
    def formula(x: Any, weight: Any) -> Any:
        return x * weight["weight"] + weight.get("bias", 0)

    check_layer(lambda: nn.OneToOne(4), numbers(5, 4), formula)
    check_layer(lambda: nn.OneToOne((3, 4), b_init=nn.init.Normal()), numbers(5, 3, 4), formula)
    check_layer(lambda: nn.OneToOne(4, w_init=2.0), numbers(5, 4), formula)


@pytest.mark.core
@pytest.mark.parametrize("form", ["dense", "BCOO", "BCSR", "COO", "CSR", "scipy"])
def test_sparse_linear(form: str) -> None:
    matrix = numbers(6, 3) * (np.random.default_rng(1).random((6, 3)) < 0.4)
    if form == "scipy":
        given = pytest.importorskip("scipy.sparse").csc_matrix(matrix)
    elif form == "dense":
        given = matrix
    else:
        given = getattr(sparse, form).fromdense(jnp.asarray(matrix))

    def formula(x: Any, rows: Any = None, **values: Any) -> Any:
        return x @ matrix + values["weight"]["bias"]

    layer = check_layer(lambda: nn.SparseLinear(given, b_init=nn.init.Normal()), numbers(2, 5, 6), formula)
    assert layer.weight.value["weight"].size == np.count_nonzero(matrix) and layer.out_size == (3,)
    grads = sg.augment.grad(lambda: layer(numbers(5, 6)).sum(), layer.weight)()["weight"]
    full = numbers(5, 6).sum(0)
    np.testing.assert_allclose(grads, full[layer.rows], rtol=1e-5)


def test_sparse_linear_with_leading_axes() -> None:
    layer = nn.SparseLinear(np.eye(4, dtype=np.float32), in_size=(2, 4))
    assert layer.in_size == (2, 4) == layer.out_size
    with pytest.raises(ValueError, match="4 rows"):
        nn.SparseLinear(np.eye(4), in_size=3)
    with pytest.raises(ValueError, match="needs a matrix"):
        nn.SparseLinear(np.ones(3))


def test_lora() -> None:
    def make() -> Any:
        return nn.LoRA(4, 2, 3, base_module=nn.Linear(4, 3))

    def formula(x: Any, base_module_weight: Any, weight: Any) -> Any:
        return dense(x, base_module_weight) + x @ weight["lora_a"] @ weight["lora_b"]

    layer = check_layer(make, numbers(5, 4), formula)
    layer.weight.value = jax.tree.map(lambda w: w + 1, layer.weight.value)
    x = numbers(5, 4)
    expected = layer.base_module(x) + x @ layer.weight.value["lora_a"] @ layer.weight.value["lora_b"]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)
    alone = nn.LoRA(4, 2, 3, in_size=(7, 4))
    assert (alone(numbers(7, 4)) == 0).all() and alone.out_size == (7, 3)
    with pytest.raises(TypeError, match="base_module"):
        nn.LoRA(4, 2, 3, base_module=1)  # type: ignore[arg-type]


def test_parameters_can_be_another_kind() -> None:
    layer = nn.Linear(2, 3, param_type=sg.FakeState)
    assert type(layer.weight) is sg.FakeState and not sg.graph.states(layer, sg.ParamState)


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"(?s)from \(2, 4\) to \(3,\).*out_size=\(2, 3\)"):
        nn.Linear((2, 4), 3)
    with pytest.raises(ValueError, match=r"(?s)shape \(5, 3\).*length 4"):
        nn.Linear(4, 3)(jnp.ones((5, 3)))
    with pytest.raises(ValueError, match="Constant"):
        nn.Linear(4, 3, w_init=1.0)
    with pytest.raises(ValueError, match="does not fit"):
        nn.Linear(4, 3, w_init=jnp.ones((3, 4)))


@pytest.mark.core
def test_half_precision() -> None:
    with sg.environ.context(precision=16):
        layer = nn.Linear(2, 3)
    assert layer(jnp.ones(2, jnp.float16)).dtype == jnp.float16
