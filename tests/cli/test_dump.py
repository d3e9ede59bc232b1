"""``stategraph dump`` and ``explain``: what can be named, at which types, at which stage, in which form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import stategraph as sg
from stategraph import ir
from tests.cli.conftest import Command, line_of


def test_a_model_is_dumped_at_its_example_args_and_stdout_holds_nothing_else(command: Command) -> None:
    result = command("dump", "model.py:net")
    assert result.code == 0
    program = ir.parse(result.out)
    assert program.functional and list(program.states) == ["w", "h"]
    assert "prints this" in result.err


@pytest.mark.parametrize("target", ["model.py:Cell", "model:net", "model:Cell", "./model.py:net"])
def test_a_model_class_is_created_and_modules_are_found_like_files(command: Command, target: str) -> None:
    assert command("dump", target).code == 0


def test_the_stages_are_different_programs(command: Command) -> None:
    traced, hoisted, optimized = (
        ir.parse(command("dump", "model.py:net", "--stage", stage).out)
        for stage in ("traced", "hoisted", "optimized")
    )
    assert not traced.functional and [op.name for op in traced.walk("state.write")] == ["state.write"]
    assert hoisted.functional and optimized.functional
    assert next(iter(hoisted.walk("flow.scan"))).attributes["carry"] == 1


@pytest.mark.parametrize(
    ("stage", "shows"), [("jaxpr", "scan["), ("stablehlo", "stablehlo.while"), ("hlo", "HloModule")]
)
def test_the_stages_of_jax_are_text(command: Command, stage: str, shows: str) -> None:
    assert shows in command("dump", "model.py:net", "--stage", stage).out
    refused = command("dump", "model.py:net", "--stage", stage, "--format", "json")
    assert refused.code == 2 and "text only" in refused.err


def test_formats(command: Command, tmp_path: Path) -> None:
    program = ir.from_json(json.loads(command("dump", "model.py:net", "--format", "json").out))
    assert program == ir.parse(command("dump", "model.py:net").out)
    assert command("dump", "model.py:net", "--format", "dot").out.startswith("digraph")
    result = command("dump", "model.py:net", "--format", "svg", "--output", "net.svg")
    assert (result.code, result.out) == (0, "") and "<svg" in (tmp_path / "net.svg").read_text()
    unwritable = command("dump", "model.py:net", "--output", "no/such/directory/net.sg")
    assert unwritable.code == 1 and "cannot write 'no/such/directory/net.sg'" in unwritable.err


def test_locations_are_the_users_lines_and_can_be_left_out(command: Command) -> None:
    assert f'"model.py":{line_of("jnp.tanh")} in "Cell.update' in command("dump", "model.py:net").out
    assert "model.py" not in command("dump", "model.py:net", "--no-locations").out


SPIKING = """
import stategraph as sg
from stategraph import nn


class Net(nn.Module):
    def __init__(self, size=4):
        super().__init__()
        self.neurons = nn.LIF(size)

    def update(self, x=1.0):
        return self.neurons(x * sg.environ.get("gain", 1.0))


def make(size):
    return nn.init_all_states(Net(size), batch_size=2)
