"""The example that `make demo` runs."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import stategraph as sg
from stategraph import ir

for package in ("matplotlib", "optax", "sklearn", "tqdm"):
    pytest.importorskip(package)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits_gru.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module, without running it."""
    spec = importlib.util.spec_from_file_location("digits_gru", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(what the short demo prints, the folder that it writes)."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, str(EXAMPLE), "--short", "--output", str(folder)]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout, folder


@pytest.mark.slow
def test_the_demo_learns_to_read_digits(run: tuple[str, Path]) -> None:
    (line,) = [line for line in run[0].splitlines() if line.startswith("test accuracy")]
    assert float(line.split()[2].rstrip("%")) >= 95


@pytest.mark.slow
def test_the_demo_prints_the_program_before_and_after_and_a_table(run: tuple[str, Path]) -> None:
    text = run[0]
    assert text.index("as traced") < text.index("after the passes") < text.index("in figures")
    (row,) = [line for line in text.splitlines() if "inside loops and gradients" in line]
    traced, hoisted, optimized = map(int, row.split()[-3:])
    assert traced > 0 and hoisted == optimized == 0


@pytest.mark.slow
def test_the_dumps_of_the_demo_can_be_read_back(run: tuple[str, Path]) -> None:
    dumps = sorted(run[1].glob("*.sg"))
    assert len(dumps) == 3
    for dump in dumps:
        text = dump.read_text(encoding="utf-8")
        program = ir.parse(text)
        ir.verify(program)
        assert str(program) == text


@pytest.mark.slow
def test_the_demo_writes_stablehlo_drawings_and_the_learning_curve(run: tuple[str, Path]) -> None:
    folder = run[1]
    assert "stablehlo.while" in (folder / "train_step.stablehlo.mlir").read_text(encoding="utf-8")
    assert len(list(folder.glob("*.svg"))) == 3
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def small_step(example: ModuleType) -> tuple[sg.nn.Module, object, np.ndarray, np.ndarray]:
    import jax

    model = example.DigitReader(jax.random.key(0))
    step = example.make_training_step(model, steps=10)
    data = np.random.default_rng(0)
    images = data.random((4, 8, 8), dtype=np.float32)
    return model, step, images, data.integers(0, 10, 4).astype(np.int32)


def test_the_step_lowers_for_other_platforms(example: ModuleType) -> None:
    _, step, *batch = small_step(example)
    lowered = sg.trace(step, *batch).lower(platforms=("cpu", "cuda", "tpu"))
    assert "stablehlo.while" in lowered.as_text("stablehlo")


def test_tracing_and_lowering_the_step_leave_the_model_untouched(example: ModuleType) -> None:
    model, step, *batch = small_step(example)
    before = {path: state.copy().value for path, state in model.states().items()}
    sg.trace(step, *batch).lower()
    for path, state in model.states().items():
        for then, now in zip(*map(leaves, (before[path], state.value)), strict=True):
            np.testing.assert_array_equal(then, now)


def leaves(value: object) -> list[np.ndarray]:
    import jax

    return list(map(np.asarray, jax.tree.leaves(value)))


def test_the_compiled_step_does_what_eager_python_does(example: ModuleType) -> None:
    import jax

    model, step, *batch = small_step(example)
    twin, eager, *_ = small_step(example)
    compiled = sg.compile.jit(step)
    for _ in range(2):
        loss, accuracy = compiled(*batch)
        with jax.disable_jit():
            expected_loss, expected_accuracy = eager(*batch)
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
        assert accuracy == expected_accuracy
    for mine, theirs in zip(model.states().values(), twin.states().values(), strict=True):
        for a, b in zip(leaves(mine.value), leaves(theirs.value), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert compiled.trace_count == 1


def test_the_optimized_loop_carries_the_memory_and_nothing_else(example: ModuleType) -> None:
    _, step, *batch = small_step(example)
    hoisting = "inline-calls,hoist-state,forward-state,eliminate-local-state"
    program = sg.passes.run_passes(sg.trace(step, *batch).program, hoisting).program
    (loop,) = program.walk("flow.scan")
    assert [str(value.type) for value in loop.operands[: loop.attributes["carry"]]] == ["f32[4,96]"]
