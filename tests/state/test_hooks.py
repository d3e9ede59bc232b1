"""Hooks, catching new States, groups of hidden States, and other members of State."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.state import State, hooks

pytestmark = pytest.mark.core
PLAIN = State.__dict__["value"], State.__dict__["__init__"]


@pytest.fixture(autouse=True)
def no_hooks_are_left() -> Any:
    """After each test accesses are plain again."""
    yield
    sg.clear_state_hooks()
    assert (State.__dict__["value"], State.__dict__["__init__"]) == PLAIN


def test_hooks_of_a_state() -> None:
    s, other, seen = sg.State(1.0), sg.State(5.0), []

    def note(context: Any) -> None:
        seen.append((context.operation, float(context.value), float(context.old_value)))

    handles = [s.register_hook(kind, note) for kind in ("read", "write_before", "write_after", "restore")]
    assert float(s.value) == 1 and float(other.value) == 5
    s.value = 2.0
    other.value = 3.0
    s.restore_value(4.0)
    assert seen == [("read", 1, 1), ("write_before", 2, 1), ("write_after", 2, 1), ("restore", 4, 2)]
    assert s.has_hooks("read") and not other.has_hooks() and len(s.list_hooks()) == 4
    handles[0].disable()
    _ = s.value
    assert len(seen) == 4 and not handles[0].is_enabled
    handles[0].enable()
    _ = s.value
    assert (
        len(seen) == 5 and s.unregister_hook(handles[0]) and handles[0].is_removed and not handles[0].remove()
    )
    s.clear_hooks()
    assert not s.has_hooks() and State.__dict__["value"] is PLAIN[0]
    with s.temporary_hook("read", note) as hook:
        assert hook.name == "note" and s.has_hooks()
    assert not s.has_hooks()


def test_hooks_change_and_refuse_writes_in_order_of_priority() -> None:
    s = sg.State(0.0)

    def double(context: Any) -> None:
        context.transformed_value = context.value * 2

    def limit(context: Any) -> None:
        if context.value > 10:
            context.cancel, context.cancel_reason = True, "more than 10"

    s.register_hook("write_before", double)
    s.register_hook("write_before", limit, priority=1, name="limit")
    s.value = 6.0
    assert float(s.value) == 12
    with pytest.raises(sg.TraceContextError, match=r"The hook 'limit' refuses[\s\S]*more than 10"):
        s.value = 11.0
    assert float(s.value) == 12
    s.clear_hooks("write_before")
    s.register_hook("read", double)
    with pytest.raises(AttributeError, match="cannot change the value"):
        _ = s.value
    s.clear_hooks()


def test_what_a_hook_does_to_values_is_part_of_a_program() -> None:
    s, runs = sg.State(0.0), []

    def double(context: Any) -> None:
        runs.append(context.operation)
        context.transformed_value = context.value * 2

    s.register_hook("write_before", double)
    step = sg.compile.jit(lambda x: setattr(s, "value", x))
    for x in (1.0, 2.0, 3.0):
        step(x)
        assert float(s.value) == 2 * x
    assert len(runs) == step.trace_count == 1
    s.clear_hooks()


def test_hooks_of_all_states_and_hooks_that_use_states() -> None:
    count, made = sg.State(0), []
    init = sg.register_state_hook("init", lambda context: made.append(type(context.state)))
    read = sg.register_state_hook("read", lambda context: setattr(count, "value", count.value + 1))
    w, k = sg.ParamState(1.0), sg.random.RandomState(1)
    _ = w.value, w.value, k.value
    assert made == [sg.ParamState, sg.random.RandomState] and [h for h in sg.list_state_hooks()] == [
        init,
        read,
    ]
    sg.clear_state_hooks("read")
    assert int(count.value) == 3 and sg.list_state_hooks("init") == [init]


def test_wrong_hooks() -> None:
    s = sg.State(0.0)
    with pytest.raises(ValueError, match="hook_type is one of"):
        s.register_hook("delete", print)
    with pytest.raises(ValueError, match="not created again"):
        s.register_hook("init", print)
    with pytest.raises(TypeError, match="a hook is a function"):
        s.register_hook("read", 3)  # type: ignore[arg-type]
    assert not hooks._OF.get(s)


def test_catching_new_states() -> None:
    with sg.catch_new_states("new", sg.HiddenState) as caught:
        net = sg.nn.Module()
        net.w, net.h = sg.ParamState(1.0), sg.HiddenState(0.0)  # type: ignore[attr-defined]
        thread = threading.Thread(target=lambda: sg.State(3.0))
        thread.start()
        thread.join()
        with sg.catch_new_states() as inner:
            v = sg.State(2.0)
    sg.State(9.0)
    assert caught.get_states() == [net.w, v] and list(inner) == [v] and len(caught) == 2  # type: ignore[attr-defined]
    assert net.w.tag == {"new"} and net.h.tag is None and caught.get_by_tag("new") == caught.states  # type: ignore[attr-defined]
    assert [float(x) for x in caught.get_state_values()] == [1.0, 2.0]
    assert list(net.states("new")) == [("w",)]
    assert float(sg.maybe_state(v)) == 2.0 and sg.maybe_state("x") == "x"


def test_checking_the_structure_of_values() -> None:
    s = sg.State({"a": 1.0})
    with sg.check_state_value_tree():
        s.value = {"a": 2.0}
        for write in (lambda: setattr(s, "value", 1.0), sg.compile.jit(lambda: setattr(s, "value", (1.0,)))):
            with pytest.raises(sg.BrainStateError, match=r"another structure[\s\S]*\{'a': \*\}"):
                write()
        with sg.check_state_value_tree(False):
            s.value = 1.0
    s.value = {"a": 1.0, "b": 2.0}
    assert s.numel() == 2 == s.size


def test_other_members() -> None:
    s = sg.ParamState(jnp.ones(3), name="w", tag="x", unit="mV")
    assert float(s.value_call(jnp.sum)) == 3 and s.numel() == 3
    assert str(s.source_info) == str(s.source_location) and "test_hooks" in str(s.source_info)
    other = s.replace(jnp.zeros(3), name="v", tag="y", scale=2)
    assert (other.name, other.tag, other.metadata) == ("v", {"y"}, {"unit": "mV", "scale": 2})
    assert type(other) is sg.ParamState and float(other.value.sum()) == 0 and float(s.value.sum()) == 3
    assert s.replace().tag == {"x"} and s.metadata == {"unit": "mV"}
    other.copy_from(s)
    assert float(other.value.sum()) == 3 and other.tag == {"x"} and other.metadata == {"unit": "mV"}
    reference = s.to_state_ref()
    assert isinstance(reference, sg.TreefyState) and reference.to_state().tag == {"x"}
    other.update_from_ref(jax.tree.map(lambda x: 2 * x, reference))
    assert float(other.value.sum()) == 6
    with pytest.raises(TypeError, match="cannot be a copy"):
        other.copy_from(sg.State(1.0))


def test_groups_of_hidden_states() -> None:
    group = sg.HiddenGroupState(jnp.zeros((4, 3)))
    assert (group.varshape, group.num_state) == ((4,), 3) and isinstance(group, sg.HiddenState)
    group.set_value([jnp.full(4, float(i)) for i in range(3)])
    group.set_value({-1: jnp.ones(4)})
    np.testing.assert_array_equal(group.value[0], [0, 1, 1])
    np.testing.assert_array_equal(sg.compile.jit(lambda: group.get_value(1))(), jnp.ones(4))
    for wrong in (3, "v"):
        with pytest.raises(KeyError, match="there is no hidden state"):
            group.get_value(wrong)
    with pytest.raises(ValueError, match=r"has shape \(4,\), and the value \(3,\)"):
        group.set_value({0: jnp.ones(3)})
    with pytest.raises(ValueError, match="not a scalar"):
        sg.HiddenGroupState(1.0)


def test_trees_of_hidden_states_keep_their_names() -> None:
    tree = sg.HiddenTreeState({"v": jnp.zeros(3), "u": jnp.ones(3)})
    tree.set_value({"v": jnp.full(3, 2.0)})

    class Cell(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = tree

    copies = [tree.copy(), pickle.loads(pickle.dumps(tree)), sg.graph.clone(Cell()).h]
    for one in (tree, *copies):
        assert type(one) is sg.HiddenTreeState and one.names == ("v", "u")
        np.testing.assert_array_equal(one.get_value("v"), [2, 2, 2])
        np.testing.assert_array_equal(one.get_value(1), [1, 1, 1])
    assert sg.HiddenTreeState([jnp.ones(2)]).num_state == 1
    with pytest.raises(ValueError, match="one shape"):
        sg.HiddenTreeState({"v": jnp.zeros(3), "u": jnp.ones(2)})
    assert jax.tree.leaves(tree.value)[0].shape == (3, 2)


@pytest.mark.parametrize("way", ["eager", "disable_jit"])
def test_the_errors_have_their_names(way: str) -> None:
    s = sg.State(0.0)
    with jax.disable_jit(way == "disable_jit"), pytest.raises(sg.BatchAxisError, match="out_states"):
        sg.augment.vmap(lambda x: setattr(s, "value", x))(jnp.arange(3.0))
    with pytest.raises(sg.TraceContextError, match="does not trace"):
        jax.jit(lambda: setattr(s, "value", 1.0))()
    assert issubclass(sg.BatchAxisError, sg.BrainStateError)
