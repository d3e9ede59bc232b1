"""Models to definitions and values and back, in plain JAX."""

from __future__ import annotations

import pickle
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import graph
from tests.graph.models import MLP, Count, Linear, Regressor, ResNet
from tests.support import python_calls

Pair = namedtuple("Pair", ["left", "right"])


class A(sg.graph.Node):
    def __init__(self, w: Any) -> None:
        self.w = w
        self.b = sg.ShortTermState(jnp.zeros(3))
        self.self = self


# ----------------------------------------------------------------------------------------------- definition


@pytest.mark.core
def test_the_definition_of_a_cyclic_node_prints_as_in_the_documents() -> None:
    definition = graph.graphdef(A(jnp.ones((2, 2))))
    assert repr(definition) == (
        "NodeDef(\n  type=A,\n  index=0,\n  attributes=('b', 'self', 'w'),\n  subgraphs={\n"
        "    'self': NodeRef(\n      type=A,\n      index=0\n    )\n  },\n  static_fields={\n"
        "    'w': Array([[1., 1.],\n           [1., 1.]], dtype=float32)\n  },\n  leaves={\n"
        "    'b': NodeRef(\n      type=ShortTermState,\n      index=1\n    )\n  },\n"
        f"  metadata=({A!r},),\n  index_mapping=None\n)"
    )


@pytest.mark.core
def test_the_definition_of_the_documents_mlp() -> None:
    definition = graph.graphdef(MLP())
    assert definition.type is MLP and definition.attributes == ("l1", "l2", "l3", "st")
    assert [part.index for part in definition.subgraphs.values()] == [1, 3, 5]
    assert definition.leaves == {"st": graph.NodeRef(sg.ShortTermState, 7)}
    linear = definition.subgraphs["l1"]
    assert linear.attributes == ("_in_size", "_name", "_out_size", "w_mask", "weight")
    assert linear.leaves == {"weight": graph.NodeRef(sg.ParamState, 2)} and linear.static_fields == {}
    size, mask = linear.subgraphs["_in_size"], linear.subgraphs["w_mask"]
    assert (size.type, size.index, size.attributes, size.static_fields) == (
        graph.PytreeType,
        -1,
        (0,),
        {0: 2},
    )
    assert repr(size.metadata) == "PyTreeDef((*,))" and repr(mask.metadata) == "PyTreeDef(None)"
    assert linear.metadata == (Linear,) and linear.index_mapping is None


@pytest.mark.core
def test_definitions_compare_by_structure_and_settings_not_by_state() -> None:
    first, second = MLP(), MLP()
    second.st.value = second.st.value + 1
    assert graph.graphdef(first) == graph.graphdef(second)
    assert hash(graph.graphdef(first)) == hash(graph.graphdef(second))
    for change in (
        lambda model: setattr(model, "extra", 1),
        lambda model: setattr(model, "st", sg.LongTermState(jnp.zeros(5))),
        lambda model: setattr(model.l1, "_in_size", (2.0,)),
        lambda model: setattr(model, "l2", model.l1),
        lambda model: delattr(model, "l3"),
    ):
        other = MLP()
        change(other)
        assert graph.graphdef(first) != graph.graphdef(other)
    assert graph.graphdef(first) != "something else"
    assert pickle.loads(pickle.dumps(graph.graphdef(first))) == graph.graphdef(first)


@pytest.mark.core
def test_arrays_on_attributes_are_data() -> None:
    ones, zeros = graph.graphdef(A(jnp.ones(2))), graph.graphdef(A(jnp.zeros(2)))
    assert hash(ones) == hash(zeros) and ones != zeros and ones == graph.graphdef(A(np.ones(2, np.float32)))
    assert ones != graph.graphdef(A(jnp.ones(3))) and jax.tree.structure(ones) == jax.tree.structure(zeros)
    assert [leaf.tolist() for leaf in jax.tree.leaves(ones)] == [[1.0, 1.0]]
    keys = graph.graphdef(A(jax.random.key(0)))
    assert keys == graph.graphdef(A(jax.random.key(0))) != graph.graphdef(A(jax.random.key(1)))
    model, values = A(jnp.array([1.0, 2.0])), graph.treefy_states(A(0))

    def loss(definition: Any) -> jax.Array:
        return (graph.treefy_merge(definition, values).w ** 2).sum()

    assert jax.grad(loss)(graph.graphdef(model)).static_fields["w"].tolist() == [2.0, 4.0]


@pytest.mark.core
def test_a_definition_is_a_static_or_an_ordinary_argument_of_jit() -> None:
    traces = []

    def total(definition: Any, values: Any) -> jax.Array:
        traces.append(1)
        return graph.treefy_merge(definition, values).w.sum()

    static = jax.jit(total, static_argnums=0)
    ordinary = jax.jit(total)
    for function, expected in ((static, 2), (ordinary, 1)):
        traces.clear()
        for w in (jnp.ones(2), jnp.ones(2), jnp.zeros(2)):
            assert function(*graph.treefy_split(A(w))) == w.sum()
        assert len(traces) == expected


