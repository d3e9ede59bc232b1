"""Where passes are found by name: the built-in ones, those registered in this process, and those of installed
packages.

Nothing is imported before it is asked for. Built-in passes live in the module that is called like them; a
package offers passes through entry points of the group ``stategraph.passes``, whose name is the pass's name
and whose object is a pass class or a registered function:

    [project.entry-points."stategraph.passes"]
    my-pass = "my_package.passes:MyPass"
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import typing
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, overload

import attrs

from stategraph.ir.core import Program
from stategraph.passes.base import SCALARS, Pass, PassError, check_exactness, options_of
from stategraph.passes.context import Context

GROUP = "stategraph.passes"

BUILTIN = (
    "check-weights",
    "lower-checks",
    "inline-calls",
    "hoist-state",
    "forward-state",
    "eliminate-local-state",
    "infer-events",
    "rewrite-events",
    "expand-transforms",
    "simplify-branches",
    "simplify-loops",
    "fold-constants",
    "algebra",
    "cse",
    "licm",
    "batch-loops",
    "derive-outputs",
    "dce",
    "accumulate-events",
    "outline-native",
    "outline-recording",
)
"""The passes of this package; ``fold-constants`` lives in the module ``fold_constants``."""

F = TypeVar("F", bound=Callable[..., Any])
_PASSES: dict[str, type[Pass]] = {}
_MARK = "__stategraph_pass__"


@overload
def register(target: F, /) -> F: ...
@overload
def register(*, name: str | None = None, exactness: str = "exact") -> Callable[[F], F]: ...
def register(target: Any = None, /, *, name: str | None = None, exactness: str | None = None) -> Any:
    """Make a pass known by its name: a decorator for pass classes and for functions.

    A function takes ``(program)`` or ``(program, context)``, and options as further parameters with defaults.
    It is called like the function, with dashes, unless ``name`` says otherwise; it stays a plain function.
    The same definition may be registered again (a notebook cell that is re-run); another one under a taken
    name is a ``PassError``.

        @register
        def count_ops(program, context):
            context.report(program.name, "counted", ops=sum(1 for _ in program.walk()))
    """
    if target is None:
        return functools.partial(_register, name=name, exactness=exactness)
    return _register(target, name, exactness)


def _register(target: Any, name: str | None, exactness: str | None) -> Any:
    if isinstance(target, type):
        if not issubclass(target, Pass):
            raise PassError(f"{target.__name__} is no pass: derive it from stategraph.passes.Pass")
        if name is not None or exactness is not None:
            raise PassError(f"{target.__name__} is a class: write name and exactness in its body")
        cls = target
    elif callable(target):
        cls = _class_of(target, name, exactness or "exact")
        setattr(target, _MARK, cls)
    else:
        raise PassError(f"a pass is a class or a function, not {target!r}")
    _add(cls)
    return target


def pass_of(target: object) -> type[Pass] | None:
    """The pass class that a registered function, or a class, stands for."""
    if isinstance(target, type) and issubclass(target, Pass):
        return target
    found: type[Pass] | None = getattr(target, _MARK, None)
    return found


def lookup(name: str) -> type[Pass]:
    """The pass of this name. Raises ``PassError`` with the closest name when there is none."""
    found = _PASSES.get(name) or _import_builtin(name) or _import_plugin(name)
    if found is None:
        raise PassError(_unknown(name))
    return found


def names() -> list[str]:
    """The names of all passes, in alphabetical order. Loads nothing."""
    return sorted({*BUILTIN, *_PASSES, *(point.name for point in _entry_points())})


def available() -> list[type[Pass]]:
    """All passes that can be loaded, by name. A broken plugin is skipped with a warning."""
    found = []
    for name in names():
        try:
            found.append(lookup(name))
        except PassError:
            continue  # _import_plugin has warned
    return found


def origin(cls: type[Pass]) -> str:
    """Where a pass comes from: ``built in``, or the module or file that defines it."""
    if cls.__module__.startswith(__package__ or "stategraph.passes"):
        return "built in"
    module = sys.modules.get(cls.__module__)
    if cls.__module__.startswith(_LOADED) and module is not None and module.__file__:
        return module.__file__
    return cls.__module__


_LOADED = "stategraph_loaded_"


def load_file(path: str | Path) -> list[type[Pass]]:
    """Import a Python file and return the passes that it registers. Raises ``PassError`` when it cannot be
    imported.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise PassError(f"no such file: {path}")
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:8]
    module_name = f"{_LOADED}{file.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise PassError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise PassError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return [cls for cls in _PASSES.values() if cls.__module__ == module_name]


