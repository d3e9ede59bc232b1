"""What ``FILE.py:NAME`` and ``package.module:NAME`` mean: importing the user's code and finding something to
trace in it.

A *target* is a Node that can be called, a Node class (one is created, and its State initialised), a function, or a jitted
function. NAME may be dotted, ``net.encoder``, ``Net.step``, or an expression in the names of the file: ``Net(100)``,
``nn.init_all_states(Net(100), batch_size=8)``.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from stategraph.cli.console import CommandError, UsageError, blame, suggestion


@attrs.frozen
class Candidate:
    """Something in a module that can be traced."""

    name: str
    kind: str
    """``model``, ``model class``, ``function`` or ``jitted function``."""
    call: str
    """How it is called: ``(x, y)``."""


@contextlib.contextmanager
def user_code() -> Iterator[None]:
    """While the user's code runs, what it prints goes to stderr: stdout is for the dump."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def load_target(spec: str) -> Any:
    """The object that ``FILE.py:NAME`` names, ready to trace. Raises ``UsageError`` with what there is
    instead.
    """
    place, name = split(spec)
    with user_code():
        module = load_module(place)
        if not name:
            raise UsageError(f"{place} has several things to trace; say which: {place}:NAME", listing(module))
        return resolve(module, place, name)


def split(spec: str) -> tuple[str, str]:
    """(file or module, name); the name is empty when there is none."""
    found = re.fullmatch(r"(.+?\.py|[\w.]+):(.+)", spec, re.DOTALL)
    if found is not None and len(found[1]) > 1:  # one letter may be a drive: C:\model.py
        return found[1], found[2]
    place, colon, name = spec.rpartition(":")
    if not colon or re.search(r"[\\/]", name):  # no colon, or only that of C:\model.py
        return spec, ""
    if not place:
        raise UsageError(f"{spec!r} names no file: write FILE.py:NAME or package.module:NAME")
    return place, name


def load_module(place: str) -> types.ModuleType:
    """Import a file or a module. The file's directory (for a module: the working directory) is searched first
    for its imports.
    """
    file = Path(place)
    if place.endswith(".py") or file.is_file():
        return _load_file(file)
    if not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"{place!r} is neither a file that exists nor the name of a module")
    search_first(Path.cwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place == error.name or place.startswith(error.name + ".")):
            raise _cannot_import(place, error) from error
        beside = [path.name for path in Path.cwd().glob("*.py")]
        hint = (
            f"; there is a file {place}.py: write {place}.py:NAME"
            if f"{place}.py" in beside
            else suggestion(f"{place}.py", beside)
        )
        raise CommandError(f"there is no module {place!r}{hint}") from None
    except (Exception, SystemExit) as error:
        raise _cannot_import(place, error) from error


