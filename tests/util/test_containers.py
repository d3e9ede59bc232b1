"""Containers of the modelling layer: pytrees with the behaviour of the dicts and lists that they are."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph.util import BoundedCache, DictManager, DotDict, PrettyDict, PrettyList, StateDictManager

pytestmark = pytest.mark.core


def test_dot_dicts() -> None:
    config = DotDict({"model": {"size": 3}}, rate=0.1)
    config.model.depth = 2
    config["extra"] = {"a": 1}
    assert (
        config.model.depth == 2
        and config.extra.a == 1
        and config
        == {
            "model": {"size": 3, "depth": 2},
            "rate": 0.1,
            "extra": {"a": 1},
        }
    )
    config.update({"model": {"size": 5}}, rate=0.2)
    assert config.model == {"size": 5, "depth": 2} and config.setdefault("rate", 1) == 0.2
    del config.rate
    with pytest.raises(AttributeError, match=r"no entry 'rate'; there are 'model', 'extra'"):
        _ = config.rate
    with pytest.raises(AttributeError, match="is a method of dicts"):
        config.items = 3
    assert "model" in dir(config) and type(config.to_dict()["model"]) is dict
    shallow, deep = config.copy(), config.deepcopy()
    shallow.model.size = 7
    assert config.model.size == 5 == deep.model.size == copy.deepcopy(config).model.size
    assert pickle.loads(pickle.dumps(config)) == config and DotDict.from_dict({"a": {"b": 1}}).a.b == 1
    mapped = jax.tree.map(lambda x: x + 1, config)
    assert isinstance(mapped.model, DotDict) and mapped.model.size == 6
    with pytest.raises(AttributeError):
        del config.nothing


def test_pretty_containers() -> None:
    found = PrettyDict(a=PrettyList([1, 2]), b=sg.ParamState(1.0), c=3.0)
    states, rest = found.split(sg.State, ...)
    assert list(states) == ["b"] and list(rest) == ["a", "c"] and type(rest) is PrettyDict
    assert list(found.filter(lambda path, value: path == ("c",))) == ["c"]
    assert PrettyDict.merge({"a": 1}, {"a": 2, "b": 3}) == {"a": 2, "b": 3}
    assert repr(PrettyDict()) == "{}" and repr(PrettyList([1])) == "[\n  1\n]"
    mapped = jax.tree.map(lambda x: x + 1, PrettyDict(z=1, a=PrettyList([2])))
    assert type(mapped) is PrettyDict and type(mapped["a"]) is PrettyList and mapped == {"z": 2, "a": [3]}
    assert jax.tree.structure(PrettyDict(a=1, b=2)) == jax.tree.structure(PrettyDict(b=2, a=1))


def test_dict_managers() -> None:
    one, two = object(), object()
    found = DictManager(a=1, b=2.0, c=one, d=one, e="x")
    assert found.subset((int, float)) == {"a": 1, "b": 2.0} and found.not_subset((int, float, str)) == {
        "c": one,
        "d": one,
    }
    assert found.subset(lambda item: item == "x") == {"e": "x"}
    assert found.unique() == {"a": 1, "b": 2.0, "c": one, "e": "x"}
    assert found.difference_by_keys("ab").keys() == {"c", "d", "e"} and found.intersection_by_keys(
        "ab"
    ).keys() == {"a", "b"}
    assert found.difference_by_values([one]).keys() == {"a", "b", "e"}
    assert found.intersection_by_values([1.0], by="value") == {"a": 1}
    assert found.filter_by_predicate(lambda key, item: key > "c").keys() == {"d", "e"}
    assert found.map_keys(str.upper).keys() == set("ABCDE") and (found + {"z": 1})["z"] == 1
    found.add_unique_key("a", found["a"])
    with pytest.raises(ValueError, match="with another value"):
        found.add_unique_key("a", two)
    with pytest.raises(ValueError, match="two keys become one"):
        found.map_keys(lambda key: 0)
    with pytest.raises(ValueError, match="by is 'id' or 'value'"):
        found.pop_by_values([1], by="name")
    assert not found.add_unique_value("f", one) and found.add_unique_value("f", two)
    assert found.unique_() is found and "d" not in found
    found.pop_by_keys(["a", "missing"])
    found.pop_by_values([two])
    found.assign({"g": 1}, h=2)
    assert found.keys() == {"b", "c", "e", "g", "h"} and type(found.to_dict()) is dict
    mapped = jax.tree.map(lambda x: x + 1, DictManager(b=1, a=2))
    assert type(mapped) is DictManager and mapped == {"a": 3, "b": 2} and mapped.map_values(str)["a"] == "3"


def test_state_dict_managers() -> None:
    w, h = sg.ParamState(jnp.ones(2)), sg.HiddenState(0.0)
    states = sg.StateDictManager(w=w, h=h)
    assert type(states) is StateDictManager and states.split(sg.ParamState)[0] == {"w": w}
    states.assign_values({"w": jnp.zeros(2)}, {"h": 5.0})
    assert float(h.value) == 5 and float(states.collect_values()["w"].sum()) == 0
    with pytest.raises(KeyError, match="no State at 'x'"):
        states.assign_values({"h": 1.0, "x": 2.0})
    assert float(states.to_dict_values()["h"]) == 5
    params, rest = states.split_values(sg.ParamState)
    assert list(params) == ["w"] and list(rest) == ["h"]


def test_bounded_caches() -> None:
    cache = BoundedCache(2)
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.get("a") == 1
    cache.set("c", 3)
    assert cache.keys() == ["a", "c"] and "b" not in cache and len(cache) == 2
    with pytest.raises(ValueError, match="has a value"):
        cache.set("a", 2)
    cache.replace("a", 2)
    with pytest.raises(KeyError):
        cache.replace("z", 2)
    with pytest.raises(ValueError, match="no plan for 'z' is kept"):
        cache.get("z", raise_on_miss=True, error_context="plan")
    assert cache.pop("a") == 2 and cache.pop("a", 7) == 7
    assert cache.get_stats() == {"size": 1, "maxsize": 2, "hits": 1, "misses": 1, "hit_rate": 50.0}
    cache.clear()
    assert len(cache) == 0 and cache.get_stats()["hit_rate"] == 0.0
    with pytest.raises(ValueError, match="maxsize"):
        BoundedCache(0)


def test_unique_names_from_several_threads() -> None:
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda: names.extend(sg.util.get_unique_name("T", "p_") for _ in range(200)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 800 and names[0].startswith("p_T")


def test_pretty_objects() -> None:
    class Inner(sg.util.PrettyObject):
        def __init__(self, x: Any) -> None:
            self.x = x

    assert repr(Inner(Inner(1))) == "Inner(\n  x=Inner(\n    x=1\n  )\n)"


def test_clearing_buffers() -> None:
    """In a process of its own: every array is gone."""
    import subprocess
    import sys

    from tests.support import ROOT

    code = (
        "import jax.numpy as jnp, stategraph as sg\n"
        "x = jnp.ones(3); sg.util.clear_buffer_memory(array=False, compilation=True); x.sum()\n"
        "import jax; sg.util.clear_buffer_memory(jax.default_backend()); print(x.is_deleted(), jnp.ones(3).sum())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "True 3.0", result.stderr[-500:]
