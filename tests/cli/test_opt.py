"""``stategraph opt``, ``passes``, ``verify`` and ``run``: on text alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stategraph
from stategraph import ir
from tests.cli.conftest import PROGRAM, Command

pytestmark = pytest.mark.usefixtures("files")


def test_passes_run_on_text(command: Command) -> None:
    result = command("opt", "p.sg", "-p", "cse")
    assert result.code == 0
    assert len(list(ir.parse(result.out).walk("jax.sin"))) == 1
    assert ir.parse(command("opt", "p.sg", "-p", "").out) == ir.parse(PROGRAM)
    assert len(list(ir.parse(command("opt", "p.sg").out).walk("jax.sin"))) == 1  # the default pipeline


def test_text_and_json_come_from_stdin(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    as_json = command("opt", "p.sg", "-p", "", "--format", "json").out
    for text in (PROGRAM, as_json):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert ir.parse(command("opt", "-", "-p", "").out) == ir.parse(PROGRAM)


def test_a_pass_from_a_file_reports_to_the_statistics(command: Command, files: Path) -> None:
    (files / "loop.sg").write_text(
        "stategraph 1\nprogram @p() -> () {\n  state @h : State<f32[]>\n  flow.scan [length = 3] "
        "carry() xs() {\n"
        "    state.write @h, 1.0:f32[]\n    flow.yield\n  }\n  flow.yield\n}\n"
    )
    line = ("opt", "loop.sg", "--load", "my_passes.py", "-p", "cli-count-writes{factor=3}")
    result = command(*line, "--statistics", "json", "-o", "out.sg")
    assert (result.code, result.out) == (0, ""), result.err
    (entry,) = json.loads(result.err)["passes"]
    assert entry["reports"][0]["numbers"] == {"writes": 3} and not entry["changed"]
    assert "writes State (writes = 3)" in command(*line, "--statistics", "text").err
    assert "writes State (writes = 3)" in command(*line, "--explain").err


def test_what_a_pass_prints_does_not_mix_with_the_dump(command: Command, files: Path) -> None:
    (files / "chatty.py").write_text(
        "import stategraph.passes as passes\n@passes.register\ndef cli_chatty(program):\n    print('hello')\n"
    )
    result = command("opt", "p.sg", "--load", "chatty.py", "-p", "cli-chatty")
    assert ir.parse(result.out) == ir.parse(PROGRAM) and result.err == "hello\n"


def test_watching_a_pipeline(command: Command) -> None:
    err = command("opt", "p.sg", "-p", "cse,dce", "--print-after-all", "--timing").err
    assert "// ----- after cse" in err and "// ----- after dce" in err and "total" in err
    err = command("opt", "p.sg", "-p", "cse,dce", "--print-after-change").err
    assert "after cse" in err and "after dce" not in err
    err = command("opt", "p.sg", "-p", "cse,dce", "--print-before", "dce", "--print-after", "cse").err
    assert "before dce" in err and "after cse" in err and "before cse" not in err
    missing = command("opt", "p.sg", "-p", "cse", "--print-after", "dce")
    assert missing.code == 1 and "no such pass in the pipeline" in missing.err
    err = command("opt", "p.sg", "-p", "cse,dce", "--bisect", "1").err
    assert "running pass 1, cse" in err and "not running pass 2, dce" in err


def test_validation_finds_a_pass_that_changes_values(command: Command, files: Path) -> None:
    (files / "lie.py").write_text(
        "import stategraph.passes as passes\n@passes.register\ndef cli_lie(program):\n"
        "    next(iter(program.walk('jax.add'))).name = 'jax.sub'\n"
    )
    assert command("opt", "p.sg", "--validate-each").code == 0
    assert command("opt", "p.sg", "--load", "lie.py", "-p", "cli-lie").code == 0
    result = command("opt", "p.sg", "--load", "lie.py", "-p", "cli-lie", "--validate-each")
    assert (
        result.code == 1
        and "does not compute what it did" in result.err
        and "while running pass cli-lie" in result.err
    )


@pytest.mark.no_program_checks
def test_verification_after_each_pass_is_on_and_can_be_turned_off(command: Command, files: Path) -> None:
    (files / "wrong.py").write_text(
        "import stategraph.passes as passes\n@passes.register\ndef cli_wrong(program):\n    "
        "program.states.clear()\n"
    )
    result = command("opt", "p.sg", "--load", "wrong.py", "-p", "cli-wrong")
    assert result.code == 1 and "@h" in result.err and "while running pass cli-wrong" in result.err
    assert command("opt", "p.sg", "--load", "wrong.py", "-p", "cli-wrong", "--no-verify-each").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("q.sg",), 1, "did you mean 'p.sg'?"),
        (("p.sg", "-p", "csee"), 1, "did you mean 'cse'?"),
        (("p.sg", "-p", "simplify-loops{lats=true}"), 1, "did you mean 'last'?"),
        (("p.sg", "-p", "cse", "--exactness", "exakt"), 2, "did you mean 'exact'?"),
        (("p.sg", "--statistics", "yaml"), 2, "there is no 'yaml'"),
        (("p.sg", "--bisect", "x"), 2, "no whole number"),
        (("p.sg", "--load", "none.py"), 1, "no such file: none.py"),
        (("p.sg", "--load", "model.py"), 1, "registers no pass"),
        (("p.sg", "--format", "svg", "--no-locations"), 2, "is for text"),
        (("broken.sg",), 1, "broken.sg:2:9"),
        (("invalid.sg",), 1, "%nope"),
        (("binary.sg",), 1, "is no text"),
        (("data.json",), 1, "this is not the JSON form"),
        (("bad.json",), 1, "bad.json:1:2"),
        ((".",), 1, "cannot read"),
    ],
)
def test_mistakes_are_messages(
    command: Command, files: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (files / "broken.sg").write_text("stategraph 1\nprogram p\n")
    (files / "invalid.sg").write_text("stategraph 1\nprogram @p() -> (a : f32[]) {\n  flow.yield %nope\n}\n")
    (files / "binary.sg").write_bytes(b"\xff\xfe\x00")
    (files / "data.json").write_text("{}")
    (files / "bad.json").write_text("{x")
    result = command("opt", *arguments)
    assert result.code == code and message in result.err, result.err
    assert result.out == "" and "Traceback" not in result.err


def test_opt_does_not_import_jax(files: Path) -> None:
    """``stategraph/__init__.py`` imports JAX for the modellers; what the command itself uses does not."""
    script = f"""