def _load_file(file: Path) -> types.ModuleType:
    if not file.is_file():
        directory = file.parent if file.parent.is_dir() else Path.cwd()
        nearby = [
            str(path.relative_to(directory) if file.parent == Path(".") else path)
            for path in directory.glob("*.py")
        ]
        raise CommandError(f"there is no file {str(file)!r}{suggestion(str(file), nearby)}")
    resolved = file.resolve()
    known = next((m for m in list(sys.modules.values()) if _same_file(m, resolved)), None)
    if known is not None:
        return known
    search_first(resolved.parent)
    name = resolved.stem
    if not name.isidentifier() or name in sys.modules or name == "__main__":
        name = "stategraph_target_" + re.sub(r"\W", "_", name)
    spec = importlib.util.spec_from_loader(name, importlib.machinery.SourceFileLoader(name, str(resolved)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise _cannot_import(str(file), error) from error
    return module


def _same_file(module: Any, file: Path) -> bool:
    found = getattr(module, "__file__", None)
    return found is not None and getattr(module, "__name__", "") != "__main__" and Path(found) == file


def search_first(directory: Path) -> None:
    """Look for modules in this directory before anywhere else."""
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _cannot_import(place: str, error: BaseException) -> CommandError:
    if isinstance(error, SystemExit):
        return CommandError(
            f"{place} ends the process while it is imported (sys.exit)",
            "put what is to happen only when the file is run under `if __name__ == '__main__':`",
        )
    where = blame(error)
    return CommandError(
        f"{place} cannot be imported: {type(error).__name__}: {error}" + (f"\n{where}" if where else ""),
        "a file of a package is named like a module: package.module:NAME"
        if "relative import" in str(error)
        else "",
    )


# ------------------------------------------------------------------------------------------------------ names


def resolve(module: types.ModuleType, place: str, name: str) -> Any:
    """The target of a dotted name, or of an expression, in a module."""
    found: Any = module
    path = place + ":"
    if not all(step.isidentifier() for step in name.split(".")):
        return _checked(_evaluated(module, place, name), module, path + name)
    for i, step in enumerate(name.split(".")):
        if i and _is_node_class(found):
            found = _create(found, path)
        try:
            found = getattr(found, step)
        except AttributeError:
            raise _no_such_name(module, found, path, step) from None
        path += ("." if i else "") + step
    if _is_node_class(found):
        found = _create(found, path)
    return _checked(found, module, path)


def _evaluated(module: types.ModuleType, place: str, text: str) -> Any:
    """The value of an expression in the names of a module; ``sg``, ``nn``, ``jax``, ``jnp`` are known everywhere."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError):
        raise UsageError(
            f"{text!r} is no name: write {place}:NAME, with dots for attributes, or an expression, {place}:Net(3)"
        ) from None
    import jax
    import jax.numpy as jnp

    import stategraph as sg

    names = {"jax": jax, "jnp": jnp, "sg": sg, "stategraph": sg, "nn": sg.nn, **vars(module)}
    try:
        found = eval(compile(tree, "<NAME>", "eval"), names)
        made = isinstance(tree.body, ast.Call) and isinstance(tree.body.func, ast.Name)
        return _initialised(found) if made and _is_node_class(names.get(tree.body.func.id)) else found  # type: ignore[attr-defined]
    except NameError as error:
        hint = suggestion(str(error.name), _public(module))
        raise UsageError(f"{text}: {error}{hint}", listing(module)) from None
    except Exception as error:
        where = blame(error)
        raise CommandError(
            f"{text}: {type(error).__name__}: {error}" + (f"\n{where}" if where else "")
        ) from error


def _no_such_name(module: types.ModuleType, found: Any, path: str, step: str) -> UsageError:
    if found is module:
        candidates = candidates_of(module)
        hint = suggestion(step, [c.name for c in candidates]) or suggestion(step, _public(module))
        return UsageError(f"{path.rstrip(':')} has no {step!r}{hint}", listing(module))
    hint = suggestion(step, _public(found))
    return UsageError(f"{path} (a {type(found).__name__}) has no attribute {step!r}{hint}")


def _checked(found: Any, module: types.ModuleType, path: str) -> Any:
    if _kind(found) is not None:
        return found
    if isinstance(found, type):
        raise UsageError(
            f"{path} is a class, but no stategraph.Node: only models and functions can be traced",
            listing(module),
        )
    if callable(found):
        return found
    what = "a Node without __call__ or update" if _is_node(found) else f"a {type(found).__name__}"
    raise UsageError(f"{path} is {what}: only models and functions can be traced", listing(module))


def _create(cls: type, path: str) -> Any:
    missing = _required(cls)
    if missing:
        raise UsageError(
            f"{path} is a class whose instances need {', '.join(missing)}",
            f"create one: '{path}({', '.join(f'{name}=…' for name in missing)})'",
        )
    return _initialised(cls())


def _initialised(model: Any) -> Any:
    """A model that was created here, with its State: nobody else could initialise it."""
    from stategraph.graph.walk import nodes
    from stategraph.nn.collective import init_all_states
    from stategraph.nn.module import Module

    if not isinstance(model, Module):
        return model
    if any(_required(node.init_state) for node in nodes(model, Module).values()):
        return model
    return init_all_states(model)


def candidates_of(module: types.ModuleType) -> list[Candidate]:
    """What of a module can be traced, in the order of the file."""
    found = []
    for name, value in vars(module).items():
        kind = _kind(value)
        if kind is None or name.startswith("_"):
            continue
        if kind != "model" and getattr(value, "__module__", module.__name__) != module.__name__:
            continue  # imported from elsewhere
        if kind == "model class" and _required(value):
            continue
        found.append(Candidate(name, kind, call_of(value)))
    return found


def listing(module: types.ModuleType) -> str:
    """The candidates of a module as text."""
    found = candidates_of(module)
    name = getattr(module, "__file__", None)
    place = Path(name).name if name else module.__name__
    if not found:
        return f"nothing in {place} can be traced: no model, no model class without arguments, no function"
    width = max(len(c.name) for c in found)
    return f"{place} has\n" + "\n".join(f"  {c.name.ljust(width)}  {c.kind} {c.call}".rstrip() for c in found)


def call_of(target: Any) -> str:
    """How a target is called: ``(x, y)``; ``example_args`` are mentioned."""
    function = target
    if _is_node_class(target) or _is_node(target):
        function = getattr(target, "update", target)
    try:
        parameters = [p for p in inspect.signature(function).parameters if p != "self"]
    except (TypeError, ValueError):
        return ""
    return f"({', '.join(parameters)})" + (" with example_args" if example_args(target) is not None else "")


def example_args(target: Any) -> Any:
    """The arguments that a target offers for tracing, None when it has none."""
    return getattr(target, "example_args", None)


def _kind(value: Any) -> str | None:
    if _is_node_class(value):
        return "model class" if _has_call(value) else None
    if _is_node(value):
        return "model" if callable(value) else None
    if hasattr(value, "__stategraph_function__") and not isinstance(value, type):
        return "jitted function"
    if isinstance(value, (types.FunctionType, types.MethodType)):
        return "function"
    return None


def _has_call(cls: type) -> bool:
    return any("__call__" in vars(base) for base in cls.__mro__)


def _is_node(value: Any) -> bool:
    from stategraph.graph.node import Node

    return isinstance(value, Node)


def _is_node_class(value: Any) -> bool:
    from stategraph.graph.node import Node

    return isinstance(value, type) and issubclass(value, Node)


def _required(function: Any) -> list[str]:
    """The parameters without which a function, or class, cannot be called."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def _public(found: Any) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]
