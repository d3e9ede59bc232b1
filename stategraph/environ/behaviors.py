"""Functions that are told when a setting changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stategraph.environ.settings import EnvironmentState, of


def register_default_behavior(
    key: str,
    behavior: Callable[[Any], None],
    replace_if_exist: bool = False,
    *,
    env: EnvironmentState | None = None,
) -> None:
    """Call ``behavior(value)`` whenever a setting is given a value: by ``set``, and on entering and leaving a
    ``context``.

    Args:
      key: the name of the setting.
      behavior: a function of its value. After a context it is called with the value from before, if there
        was one.
      replace_if_exist: whether another function may be registered for the setting already; it is forgotten
        then.
      env: another environment than the global one.
    """
    if not callable(behavior):
        raise TypeError(
            f"behavior has to be a function of the setting's value, not a {type(behavior).__name__}"
        )
    functions = of(env).functions
    if key in functions and not replace_if_exist:
        raise ValueError(
            f"a behaviour is registered for {key!r} already; pass replace_if_exist=True to replace it"
        )
    functions[key] = behavior


def unregister_default_behavior(key: str, *, env: EnvironmentState | None = None) -> bool:
    """Forget the function that is registered for a setting; whether there was one."""
    return of(env).functions.pop(key, None) is not None


def list_registered_behaviors(*, env: EnvironmentState | None = None) -> list[str]:
    """The names of the settings for which a function is registered."""
    return sorted(of(env).functions)
