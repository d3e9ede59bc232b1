"""In a notebook: real cells of a real IPython shell."""

from __future__ import annotations

import html.parser
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import stategraph as sg

pytest.importorskip("IPython")

Cell = Callable[[str], Any]


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    """``cell(source)`` runs a cell and gives its last value."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the shell puts its own there
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))

    def run(source: str) -> Any:
        outcome = shell.run_cell(source.strip(), store_history=True)
        outcome.raise_error()
        return outcome.result

    yield run
    InteractiveShell.clear_instance()


MODEL = """
import jax, jax.numpy as jnp, stategraph as sg
count = sg.State(0)
total = sg.HiddenState(jnp.zeros(3), name="<b>total</b>")
"""

STEP = """
@sg.compile.jit
def step(x):
    count.value += 1
    total.value = total.value + FACTOR * x
    return total.value
"""


def test_locations_in_a_cell_print_as_the_cell_and_its_line(cell: Cell) -> None:
    cell(MODEL)
    cell(STEP.replace("FACTOR", "1"))
    text = cell("str(sg.trace(step, jnp.ones(3)).program)")
    assert '"In[1]":2' in text  # where count was created
    assert '"In[2]":3 in "step"' in text  # where it is written
    assert "ipykernel" not in text and "/tmp" not in text
    assert "In[1]:3: @total" in cell("str(sg.trace(step, jnp.ones(3)).explain())")


def test_errors_name_the_cell_and_show_its_line(cell: Cell) -> None:
    cell(MODEL)
    cell("def branch():\n    if count.value > 0:\n        return 1")
    message = cell(
        "try:\n    sg.trace(branch)\nexcept Exception as error:\n    message = str(error)\nmessage"
    )
    assert "In[2]:2" in message and "if count.value > 0:" in message


def test_a_rerun_cell_traces_again(cell: Cell) -> None:
    cell(MODEL)
    cell(STEP.replace("FACTOR", "1"))
    cell("step(jnp.ones(3)); step(jnp.ones(3))")
    assert cell("step.trace_count") == 1
    cell(STEP.replace("FACTOR", "10"))
    assert cell("float(step(jnp.ones(3))[0])") == 12.0
    assert '"In[5]":3' in cell("str(sg.trace(step, jnp.ones(3)).program)")


def test_a_rerun_cell_with_an_eager_loop_runs_its_new_code(cell: Cell) -> None:
    cell(MODEL)
    loop = "def body(i):\n    count.value += FACTOR\n    return count.value\n"
    loop += "int(sg.compile.for_loop(body, jnp.arange(3))[-1])"
    assert cell(loop.replace("FACTOR", "1")) == 3
    assert cell(loop.replace("FACTOR", "1")) == 6
    assert cell(loop.replace("FACTOR", "10")) == 36


def test_a_rerun_model_class_is_traced_anew(cell: Cell) -> None:
    source = """
class Net(sg.nn.Module):
    def __init__(self):
        super().__init__()
        self.h = sg.State(jnp.zeros(()))
    def update(self, x):
        self.h.value = self.h.value + FACTOR * x
        return self.h.value
net = Net()
f = sg.compile.jit(net)
"""
    cell(MODEL)
    cell(source.replace("FACTOR", "1"))
    assert cell("float(f(1.0))") == 1.0
    cell(source.replace("FACTOR", "5"))
    assert cell("float(f(1.0))") == 5.0


# ------------------------------------------------------------------------------------------------ _repr_html_


class Balanced(html.parser.HTMLParser):
    """Checks that every tag is closed, and collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(fragment: str) -> Balanced:
    parser = Balanced()
    parser.feed(fragment)
    parser.close()
    assert parser.open == []
    return parser


EVIL = "<script>alert('&')</script>"


def test_html_of_programs_states_and_stages_is_balanced_and_escaped() -> None:
    state = sg.State(jnp.zeros(2), name=EVIL)

    def f(**kwargs: Any) -> Any:
        state.value = state.value + kwargs[EVIL]
        return {EVIL: state.value}

    traced = sg.trace(f, **{EVIL: jnp.ones(2)})
    lowered = traced.lower()
    for shown in (traced.program, traced, lowered, lowered.compile(), state):
        page = parsed(shown._repr_html_())
        assert "script" not in page.tags and "<script>" in page.text.replace("\\u{3c}", "<")
    assert "state.write" in parsed(traced._repr_html_()).text


def test_ipython_shows_html(cell: Cell) -> None:
    from IPython.core.formatters import HTMLFormatter

    cell(MODEL)
    shown = HTMLFormatter()(cell("total"))
    assert "&lt;b&gt;total&lt;/b&gt;" in shown and "<b>" not in shown
