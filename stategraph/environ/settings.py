"""Settings by name: global ones, and those of ``with`` blocks.

An ``EnvironmentState`` holds *global* settings, shared by all threads, and for each thread a stack of
*frames*, one for every setting of every open ``context``. A lookup takes the innermost frame, then the global
setting, then a default that is computed (precision, platform).

What compiled functions notice: a lookup while tracing is recorded as a dependency of the program, unless
  the frame was opened inside that
trace, and a change of a setting that some program depends on moves ``EPOCHS.structure``.
"""

from __future__ import annotations

import builtins
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from stategraph import _jax
from stategraph.environ.fingerprint import MISSING, fingerprint, holds_tracer, same
from stategraph.errors import PickleError, StateGraphError, TraceError, describe
from stategraph.recording import EPOCHS, LOCAL, Recorder
from stategraph.state import RUNTIME_LOCK

I = "i"  # noqa: E741
"""The number of the current step."""
T = "t"
"""The current time."""
DT = "dt"
"""The time step."""
FIT = "fit"
"""Whether the model is being trained."""
PRECISION = "precision"
"""Bits of the default dtypes."""
PLATFORM = "platform"
"""Where arrays live and programs run."""
HOST_DEVICE_COUNT = "host_device_count"
"""How many devices the CPU counts as."""
JIT_ERROR_CHECK = "jit_error_check"
"""Whether runtime checks are part of compiled programs."""


class EnvironError(StateGraphError, KeyError):
    """A setting that is not set."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


@attrs.frozen(eq=False)
class Frame:
    """One setting of one open context."""

    value: Any
    recorder: Recorder | None
    """The trace in which the context was opened."""


@attrs.frozen(eq=False)
class Special:
    """A setting that does something: ``precision``, ``platform``, ``host_device_count``."""

    default: Callable[[], Any]
    """The value when it is not set."""
    check: Callable[[Any], Any]
    """The value as it is kept; raises for one that is not possible."""
    apply: Callable[[Any], None]
    """What a global change does; ``MISSING`` for what was removed."""
    inside: Callable[[Any], contextlib.AbstractContextManager[Any]] | None = None
    """What a context does; None when the setting is for the whole process."""


SPECIAL: dict[str, Special] = {}
"""Filled by ``precisions`` and ``platforms``."""


class EnvironmentState:
    """A set of settings. There is one for everybody; make another and pass it as ``env=`` to keep settings
    apart.

    Args:
      settings: values to begin with, by name.
      functions: what is called when a setting changes, by its name, with the values to begin with too; see
        ``register_default_behavior``.

    Contexts are opened by ``context(..., env=)``, and belong to a thread. There are no locks to hand over.

    Example:

    >>> from stategraph import environ
    >>> fine = environ.EnvironmentState({"dt": 0.01})
    >>> environ.get("dt", env=fine)
    0.01
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        functions: Mapping[str, Callable[[Any], None]] | None = None,
    ) -> None:
        self.settings: dict[str, Any] = {}
        """Global settings."""
        self.functions: dict[str, Callable[[Any], None]] = dict(functions or {})
        """What is called when a setting changes."""
        self._thread = threading.local()
        self._followed: builtins.set[str | None] = builtins.set()
        """The settings that some program depends on; None for which settings there are."""
        self.give(settings or {})

    @property
    def contexts(self) -> dict[str, list[Frame]]:
        """The frames of this thread by key, innermost last."""
        try:
            found: dict[str, list[Frame]] = self._thread.frames
        except AttributeError:
            found = self._thread.frames = {}
        return found

    def __reduce__(self) -> str:
        """Pickled and copied by name: settings belong to a process, and to its threads."""
        if self is GLOBAL:
            return "GLOBAL"
        raise PickleError(
            describe(
                "An EnvironmentState cannot be pickled or copied.",
                why="it belongs to this process, and what it holds differs between threads",
                fix="set(..., env=...) in a new one, or the settings of everybody, without env=",
            )
        )

    def __repr__(self) -> str:
        settings = {**self.settings, **{key: frames[-1].value for key, frames in self.contexts.items()}}
        return f"EnvironmentState({', '.join(f'{key}={value!r}' for key, value in sorted(settings.items()))})"

    # ------------------------------------------------------------------------------------------------ reading

    def current(self, key: str) -> Any:
        """The value of a setting for this thread, ``MISSING`` for none. Records nothing."""
        value = self._kept(key)
        return SPECIAL[key].default() if value is MISSING and key in SPECIAL else value

    def _kept(self, key: str) -> Any:
        """``current`` without defaults: asking for the platform starts JAX."""
        frames = self.contexts.get(key)
        return frames[-1].value if frames else self.settings.get(key, MISSING)

    def lookup(self, key: str) -> Any:
        """``current``, as code does it that may be traced: the program then depends on the value."""
        recorder = LOCAL.recorder
        value = self.current(key)
        if recorder is not None:
            frames = self.contexts.get(key)
            if not frames or frames[-1].recorder is not recorder:
                self._depend(recorder, key)
        return value

    def _depend(self, recorder: Recorder, key: str | None) -> None:
        if ("environ", id(self), key) not in recorder.settings:
            read = Reading(self, key, recorder.number)
            recorder.depends_on(("environ", id(self), key), read, read())

    def names(self) -> list[str]:
        """The names of all settings that have a value for this thread."""
        recorder = LOCAL.recorder
        if recorder is not None:
            self._depend(recorder, None)
        return self._names()

    def _names(self, without: int | None = None) -> list[str]:
        """The names; without contexts in the trace of that number, which its program does not depend on."""
        given = (
            key
            for key, frames in self.contexts.items()
            if any(frame.recorder is None or frame.recorder.number != without for frame in frames)
        )
        return sorted({*self.settings, *given, PRECISION})

    # ----------------------------------------------------------------------------------------------- changing

    @contextlib.contextmanager
    def changing(self, key: str) -> Iterator[None]:
        """Around a change of a setting: programs and traces in progress notice when it is one."""
        before = fingerprint(self._kept(key))
        yield
        after = fingerprint(self._kept(key))
        if same(before, after):
            return
        recorder = LOCAL.recorder
        appeared = (before is MISSING) != (after is MISSING)
        if recorder is not None:
            recorder.advance()
        elif key in self._followed or (appeared and None in self._followed):
            with RUNTIME_LOCK:
                EPOCHS.moved()

    def give(self, settings: Mapping[str, Any]) -> None:
        """Give global settings values. Raises ``TraceError`` for a traced value, before anything changes."""
        for key, value in settings.items():
            if holds_tracer(value):
                raise TraceError(
                    describe(
                        f"A traced value cannot be the global setting {key!r}.",
                        at=_jax.here(),
                        why="it exists only while this function is traced, and the setting would outlive it",
                        fix=f"with stategraph.environ.context({key}={key}): ...",
                    )
                )
        checked = {
            key: SPECIAL[key].check(value) if key in SPECIAL else value for key, value in settings.items()
        }
        for key, value in checked.items():
            with self.changing(key):
                if key in SPECIAL:
                    SPECIAL[key].apply(value)
                self.settings[key] = value
            self.call_behavior(key)

    def call_behavior(self, key: str) -> None:
        """Tell the function that is registered for a setting, if any, its value."""
        behavior = self.functions.get(key)
        if behavior is None:
            return
        value = self.current(key)
        if value is not MISSING:
            behavior(value)


