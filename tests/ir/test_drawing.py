"""Graph, DOT, SVG and HTML: well-formed for every program, and nothing in it can break out."""

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import networkx
import numpy as np
import pytest

from stategraph import ir
from stategraph.ir import Program
from stategraph.ir.colours import state_colour
from tests.ir.programs import random_program
from tests.ir.test_text import straight

SVG = "{http://www.w3.org/2000/svg}"


# --------------------------------------------------------------------------------------------------- networkx


def test_the_graph_has_ops_dataflow_and_state_order(step: Program) -> None:
    graph = ir.to_networkx(step)
    ops = list(step.walk())
    assert graph.number_of_nodes() == len(ops) + 3
    numbers = {op.name: i for i, op in reversed(list(enumerate(ops)))}
    scan = numbers["flow.scan"]
    assert graph.nodes[scan]["effects"] == ["read @count", "write @count"]
    assert graph.nodes[scan]["location"] == "model.py:13 (step) in scope loop"
    assert graph.nodes[numbers["jax.mul"]]["region"] == f"{scan}.0"
    assert graph.nodes["%x"]["kind"] == "argument"
    data = [(a, b) for a, b, kind in graph.edges(data="kind") if kind == "data"]
    assert ("%x", scan) in data and (scan, numbers["jax.mul"]) in data
    order = [(a, b, s) for a, b, s in graph.edges(data="symbol") if s is not None]
    write = max(i for i, op in enumerate(ops) if op.name == "state.write")
    assert (0, write, "net.h") in order


@pytest.mark.parametrize("seed", range(15))
def test_the_graph_of_any_program_has_no_cycles(seed: int) -> None:
    assert networkx.is_directed_acyclic_graph(ir.to_networkx(random_program(seed)))


# -------------------------------------------------------------------------------------------------------- DOT


def test_dot_has_clusters_and_colours(step: Program) -> None:
    text = ir.to_dot(step)
    assert text.count("subgraph cluster_") == 6
    assert state_colour("net.h") in text and 'label = "flow.while cond"' in text
    assert text.count("{") - text.count("}") == 0


@pytest.mark.parametrize("seed", range(15))
def test_dot_strings_are_closed(seed: int) -> None:
    for line in ir.to_dot(random_program(seed)).split("\n"):
        assert line.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 0


# -------------------------------------------------------------------------------------------------------- SVG


def boxes(program: Program, limit: int = 80) -> list[str]:
    root = ElementTree.fromstring(ir.to_svg(program, limit))
    return [text.text or "" for group in root.iter(f"{SVG}g") for text in group.iter(f"{SVG}text")]


@pytest.mark.parametrize("seed", range(25))
def test_svg_is_well_formed(seed: int) -> None:
    boxes(random_program(seed))


def test_svg_shows_every_op_of_a_small_program(step: Program) -> None:
    shown = boxes(step)
    assert sum("state." in text for text in shown) == 7
    assert (
        len(shown) == sum(1 for _ in step.walk()) + len(step.body.args) + 5
    )  # loops and the call have arguments


def test_svg_boxes_of_one_region_do_not_overlap(step: Program) -> None:
    root = ElementTree.fromstring(ir.to_svg(step))
    found = [
        tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        for group in root.iter(f"{SVG}g")
        for rect in [next(group.iter(f"{SVG}rect"))]
    ]
    for i, (x, y, w, h) in enumerate(found):
        for x2, y2, w2, h2 in found[i + 1 :]:
            apart = x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
            inside = x <= x2 and y <= y2 and x2 + w2 <= x + w and y2 + h2 <= y + h
            assert apart or inside


def test_svg_of_a_large_program_stays_small(step: Program) -> None:
    assert "… 921 more ops" in boxes(straight(1000), 80)
    assert len(boxes(straight(1000), 80)) < 90
    assert any(text.startswith("… ") for text in boxes(step, 8))
    assert len(boxes(random_program(3, 200), 60)) < 200


# ------------------------------------------------------------------------------------------------------- HTML


class Balanced(HTMLParser):
    """Checks that tags nest, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def html_text(program: Program) -> str:
    parser = Balanced()
    parser.feed(ir.program_html(program))
    parser.close()
    assert parser.open == []
    return "".join(parser.text)


@pytest.mark.parametrize("seed", range(15))
def test_html_nests_and_says_what_the_text_says(seed: int) -> None:
    program = random_program(seed)
    expected = ir.print_program(program, resources=False)
    assert "".join(html_text(program).split()) == "".join(expected.split())


def test_html_escapes(step: Program) -> None:
    step.name = "<script>alert(1)</script>"
    step.captured["table"] = np.zeros(2, np.float32)
    assert "<script" not in ir.program_html(step) + ir.to_svg(step)
    assert "http" not in ir.program_html(step)
    assert step._repr_html_() == ir.program_html(step)


def test_html_of_a_long_program_is_cut() -> None:
    assert "more lines: print(program) shows them" in html_text(straight(3000))