# ------------------------------------------------------------------------------------------ split and merge


@pytest.mark.core
def test_split_and_merge_give_an_equal_model_of_new_objects() -> None:
    resnet = ResNet(2, 2)
    definition, values = graph.treefy_split(resnet)
    assert len(graph.treefy_split(MLP())[1]) == 4 and isinstance(values, sg.util.NestedDict)
    twin = graph.treefy_merge(definition, values)
    assert graph.graphdef(twin) == definition and repr(twin) == repr(resnet)
    assert twin.blocks[0] is twin.block_0 and twin.block_0 is not resnet.block_0
    assert all(
        a is not b and jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a.value, b.value))
        for a, b in zip(graph.states(twin).values(), graph.states(resnet).values(), strict=True)
    )


def test_groups_are_exhaustive() -> None:
    model = Regressor()
    definition, params, counts = graph.treefy_split(model, sg.ParamState, Count)
    assert list(counts) == ["count"] and counts["count"].type is Count
    assert graph.treefy_merge(definition, counts, params).count.value == 0
    with pytest.raises(ValueError, match=r"\('count',\) \(Count\)"):
        graph.treefy_split(model, sg.ParamState)
    assert (
        list(graph.treefy_states(model, Count)) == ["count"]
        and len(graph.treefy_states(model, Count, ...)) == 2
    )


def test_values_that_do_not_fit_are_refused() -> None:
    definition, values = graph.treefy_split(MLP())
    with pytest.raises(ValueError, match=r"missing: \('st',\)"):
        graph.treefy_merge(definition, {"l1": values["l1"], "l2": values["l2"], "l3": values["l3"]})
    with pytest.raises(ValueError, match=r"unknown: \('q',\)"):
        graph.treefy_merge(definition, values, {"q": 1})
    with pytest.raises(TypeError, match="a mapping by path"):
        graph.treefy_merge(definition, jnp.ones(2))
    with pytest.raises(ValueError, match="by itself"):
        graph.treefy_merge(definition.subgraphs["l1"], {})


def test_values_may_come_in_any_form_of_mapping() -> None:
    definition, values = graph.treefy_split(MLP())
    forms: list[Any] = [values.to_flat(), values.to_dict(), values.to_pure_dict(), dict(values.to_flat())]
    for form in forms:
        merged = graph.treefy_merge(definition, form)
        assert type(merged.l1.weight) is sg.ParamState and merged.l1.weight.value["weight"].shape == (2, 3)
    states = graph.flatten(MLP(), treefy_state=False)[1]
    assert graph.unflatten(definition, states).st is states["st"]


@pytest.mark.core
def test_containers_settings_and_orders_survive() -> None:
    class Names(list):  # type: ignore[type-arg]
        pass

    class Holder(sg.graph.Node):
        def __init__(self) -> None:
            self.z = {"b": Linear(1, 1), "a": None}
            self.ordered = OrderedDict(y=1, x=2)
            self.default = defaultdict(list, {"k": [1]})
            self.names = Names(["n", sg.State(1.0)])
            self.pair = Pair((1, 2), sg.State(2.0))
            self.shared = self.default["k"]
            self.function = jax.nn.relu
            self.partial = jax.tree_util.Partial(max, 3)
            self.mask = np.ones(2)

    holder = Holder()
    twin = graph.clone(holder)
    assert list(vars(twin)) == list(vars(holder)) and list(twin.z) == ["b", "a"]
    assert type(twin.ordered) is OrderedDict and twin.ordered == holder.ordered
    assert twin.default["k"] is twin.shared and twin.shared is not holder.shared and twin.default["new"] == []
    assert type(twin.names) is Names and twin.names[1].value == 1.0 and twin.pair.left == (1, 2)
    assert twin.function is jax.nn.relu and twin.partial(5) == 5
    twin.mask[0] = 7
    assert holder.mask[0] == 1
    assert graph.graphdef(holder) == graph.graphdef(graph.clone(Holder())) != graph.graphdef(twin)


def test_a_state_in_a_set_is_an_error() -> None:
    model = MLP()
    model.odd = {model.st}  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="in a set, at \\('odd',\\)"):
        graph.treefy_split(model)


def test_clone_shares_nothing_that_changes() -> None:
    model = Regressor()
    model.linear1.weight.add_tag("first")
    twin = graph.clone(model)
    twin(jnp.ones((1, 1)))
    assert (model.count.value, twin.count.value) == (0, 1) and twin.linear1.weight.tag == {"first"}
    assert type(twin.count) is Count


# ------------------------------------------------------------------------------------------------ plain JAX


def data() -> tuple[jax.Array, jax.Array]:
    x = jnp.linspace(0, 1, 64)[:, None]
    return x, 0.8 * x**2 + 0.1