"""


@pytest.mark.parametrize(
    ("target", "shows"),
    [
        ("Net", "f32[4]"),
        ("Net(size=3)", "f32[3]"),
        ("make(3)", "f32[2,3]"),
        ("nn.init_all_states(Net(1), batch_size={'a': 5}['a'])", "f32[5,1]"),
        ("sg.compile.jit(make(2 * 3 / 2).neurons)", "f32[2,3]"),
    ],
)
def test_models_are_made_by_expressions_initialised_and_validated(
    command: Command, tmp_path: Path, target: str, shows: str
) -> None:
    (tmp_path / "spiking.py").write_text(SPIKING)
    args = ("--args", "f32[]") if "jit" in target else ()
    result = command(
        "dump", f"spiking.py:{target}", "--set", "dt=0.1", "--set", "gain = 2.0", *args, "--validate-each"
    )
    assert result.code == 0, result.err
    assert f"HiddenState<{shows}>" in result.out
    assert sg.environ.get("dt", None) is None


def test_a_setting_that_is_missing_is_said_with_the_option_that_gives_it(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "spiking.py").write_text(SPIKING)
    result = command("dump", "spiking.py:Net")
    assert result.code == 1
    assert "The setting 'dt'" in result.err and "--set dt=0.1" in result.err


@pytest.mark.parametrize(
    ("options", "shows"),
    [
        (("spiking.py:Net",), "'dt'"),
        (("spiking.py:Net(", "--set", "dt=0.1"), "is no name"),
        (("spiking.py:Nett(3)", "--set", "dt=0.1"), "did you mean 'Net'?"),
        (("spiking.py:Net(3).size + 1", "--set", "dt=0.1"), "no attribute 'size'"),
        (("spiking.py:3 + 4",), "is a int: only models and functions can be traced"),
        (("spiking.py:Net", "--set", "dt"), "NAME=VALUE"),
        (("spiking.py:Net", "--set", "dt=0.1", "--stage", "traced", "--validate-each"), "no pass has run"),
    ],
)
def test_targets_and_settings_that_are_none(
    command: Command, tmp_path: Path, options: tuple[str, ...], shows: str
) -> None:
    (tmp_path / "spiking.py").write_text(SPIKING)
    result = command("dump", *options)
    assert result.code in (1, 2) and shows in result.err and not result.out


def test_a_pass_that_changes_results_is_found_from_the_model_on(command: Command, tmp_path: Path) -> None:
    (tmp_path / "lie.py").write_text(
        "from stategraph.ir import Rewriter\n"
        "from stategraph.passes import register\n\n"
        "@register\ndef cli_lie(program):\n"
        "    for op in program.walk('jax.tanh'):\n        Rewriter().replace(op, op.operands)\n"
    )
    dump = ("dump", "model.py:net", "--load", "lie.py", "-p", "cli-lie,default")
    assert command(*dump).code == 0
    result = command(*dump, "--validate-each")
    assert result.code == 1 and "cli-lie" in result.err and not result.out


@pytest.mark.parametrize(
    ("target", "args", "shows"),
    [
        ("add", "f32[3]", "%x : f32[3]"),
        ("add", 'f32[3], name="other"', ": f32[3]"),
        ("net.scale", "f32[]*", "%k : f32[]*"),
        ("Cell.scale", "f32[ ]", "%k : f32[]"),
        ("batch_loss", "{image: f32[8, 8], label: i32[]}", "batch['image']"),
        ("batch_loss", "{image: bool[2], label: bf16[]}, scale=f32[]", "%scale : f32[]"),
        ("batch_loss", "{image: f32[2], label: i32[]}, 3", "%scale : i32[]*"),
        ("draw", "key<fry>[]", "%key : key<fry>[]"),
    ],
)
def test_types_of_arguments(command: Command, target: str, args: str, shows: str) -> None:
    result = command("dump", f"model.py:{target}", "--args", args, "--stage", "traced")
    assert result.code == 0, result.err
    assert shows in result.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("f32[3", "expected a type such as f32[3]"),
        ("f99[3]", "there is no dtype 'f99'"),
        ("f64[3]", "JAX_ENABLE_X64"),
        ("key<nope>[]", "no PRNG implementation 'nope'"),
        ("x=f32[3], f32[3]", "cannot follow one with a name"),
        ("f32[3], f32[3], f32[3]", "too many positional arguments"),
        ("y=f32[3]", "cannot be called with these arguments"),
    ],
)
def test_types_that_cannot_be_are_usage_errors(command: Command, args: str, message: str) -> None:
    result = command("dump", "model.py:add", "--args", args)
    assert (result.code, result.out) == (2, "")
    assert message in result.err and "Traceback" not in result.err


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("model.py", 2, "say which: model.py:NAME"),
        ("model.py:nte", 2, "did you mean 'net'?"),
        ("model.py:net.scael", 2, "did you mean 'scale'?"),
        ("model.py:NeedsSize", 2, "need size"),
        ("model.py:Plain", 2, "is a class, but no stategraph.Node"),
        ("model.py:number", 2, "is a int"),
        ("model.py:add", 2, "takes arguments (x, name)"),
        ("mdoel.py:net", 1, "did you mean 'model.py'?"),
        ("mdoel:net", 1, "there is no module 'mdoel'; did you mean 'model.py'?"),
        ("no/such/model.py:net", 1, "there is no file"),
        ("model.py:crash", 2, "--args"),
    ],
)
def test_targets_that_are_not_there(command: Command, target: str, code: int, message: str) -> None:
    result = command("dump", target)
    assert (result.code, result.out) == (code, "")
    assert message in result.err and "Traceback" not in result.err


def test_without_a_name_the_file_tells_what_there_is(command: Command) -> None:
    listed = command("dump", "model.py").err
    assert "net         model (xs) with example_args" in listed
    assert "add         jitted function (x, name)" in listed
    assert "NeedsSize" not in listed and "Plain" not in listed


def test_an_error_of_the_model_names_the_users_lines_without_a_traceback(command: Command) -> None:
    result = command("dump", "model.py:crash", "--args", "f32[3]")
    assert result.code == 1
    assert (
        f"model.py:{line_of('return neighbour')} (crash)" in result.err
        and "neighbour.py:5 (crash)" in result.err
    )
    assert "Traceback" not in result.err
    assert "Traceback" in command("dump", "model.py:crash", "--args", "f32[3]", "--traceback").err


def test_files_that_cannot_be_imported(command: Command, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("x = 1\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("x = = 1\n")
    (tmp_path / "relative.py").write_text("from . import x\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(4)\n")
    raises = command("dump", "raises.py:f")
    assert raises.code == 1 and "ZeroDivisionError" in raises.err and "raises.py:2" in raises.err
    assert "syntax.py:1" in command("dump", "syntax.py:f").err
    assert "package.module:NAME" in command("dump", "relative.py:f").err
    exits = command("dump", "exits.py:f")
    assert exits.code == 1 and "__main__" in exits.err


def test_the_file_is_imported_under_its_own_name_and_not_as_main(command: Command, tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(
        "if __name__ == '__main__':\n    1 / 0\ndef f():\n    assert __name__ == 'named'\n"
    )
    assert command("dump", "named.py:f").code == 0


def test_a_pipeline_of_ones_own(command: Command, files: Path) -> None:
    result = command(
        "dump",
        "model.py:net",
        "--load",
        "my_passes.py",
        "--passes",
        "cli-count-writes{factor=2},default",
        "--explain",
    )
    assert result.code == 0 and "writes State (writes = 2)" in result.err
    misspelt = command("dump", "model.py:net", "--passes", "default,dec")
    assert misspelt.code == 1 and "did you mean 'dce'?" in misspelt.err
    cut = command("dump", "model.py:net", "--passes", "cse", "--stage", "hoisted")
    assert cut.code == 2 and "has no eliminate-local-state" in cut.err


def test_a_jitted_function_keeps_its_passes_and_exactness_unless_told_otherwise(command: Command) -> None:
    line = ("dump", "model.py:own_passes", "--args", "f32[]", "--timing")
    timed = [row.split()[0] for row in command(*line).err.splitlines() if row]
    assert timed.index("cse") < timed.index("inline-calls")
    timed = [
        row.split()[0]
        for row in command(*line, "--passes", "dce", "--exactness", "fast-math").err.splitlines()
        if row
    ]
    assert "dce" in timed and "cse" not in timed


def test_an_error_in_a_users_pass_names_its_line(command: Command, files: Path) -> None:
    result = command("dump", "model.py:net", "--load", "my_passes.py", "--passes", "cli-broken")
    assert result.code == 1
    assert "my_passes.py:14 (cli_broken)" in result.err and "while running pass cli-broken" in result.err


def test_other_platforms(command: Command) -> None:
    result = command("dump", "model.py:net", "--stage", "stablehlo", "--platform", "cuda,tpu")
    assert result.code == 0 and "stablehlo.while" in result.out
    assert (
        "did you mean 'cuda'?"
        in command("dump", "model.py:net", "--stage", "stablehlo", "--platform", "cida").err
    )
    elsewhere = command("dump", "model.py:net", "--stage", "hlo", "--platform", "tpu")
    assert elsewhere.code == 1 and f"this machine runs {jax.default_backend()}" in elsewhere.err
    assert command("dump", "model.py:net", "--platform", "tpu").code == 2


def test_host_effects_are_refused_for_other_platforms_unless_stripped(command: Command) -> None:
    line = ("dump", "model.py:shout", "--args", "f32[3]", "--stage", "stablehlo", "--platform", "tpu")
    refused = command(*line)
    assert (
        refused.code == 1
        and "host.debug_print" in refused.err
        and f"model.py:{line_of('jax.debug.print')}" in refused.err
        and "--strip-host-effects" in refused.err
    )
    assert command(*line, "--strip-host-effects").code == 0


def test_misspelt_options_and_stages_get_suggestions(command: Command) -> None:
    assert "did you mean 'optimized'?" in command("dump", "model.py:net", "--stage", "optimised").err
    assert "did you mean '--stage'?" in command("dump", "model.py:net", "--stge", "traced").err
    assert "did you mean 'dump'?" in command("dmp").err
    assert command().code == 2


def test_help_is_not_an_error(command: Command) -> None:
    for words in ((), ("dump",), ("explain",), ("opt",), ("verify",), ("run",), ("passes",)):
        result = command(*words, "--help")
        assert result.code == 0 and "exit codes" in result.out and result.err == ""


def test_timing_shows_passes_and_stages(command: Command) -> None:
    err = command("dump", "model.py:net", "--timing", "--stage", "hlo").err
    assert all(word in err for word in ("hoist-state", "trace", "emit", "lower", "compile"))


def test_explain_prints_a_table_of_decisions(command: Command) -> None:
    text = command("explain", "model.py:net")
    head, line, *rows = text.out.splitlines()
    assert text.code == 0 and head.split() == ["place", "what", "decision", "by", "figures"]
    begin = head.index("what")
    assert line[begin - 2 : begin] == "  "
    (carried,) = [
        i for i, row in enumerate(rows) if row[begin:].startswith("@h") and "is carried by flow.scan" in row
    ]
    assert "hoist-state" in rows[carried] and rows[carried + 1].startswith("    because ")
    found = json.loads(command("explain", "model.py:net", "--format", "json").out)
    assert {"pass", "subject", "location", "decision", "reason", "numbers", "advice"} == set(found[0])


def test_explain_can_be_limited_and_written_to_a_file(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    assert command("explain", "model.py:net", "--only", "hoist-state", "--json", "-o", str(file)).code == 0
    assert {record["pass"] for record in json.loads(file.read_text())} == {"hoist-state"}
    wrong = command("explain", "model.py:net", "--only", "hoist-sate")
    assert wrong.code == 2 and "did you mean 'hoist-state'" in wrong.err


@pytest.mark.for_cpus
def test_spikes_and_their_products_have_a_stage(command: Command, tmp_path: Path) -> None:
    (tmp_path / "snn.py").write_text(
        "import stategraph as sg\n\n\ndef send(x, w):\n    return sg.surrogate.sigmoid(x) @ w\n"
    )
    line = (f"{tmp_path}/snn.py:send", "--args", "f32[1000], f32[1000,1000]")
    text = command("dump", *line, "--stage", "events").out
    assert ": event<f32[1000]>" in text and "event.dense" in text
    told = command("explain", *line, "--only", "rewrite-events").out
    assert "became event.dense" in told and "rate=0.01" in told and "sg.event.declare" in told
    for platform, why in (("cuda", "if the guess is wrong"), ("tpu", "on tpu a matrix is multiplied whole")):
        elsewhere = command("explain", *line, "--only", "rewrite-events", "--platform", platform).out
        assert "stays as it is" in elsewhere and why in elsewhere


def test_a_bug_of_ours_has_its_own_exit_code(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from stategraph.cli import dump

    def broken(*_: object) -> None:
        raise RuntimeError("oh no")

    monkeypatch.setattr(dump, "trace_target", broken)
    monkeypatch.setattr("stategraph.cli.console.is_user_file", lambda name: False)
    result = command("dump", "model.py:net")
    assert (
        result.code == 3 and "internal error: RuntimeError: oh no" in result.err and "report it" in result.err
    )


def test_a_closed_pipe_is_silent(command: Command, tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(
        "def f(x):\n    for _ in range(3000):\n        x = x + 1\n    return x\n"
    )
    line = f"{sys.executable} -m stategraph dump long.py:f --args 'f32[]' --stage traced; echo $? >&2"
    found = subprocess.run(
        ["sh", "-c", f"({line}) | head -1"],
        cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.stdout == "stategraph 1\n"
    assert found.stderr == "141\n"


def test_colours_only_on_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\033" not in command("dump", "model.py:net").out
    monkeypatch.setattr("stategraph.cli.console.has_colours", lambda stream: True)
    assert "\033" in command("dump", "model.py:net").out
