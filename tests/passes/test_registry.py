"""Where passes are found: registered here, in a file, in another installed package."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

import attrs
import pytest

from stategraph import ir, passes
from stategraph.passes import Pass, PassError, load_file, lookup, names, register, run_passes

PLUGIN = Path(__file__).parents[1] / "plugin_package"
PROGRAM = """stategraph 1
program @p(%x : f32[]) -> (out : f32[]) {
  host.debug_print %x {fmt = "{}", ordered = false}
  host.debug_print %x {fmt = "{}", ordered = true}
  flow.yield %x
}
"""


def test_a_function_becomes_a_pass_with_options_and_stays_a_function() -> None:
    seen = []

    @register
    def test_note_calls(program, context, times: int = 1, label="x"):  # type: ignore[no-untyped-def]
        """Note the call."""
        seen.append((times, label))

    run_passes(ir.parse(PROGRAM), "test-note-calls,test-note-calls{times=2 label=y}")
    test_note_calls(None, None, times=3)
    assert seen == [(1, "x"), (2, "y"), (3, "x")]
    assert lookup("test-note-calls").summary() == "Note the call."


def test_a_function_may_take_only_the_program() -> None:
    @register(name="test-program-only")
    def anything(program: ir.Program) -> None:
        program.attributes["seen"] = True

    assert run_passes(ir.parse(PROGRAM), "test-program-only").program.attributes == {"seen": True}


def test_the_same_definition_may_be_registered_again_but_another_may_not_take_its_name() -> None:
    def define() -> None:
        @register(name="test-again")
        def again(program: ir.Program) -> None:
            pass

    define()
    define()
    with pytest.raises(PassError, match=r"'test-again' is taken by .*define.<locals>.again"):

        @register(name="test-again")
        def other(program: ir.Program) -> None:
            pass

    with pytest.raises(PassError, match="'dce' is taken"):

        @register(name="dce")
        def mine(program: ir.Program) -> None:
            pass


def test_definitions_that_no_pipeline_could_use_are_refused() -> None:
    with pytest.raises(PassError, match="must take the program"):
        register(lambda: None)
    with pytest.raises(PassError, match="no plain default"):

        @register
        @attrs.frozen
        class NoDefault(Pass):
            name = "test-no-default"
            x: int

    with pytest.raises(PassError, match="has type"):

        @register
        @attrs.frozen
        class Odd(Pass):
            name = "test-odd"
            x: dict[str, int] = None  # type: ignore[assignment]

    with pytest.raises(PassError, match=r"put @attrs.frozen between @register and it"):

        @register
        class Plain(Pass):
            name = "test-plain"
            x: int = 1

    with pytest.raises(PassError, match="needs a name"):

        @register
        @attrs.frozen
        class Nameless(Pass):
            pass

    with pytest.raises(PassError, match="exactness is one of"):
        register(exactness="roughly")(lambda program: None)
    with pytest.raises(PassError, match="derive it from"):
        register(int)


def test_a_file_of_passes_is_loaded_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from stategraph.passes import register\n"
        "@register\n"
        "def test_from_file(program, context):\n"
        "    context.report(program.name, 'seen', version=VERSION)\n"
        "VERSION = 1\n"
    )
    (loaded,) = load_file(file)
    assert loaded.name == "test-from-file"
    assert passes.origin(loaded) == str(file)
    file.write_text(file.read_text().replace("VERSION = 1", "VERSION = 22"))
    load_file(file)
    (told,) = run_passes(ir.parse(PROGRAM), "test-from-file").explanations
    assert told.numbers == {"version": 22}


def test_a_file_that_cannot_be_loaded_is_an_error_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("1 / 0\n")
    with pytest.raises(PassError, match="ZeroDivisionError"):
        load_file(file)
    with pytest.raises(PassError, match="no such file"):
        load_file(tmp_path / "absent.py")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin package installed into it, as pip leaves it (but at once, and offline)."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PLUGIN / "stategraph_plugin_example", site / "stategraph_plugin_example")
    info = site / f"stategraph_plugin_example-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *_points(points))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def _points(points: dict[str, str]) -> list[str]:
    return [f"{name} = {target}" for name, target in points.items()]


def test_passes_of_another_installed_package_are_found(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    assert {"drop-prints", "report-ops", "never-loads"} <= set(names())
    assert "stategraph_plugin_example" not in sys.modules, "nothing is imported before it is asked for"

    outcome = run_passes(ir.parse(PROGRAM), "drop-prints,report-ops")
    assert [op.attributes["ordered"] for op in outcome.program.walk("host.debug_print")] == [True]
    assert [told.numbers for told in outcome.explanations] == [{"prints": 1}, {"ops": 2}]
    assert passes.origin(lookup("drop-prints")) == "stategraph_plugin_example"


def test_a_broken_plugin_warns_and_does_not_take_the_tool_with_it(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site))
    with pytest.warns(UserWarning, match="'never-loads'.*broken on purpose"):
        found = {cls.name for cls in passes.available()}
    assert {"dce", "drop-prints"} <= found
    with pytest.warns(UserWarning), pytest.raises(PassError, match="there is no pass 'never-loads'"):
        lookup("never-loads")


def test_every_built_in_pass_says_what_it_does() -> None:
    for cls in passes.available():
        if passes.origin(cls) == "built in":
            assert cls.summary() and cls.exactness in passes.EXACTNESS
            assert all(option.summary for option in cls.options()), cls