@pytest.mark.core
def test_the_functional_training_loop_of_the_documents() -> None:
    x, y = data()
    graphdef, params, counts = graph.treefy_split(Regressor(), sg.ParamState, Count)
    traces = []

    @jax.jit
    def train_step(params: Any, counts: Any) -> Any:
        traces.append(1)

        def loss_fn(params: Any) -> Any:
            model = graph.treefy_merge(graphdef, params, counts)
            loss = jnp.mean((y - model(x)) ** 2)
            return loss, (graph.treefy_states(model, Count), loss)

        grad, (new_counts, loss) = jax.grad(loss_fn, has_aux=True)(params)
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, grad), new_counts, loss

    losses = []
    for _ in range(200):
        params, counts, loss = train_step(params, counts)
        losses.append(float(loss))
    assert len(traces) == 1 and losses[-1] < losses[0] / 4
    model = graph.treefy_merge(graphdef, params, counts)
    assert model.count.value == 200


@pytest.mark.core
def test_values_are_the_carry_of_a_scan() -> None:
    x, _ = data()
    graphdef, values = graph.treefy_split(Regressor())

    def step(values: Any, _: Any) -> Any:
        model = graph.treefy_merge(graphdef, values)
        out = model(x).sum()
        return graph.treefy_states(model), out

    values, outs = jax.lax.scan(step, values, length=3)
    assert graph.treefy_merge(graphdef, values).count.value == 3 and outs.shape == (3,)


def test_splitting_inside_of_a_traced_function() -> None:
    model = Regressor()
    x, _ = data()

    @sg.compile.jit
    def loss() -> jax.Array:
        graphdef, params, rest = graph.treefy_split(model, sg.ParamState, ...)
        out: jax.Array = graph.treefy_merge(graphdef, params, rest)(x).sum()
        model.count.value += 10
        return out

    assert jnp.allclose(loss(), graph.clone(model)(x).sum(), rtol=1e-5) and model.count.value == 10


# ------------------------------------------------------------------------------------------------- contexts


def test_contexts_keep_what_models_share() -> None:
    shared = Linear(1, 1)
    one, two = MLP(), MLP()
    one.l1 = two.l2 = shared
    with graph.split_context() as context:
        first, second, again = context.treefy_split(one), context.treefy_split(two), context.flatten(one)
    assert isinstance(again[0], graph.NodeRef) and len(second[1].to_flat()) == 3
    with graph.merge_context() as merge:
        a, b, c = merge.treefy_merge(*first), merge.treefy_merge(*second), merge.unflatten(*again)
    assert a.l1 is b.l2 and c is a and a.l1 is not shared
    with pytest.raises(ValueError, match="does not define"):
        graph.treefy_merge(*second)
    with pytest.raises(ValueError, match="a reference to a MLP"):
        graph.treefy_merge(*again)


def test_unflatten_can_fill_objects_that_exist() -> None:
    model = Regressor()
    refs = graph.RefMap()
    definition, values = graph.flatten(model, refs)
    values["count"] = values["count"].replace(jnp.array(5))
    model.extra = 1  # type: ignore[attr-defined]
    linear1 = model.linear1
    again = graph.unflatten(definition, values, index_ref_cache={index: obj for obj, index in refs.items()})
    assert (
        again is model and model.linear1 is linear1 and model.count.value == 5 and not hasattr(model, "extra")
    )


def test_a_mapping_by_identity() -> None:
    a, b = [1], [1]
    refs = graph.RefMap({})
    refs[a] = 1
    assert a in refs and b not in refs and len(refs) == 1 and list(refs) == [a] and "list" in repr(refs)
    del refs[a]
    assert not refs


def test_foreign_classes_can_be_nodes() -> None:
    class Bag:
        pass

    graph.register_graph_node_type(
        Bag,
        flatten=lambda bag: (vars(bag).items(), None),
        set_key=setattr,
        pop_key=lambda bag, key: vars(bag).pop(key),
        create_empty=lambda metadata: Bag(),
        clear=lambda bag: vars(bag).clear(),
    )
    bag: Any = Bag()
    bag.v, bag.w, bag.me = sg.HiddenState(1.0), sg.ParamState(2.0), bag
    model = MLP()
    model.bag = bag  # type: ignore[attr-defined]
    assert ("bag", "w") in graph.states(model) and ("bag",) in graph.nodes(model)
    twin = graph.clone(model)
    assert twin.bag.me is twin.bag is not bag and "me=Bag(...)" in repr(twin)
    graph.pop_states(model, sg.HiddenState)
    assert not hasattr(bag, "v")
    graph.update_states(model, {"bag": {"v": sg.State(3.0)}})
    assert bag.v.value == 3.0


# ----------------------------------------------------------------------------------------------------- cost


@pytest.mark.no_program_checks
def test_the_cost_of_taking_a_model_apart_is_linear() -> None:
    def cost(layers: int) -> int:
        model = sg.graph.Node()
        model.layers = [Linear(1, 1) for _ in range(layers)]  # type: ignore[attr-defined]
        graph.treefy_split(model)
        return python_calls(lambda: graph.treefy_split(model))

    assert cost(400) < 4.1 * cost(100)
