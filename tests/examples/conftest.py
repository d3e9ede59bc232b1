"""Running an example in this process, where every program that it builds is checked."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def load_example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A function that imports an example; the examples import each other by their bare names, as in a shell."""
    for package in ("matplotlib", "optax", "sklearn", "tqdm"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    yield importlib.import_module
    for name in names & set(sys.modules):
        del sys.modules[name]


@pytest.fixture
def run_example(
    load_example: Callable[[str], ModuleType], tmp_path: Path
) -> Callable[[str], dict[str, float]]:
    """A function that runs an example in its short form, and returns the numbers that it measured."""

    def run(name: str) -> dict[str, float]:
        numbers: dict[str, float] = load_example(name).main(["--short", "--output", str(tmp_path)])
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        return numbers

    return run
