"""Trees: the layout of nested values, in JAX's order."""

import jax
import pytest

from stategraph.ir import LEAF, NONE, Tree, tuple_tree

NESTED = Tree("dict", (LEAF, tuple_tree(LEAF, NONE), Tree("list", (LEAF,))), ("a", "b", "c"))


def test_leaves_are_counted_and_named_as_jax_does() -> None:
    value = {"a": 1, "b": (2, None), "c": [3]}
    assert NESTED.leaf_count == len(jax.tree.leaves(value))
    paths = [
        tuple(getattr(k, "key", getattr(k, "idx", None)) for k in path)
        for path, _ in jax.tree.leaves_with_path(value)
    ]
    assert list(NESTED.leaf_paths()) == paths


def test_a_custom_node_names_its_fields_or_their_positions() -> None:
    assert list(Tree("custom", (LEAF, LEAF), ("x", "y"), "P").leaf_paths()) == [("x",), ("y",)]
    assert list(Tree("custom", (LEAF, LEAF), (), "P").leaf_paths()) == [(0,), (1,)]


def test_payload_takes_no_part_in_comparison() -> None:
    assert Tree("custom", (LEAF,), (), "P", payload=object()) == Tree("custom", (LEAF,), (), "P")


@pytest.mark.parametrize(
    ("tree", "text"),
    [(LEAF, "*"), (NONE, "None"), (tuple_tree(LEAF), "(*,)"), (NESTED, "{'a': *, 'b': (*, None), 'c': [*]}")],
)
def test_str(tree: Tree, text: str) -> None:
    assert str(tree) == text