import sys, types
package = types.ModuleType("stategraph"); package.__path__ = [{str(Path(stategraph.__file__).parent)!r}]
sys.modules["stategraph"] = package
sys.modules["jax"] = None
from stategraph.cli import main
assert main(["opt", "p.sg", "--statistics", "text", "--timing", "--print-after-change"]) == 0
assert main(["opt", "p.sg", "--format", "svg", "-o", "p.svg"]) == 0
assert main(["verify", "p.sg"]) == 0
assert main(["passes"]) == 0
"""
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=files, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr


def test_passes_lists_what_there_is(command: Command) -> None:
    result = command("passes", "--load", "my_passes.py")
    assert result.code == 0
    lines = {line.split()[0]: line for line in result.out.splitlines() if line}
    assert "exact" in lines["dce"] and "from" not in lines["cse"]
    assert "{factor: int = 1}" in lines["cli-count-writes"] and "my_passes.py]" in lines["cli-count-writes"]
    assert "last: bool = true" in command("passes", "simplify-loops").out
    (entry,) = json.loads(command("passes", "simplify-loops", "--json").out)
    assert (
        entry["origin"] == "built in"
        and entry["options"][0]["name"] == "last"
        and entry["in_default_pipeline"]
    )
    assert "did you mean 'dce'?" in command("passes", "dec").err


def test_passes_of_installed_packages_are_marked_and_a_broken_one_is_a_warning(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "cli_plugin.py").write_text(
        "import attrs\nfrom stategraph.passes import Pass\n@attrs.frozen\nclass P(Pass):\n    '''Do "
        "nothing.'''\n"
        "    name = 'cli-plugin'\n    def run(self, program, context): pass\n"
    )
    info = site / "cli_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cli-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[stategraph.passes]\ncli-plugin = cli_plugin:P\ncli-gone = cli_plugin:Gone\n"
    )
    monkeypatch.syspath_prepend(str(site))
    result = command("passes")
    assert result.code == 0
    assert any("cli-plugin" in line and "[from cli_plugin]" in line for line in result.out.splitlines())
    assert "warning: the pass 'cli-gone'" in result.err and "Traceback" not in result.err


def test_verify_tells_about_every_file(command: Command, files: Path) -> None:
    (files / "invalid.sg").write_text("stategraph 1\nprogram @p() -> (a : f32[]) {\n  flow.yield %nope\n}\n")
    assert command("verify", "p.sg").out == "p.sg: valid, functional, 5 ops, 1 State\n"
    result = command("verify", "invalid.sg", "p.sg")
    assert result.code == 1 and "invalid.sg: not valid\np.sg: valid" in result.out and "%nope" in result.err


def test_run_interprets_a_program(command: Command, files: Path) -> None:
    x, h = np.array([0.0, 1.0, 2.0], np.float32), np.ones(3, np.float32)
    np.savez(files / "in.npz", **{"x": x, "@h": h})
    result = command("run", "p.sg", "--inputs", "in.npz", "--output", "out.npz")
    assert result.code == 0, result.err
    assert "a = [" in result.out and ": f32[3]" in result.out
    with np.load(files / "out.npz") as out:
        np.testing.assert_allclose(out["a"], np.sin(x), rtol=1e-6)
        np.testing.assert_allclose(out["@h"], 1 + np.sin(x), rtol=1e-6)
    assert command("run", "p.sg", "--seed", "1").out == command("run", "p.sg", "--seed", "1").out
    np.savez(files / "wrong.npz", y=x)
    assert "is no input of @p" in command("run", "p.sg", "--inputs", "wrong.npz").err
    np.savez(files / "shape.npz", x=np.zeros(4))
    assert "an array of shape [4] was given" in command("run", "p.sg", "--inputs", "shape.npz").err
    assert "is no .npz file" in command("run", "p.sg", "--inputs", "p.sg").err
