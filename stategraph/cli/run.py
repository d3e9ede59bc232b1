"""``stategraph run``: a program's text in the reference interpreter."""

from __future__ import annotations

from typing import Any

from stategraph.cli.console import OK, CommandError, suggestion
from stategraph.cli.output import read_program
from stategraph.ir.types import KeyType, Type


def run(options: Any) -> int:
    import numpy as np

    from stategraph.backends import reference
    from stategraph.backends.reference_compare import random_sample

    program = read_program(options.file)
    sample = random_sample(program, options.seed)
    given = _load(options.inputs) if options.inputs else {}
    names = [name for name in program.argument_names if name not in program.captured]
    states = {path: symbol for path, symbol in program.states.items() if not symbol.born}
    known = [
        *program.argument_names,
        *(leaf for path, symbol in states.items() for leaf in _leaf_names(path, len(symbol.types))),
    ]
    for name in given:
        if name not in known:
            raise CommandError(
                f"{options.inputs} has {name!r}, which is no input of "
                f"@{program.name}{suggestion(name, known)}",
                f"inputs: {', '.join(known)}",
            )
    arguments = [
        _value(given.get(name), arg.type, name, value)
        for name, arg, value in zip(names, program.arguments, sample.arguments, strict=True)
    ]
    captured = {
        name: _value(given[name], arg.type, name, None)
        for name, arg in zip(program.captured, program.captured_args, strict=True)
        if name in given
    }
    leaves = {}
    for path, symbol in states.items():
        start = symbol.initial if symbol.initial is not None else sample.states[path]
        wanted = zip(_leaf_names(path, len(symbol.types)), symbol.types, start, strict=True)
        leaves[path] = tuple(_value(given.get(name), type, name, value) for name, type, value in wanted)
    results, after = reference.run(program, arguments, leaves, captured=captured)
    found = dict(zip(program.result_names, results, strict=True))
    for path, values in after.items():
        found |= dict(zip(_leaf_names(path, len(values)), values, strict=True))
    for name, value in found.items():
        print(f"{name} = {_text(value)}")
    if options.output:
        plain = {name: np.asarray(_data(value)) for name, value in found.items()}
        try:
            np.savez(options.output, **plain)  # type: ignore[arg-type]
        except OSError as error:
            raise CommandError(f"cannot write {options.output!r}: {error.strerror}") from error
    return OK


def _leaf_names(path: str, count: int) -> list[str]:
    return [f"@{path}"] if count == 1 else [f"@{path}.{i}" for i in range(count)]


def _load(file: str) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise CommandError(f"cannot read {file!r}: {error.strerror or error}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise CommandError(f"{file!r} is no .npz file: {error}") from error


def _value(given: Any, type: Type, name: str, otherwise: Any) -> Any:
    """A given array as the program wants it, else ``otherwise``."""
    if given is None:
        return otherwise
    import jax.numpy as jnp

    from stategraph import _jax
    from stategraph.tracing.portable import from_raw

    if isinstance(type, KeyType):
        return from_raw(jnp.asarray(given), type)
    aval = _jax.aval_of(type)
    if tuple(given.shape) != tuple(aval.shape):
        raise CommandError(
            f"{name} is a {type} in the program, and an array of shape {list(given.shape)} was given"
        )
    return jnp.asarray(given, aval.dtype)


def _data(value: Any) -> Any:
    import jax

    from stategraph import _jax

    return jax.random.key_data(value) if _jax.is_key_array(value) else value


def _text(value: Any) -> str:
    import numpy as np

    from stategraph import _jax

    type = _jax.type_of(_jax.strong_aval(value))
    return f"{np.array2string(np.asarray(_data(value)), separator=', ', threshold=64)} : {type}"