def closest(name: str, candidates: Iterable[str]) -> str:
    """``; did you mean 'dce'?`` for a misspelt name, or nothing."""
    found = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def _unknown(name: str) -> str:
    known = names()
    return f"there is no pass {name!r}{closest(name, known)}\n  passes: {', '.join(known)}"


def _add(cls: type[Pass]) -> None:
    if not cls.name or any(character in cls.name for character in " ,{}=()"):
        spelt = f"such as name = 'my-pass', not {cls.name!r}"
        raise PassError(f"{cls.__name__} needs a name that a pipeline can spell, {spelt}")
    if cls.name == "default":
        raise PassError("'default' is the name of the default pipeline")
    check_exactness(cls.exactness)
    options_of(cls)
    old = _PASSES.get(cls.name)
    if old is not None and _definition(old) != _definition(cls):
        raise PassError(f"the pass name {cls.name!r} is taken by {old.__module__}.{old.__qualname__}")
    if cls.name in BUILTIN and cls.__module__ != _module_of(cls.name):
        raise PassError(f"the pass name {cls.name!r} is taken by a built-in pass")
    _PASSES[cls.name] = cls


def _definition(cls: type[Pass]) -> tuple[str, str]:
    """What makes two registrations the same: the file (a module may be loaded under two names) and the name
    in it.
    """
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return (file or cls.__module__, cls.__qualname__)


def _module_of(name: str) -> str:
    return f"stategraph.passes.{name.replace('-', '_')}"


def _import_builtin(name: str) -> type[Pass] | None:
    if name in BUILTIN:
        importlib.import_module(_module_of(name))
    return _PASSES.get(name)


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group=GROUP))


def _import_plugin(name: str) -> type[Pass] | None:
    for point in _entry_points():
        if point.name != name:
            continue
        try:
            found = point.load()
            cls = pass_of(found)
            if cls is None:
                cls = _class_of(found, name, "exact")
            if cls.name != name:
                raise PassError(f"its pass is called {cls.name!r}")
            _add(cls)
        except Exception as error:  # a plugin may fail in any way, and must not take the tool with it
            warnings.warn(
                f"the pass {name!r} of {point.value} cannot be loaded: {type(error).__name__}: {error}",
                stacklevel=3,
            )
            continue
        return cls
    return None


def _class_of(function: Callable[..., Any], name: str | None, exactness: str) -> type[Pass]:
    """A pass class that calls ``function``; its parameters after program and context are the options."""
    if not callable(function):
        raise PassError(f"{function!r} is neither a pass class nor a function")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].default is not parameters[0].empty:
        raise PassError(f"{function.__name__} must take the program as its first argument")
    with_context = len(parameters) > 1 and parameters[1].default is parameters[1].empty
    options = parameters[1 + with_context :]
    try:
        hints = typing.get_type_hints(function)
    except NameError:
        hints = {}
    fields: dict[str, Any] = {}
    for option in options:
        if option.default is option.empty:
            raise PassError(f"option {option.name!r} of {function.__name__} needs a default value")
        guess = type(option.default) if type(option.default) in SCALARS else None
        fields[option.name] = attrs.field(default=option.default, type=hints.get(option.name, guess))

    def run(self: Pass, program: Program, context: Context) -> None:
        given = {name: getattr(self, name) for name in fields}
        return function(program, context, **given) if with_context else function(program, **given)  # type: ignore[no-any-return]

    body = {
        "name": name or function.__name__.replace("_", "-"),
        "exactness": exactness,
        "run": run,
        "__doc__": function.__doc__,
        "__qualname__": function.__qualname__,
    }
    made: type[Pass] = attrs.make_class(
        function.__name__, fields, bases=(Pass,), class_body=body, frozen=True
    )
    made.__module__ = function.__module__
    return made