GLOBAL = EnvironmentState()


class Reading:
    """What a program depends on: the value of a setting, or which settings there are."""

    def __init__(self, env: EnvironmentState, key: str | None, trace: int) -> None:
        self.env = env
        self.key = key
        self.trace = trace  # its number and not the recorder: programs keep this
        env._followed.add(key)

    def __call__(self) -> Any:
        if self.key is None:
            return ",".join(self.env._names(without=self.trace))
        return fingerprint(self.env.current(self.key))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reads its own settings, and a trace of this one has no contexts there."""
        return (Reading, (self.env, self.key, -1))


def of(env: EnvironmentState | None) -> EnvironmentState:
    """The environment that ``env=`` means."""
    return GLOBAL if env is None else env


class Settings(Mapping[str, Any]):
    """What ``with environ.context(...) as settings`` gives: all settings, looked up when asked for."""

    def __init__(self, env: EnvironmentState) -> None:
        self._env = env

    def __getitem__(self, key: str) -> Any:
        value = self._env.lookup(key)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._env.names())

    def __len__(self) -> int:
        return len(self._env.names())

    def __repr__(self) -> str:
        return repr(dict(self))


# ---------------------------------------------------------------------------------------------- for everybody

_NO_DEFAULT: Any = object()


def get(
    key: str, default: Any = _NO_DEFAULT, desc: str | None = None, *, env: EnvironmentState | None = None
) -> Any:
    """The value of a setting.

    Args:
      key: its name, for example ``"dt"``.
      default: what to return when it is not set; without it that is an error.
      desc: what the setting is, for the message of the error.
      env: another environment than the global one.

    Raises:
      EnvironError: (a ``KeyError``) when the setting is not set and there is no default.
    """
    value = of(env).lookup(key)
    if value is not MISSING:
        return value
    if default is not _NO_DEFAULT:
        return default
    example = _EXAMPLES.get(key, "...")
    raise EnvironError(
        describe(
            f"The setting {key!r}{f' ({desc})' if desc else ''} is not set.",
            at=_jax.here(),
            why=f"set are: {', '.join(of(env)._names())}",
            fix=f"stategraph.environ.set({key}={example}), "
            f"or `with stategraph.environ.context({key}={example}):` around the code",
        )
    )


_EXAMPLES = {DT: "0.1", T: "0.0", I: "0", FIT: "True", JIT_ERROR_CHECK: "True"}


def get_dt(*, env: EnvironmentState | None = None) -> Any:
    """The time step ``dt``."""
    return get(DT, desc="the time step", env=env)


def all(*, env: EnvironmentState | None = None) -> dict[str, Any]:
    """All settings that have a value, by name."""
    return dict(Settings(of(env)))


def set(
    platform: str | None = None,
    host_device_count: int | None = None,
    precision: int | str | None = None,
    dt: Any = None,
    *,
    env: EnvironmentState | None = None,
    **kwargs: Any,
) -> None:
    """Give settings a value, for all threads, until they are set again.

    In traced code this happens once, while the code is traced, like any other side effect of Python.

    Args:
      platform: ``"cpu"``, ``"gpu"`` (``"cuda"``, ``"rocm"``), ``"tpu"``: see ``set_platform``.
      host_device_count: how many devices the CPU counts as: see ``set_host_device_count``.
      precision: 16, 32, 64 or ``"bf16"``: see ``set_precision``.
      dt: the time step.
      env: another environment than the global one.
      **kwargs: any other setting.

    Raises:
      TraceError: for a traced value; put it into a ``context``.
    """
    named = {HOST_DEVICE_COUNT: host_device_count, PLATFORM: platform, PRECISION: precision, DT: dt}
    of(env).give({**{key: value for key, value in named.items() if value is not None}, **kwargs})


@contextlib.contextmanager
def context(*, env: EnvironmentState | None = None, **kwargs: Any) -> Iterator[Settings]:
    """Settings for the block: ``with environ.context(dt=0.1, t=t): ...``. Blocks nest; other threads do not
    see them.

    Inside of traced code the values may be traced values: the time of a step, the counter of a loop.

    Args:
      env: another environment than the global one.
      **kwargs: the settings. ``platform`` and ``host_device_count`` are for the whole process and cannot be
      among them.
    """
    environment = of(env)
    for key in kwargs:
        if key in SPECIAL and SPECIAL[key].inside is None:
            raise ValueError(
                f"{key} holds for the whole process, not for a block; use stategraph.environ.set({key}=...)"
            )
    values = {key: SPECIAL[key].check(value) if key in SPECIAL else value for key, value in kwargs.items()}
    frames = environment.contexts
    with contextlib.ExitStack() as stack:
        for key, value in values.items():
            special = SPECIAL.get(key)
            with environment.changing(key):
                if special is not None and special.inside is not None:
                    stack.enter_context(special.inside(value))
                frames.setdefault(key, []).append(Frame(value, LOCAL.recorder))
            stack.callback(_leave, environment, frames, key)
            environment.call_behavior(key)
        yield Settings(environment)


def _leave(environment: EnvironmentState, frames: dict[str, list[Frame]], key: str) -> None:
    with environment.changing(key):
        frames[key].pop()
        if not frames[key]:
            del frames[key]
    environment.call_behavior(key)


def pop(key: str, default: Any = _NO_DEFAULT, *, env: EnvironmentState | None = None) -> Any:
    """Remove a global setting and return its value. Settings of open contexts are not touched: popping one is
    an error.
    """
    environment = of(env)
    if environment.contexts.get(key):
        raise ValueError(f"{key!r} belongs to an open context; it goes when its `with` block ends")
    if key not in environment.settings:
        if default is _NO_DEFAULT:
            raise EnvironError(
                describe(
                    f"The setting {key!r} is not set.", why=f"set are: {', '.join(environment._names())}"
                )
            )
        return default
    with environment.changing(key):
        value = environment.settings.pop(key)
        if key in SPECIAL:
            SPECIAL[key].apply(MISSING)
    return value


def reset(*, env: EnvironmentState | None = None) -> None:
    """Remove all global settings. Registered behaviours and open contexts stay."""
    environment = of(env)
    for key in [*environment.settings]:
        with environment.changing(key):
            environment.settings.pop(key, None)
            if key in SPECIAL:
                SPECIAL[key].apply(MISSING)
