"""A directory with a model, as a user has it, and the command run in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from stategraph.cli import main
from stategraph.passes import registry

MODEL = '''
import jax
import jax.numpy as jnp
import stategraph as sg
import neighbour

print("the model prints this while it is imported")


class Cell(sg.nn.Module):
    """A recurrent cell."""

    example_args = (jnp.zeros((4, 3)),)

    def __init__(self, size=5):
        super().__init__()
        self.w = sg.ParamState(jnp.ones((3, size)))
        self.h = sg.HiddenState(jnp.zeros(size))

    def update(self, xs):
        def step(_, x):
            self.h.value = jnp.tanh(x @ self.w.value + self.h.value)
            return None, self.h.value

        return jax.lax.scan(step, None, xs)[1]

    def scale(self, k):
        self.h.value = self.h.value * k


class NeedsSize(sg.nn.Module):
    def __init__(self, size):
        self.size = size

    def update(self):
        return jnp.zeros(self.size)


class Plain:
    pass


net = Cell()
count = sg.State(0)
number = 3


@sg.compile.jit(static_argnames="name")
def add(x, name="add"):
    count.value += 1
    return x + count.value if name == "add" else x


@sg.compile.jit(passes="cse,default", exactness="exact")
def own_passes(x):
    return x + 1


def batch_loss(batch, scale=1.0):
    return (batch["image"].sum() - batch["label"].sum()) * scale


def draw(key):
    return jax.random.normal(key, (2,))


def shout(x):
    jax.debug.print("x {}", x)
    return x * 2


def crash(x):
    return neighbour.crash(x)
'''


def line_of(text: str, source: str = MODEL) -> int:
    """The number of the line that holds ``text``."""
    return 1 + next(i for i, line in enumerate(source.splitlines()) if text in line)


NEIGHBOUR = """
import jax.numpy as jnp

def crash(x):
    return x @ jnp.ones((7, 7))
"""


@attrs.frozen
class Result:
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """``command("dump", "model.py:net")`` in a directory that holds ``model.py``."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    yield run
    sys.path[:] = path
    for name in set(registry._PASSES) - set(registry.BUILTIN):
        if registry._PASSES[name].__module__.startswith(("stategraph_loaded_", "cli_plugin")):
            del registry._PASSES[name]
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


PROGRAM = """stategraph 1
program @p(%x : f32[3]) -> (a : f32[3], b : f32[3]) {
  state @h : HiddenState<f32[3]>
  %h = state.read @h : f32[3]
  %a = jax.sin %x {accuracy = none} : f32[3]
  %b = jax.sin %x {accuracy = none} : f32[3]
  %c = jax.add %h, %b : f32[3]
  state.write @h, %c
  flow.yield %a, %b
}
"""

PASSES = '''
import stategraph.passes as passes


@passes.register
def cli_count_writes(program, context, factor: int = 1):
    """Count the State writes in loops."""
    for loop in program.walk("flow.scan", "flow.while"):
        context.report(loop, "writes State", writes=factor * sum(1 for _ in loop.walk("state.write")))


@passes.register
def cli_broken(program):
    raise ValueError("this pass is broken")
'''


@pytest.fixture
def files(command: Command, tmp_path: Path) -> Path:
    """The directory of ``command``, with a program and a file of passes."""
    (tmp_path / "p.sg").write_text(PROGRAM)
    (tmp_path / "my_passes.py").write_text(PASSES)
    return tmp_path
