"""What States, Nodes and mappings print: as in the reference documents, stable and without addresses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from tests.graph.models import Linear, ResNet, chain


@pytest.mark.core
def test_a_state_by_itself_prints_its_value() -> None:
    assert repr(sg.State(jnp.ones(3))) == "State(\n  value=Array([1., 1., 1.], dtype=float32)\n)"
    assert repr(sg.State({"b": jnp.zeros(4), "a": jnp.ones(3)})) == (
        "State(\n  value={'a': Array([1., 1., 1.], dtype=float32), "
        "'b': Array([0., 0., 0., 0.], dtype=float32)}\n)"
    )
    assert repr(sg.State(jax.random.key(0))) == "State(\n  value=ShapedArray(key<fry>[])\n)"


@pytest.mark.core
def test_a_node_prints_shapes_and_dtypes() -> None:
    assert repr(Linear(2, 3)) == (
        "Linear(\n  in_size=(2,),\n  out_size=(3,),\n  w_mask=None,\n  weight=ParamState(\n    value={\n"
        "      'bias': ShapedArray(float32[3]),\n      'weight': ShapedArray(float32[2,3])\n    }\n  )\n)"
    )


def test_values_or_shapes_by_choice() -> None:
    state, layer = sg.State(jnp.ones(1)), Linear(1, 1)
    with sg.graph.show_values(False):
        assert repr(state) == "State(\n  value=ShapedArray(float32[1])\n)"
        with sg.graph.show_values(True):
            assert "'bias': Array([0.], dtype=float32)" in repr(layer) and "Array([1.]" in repr(state)
        assert "ShapedArray" in repr(state)
    sg.graph.show_values(True)
    assert "Array([0.]" in repr(layer)
    sg.graph.show_values(None)
    assert "ShapedArray" in repr(layer)


def test_listings_print_paths_and_nest() -> None:
    states = sg.util.FlattedDict({("layers", 0, "w"): sg.ParamState(jnp.ones(1)), ("v",): sg.State(1)})
    assert repr(states) == (
        "FlattedDict({\n  ('layers', 0, 'w'): ParamState(\n    value=ShapedArray(float32[1])\n  ),\n"
        "  ('v',): State(\n    value=ShapedArray(int32[])\n  )\n})"
    )
    assert repr(states.to_nest()) == (
        "NestedDict({\n  'layers': {\n    0: {\n      'w': ParamState(\n        "
        "value=ShapedArray(float32[1])\n      )\n    }\n  },\n"
        "  'v': State(\n    value=ShapedArray(int32[])\n  )\n})"
    )
    assert repr(sg.util.FlattedDict()) == "FlattedDict({})"


def test_functions_and_objects_print_without_addresses() -> None:
    node = sg.Node()
    node.activation = jax.nn.relu  # type: ignore[attr-defined]
    node.thing = object()  # type: ignore[attr-defined]
    node.names = {"b", "a"}  # type: ignore[attr-defined]
    node.table = {"x": sg.State(1.0), "y": [sg.Node()]}  # type: ignore[attr-defined]
    assert repr(node) == (
        "Node(\n  activation=relu,\n  thing=<object object>,\n  names={'a', 'b'},\n  table={\n    "
        "'x': State(\n      value=ShapedArray(float32[])\n    ),\n    'y': [\n      Node()\n    ]\n  }\n)"
    )


def test_shared_nodes_print_once_and_deep_ones_end() -> None:
    text = repr(ResNet(2, 2))
    assert text.count("linear1=") == 2 and "block_0=Block(...)" in text
    assert "Chain(...)" in repr(chain(100))


def test_a_definition_is_of_a_model_and_says_so() -> None:
    with pytest.raises(TypeError, match=r"not made of a dict(.|\n)*graphdef\(model\)"):
        sg.graph.GraphDef({}, ())  # type: ignore[arg-type]
