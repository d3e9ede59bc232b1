"""A stream of keys: the State that random numbers are drawn from.

A draw splits the key in two, keeps the first and draws with the second: ``keys = split(key, 2); key =
  keys[0]; use keys[1]``. Inside a
trace that is a read and a write of State like any other, so that compiled code draws the numbers that eager
code draws.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import jax

from stategraph import _jax
from stategraph.eager_writes import is_writable_here
from stategraph.errors import StateAccessError, TraceError, describe
from stategraph.random.keys import SeedOrKey, advance, advance_compiled, as_key, fresh_seed
from stategraph.random.sampler import Sampler
from stategraph.recording import LOCAL, Recorder
from stategraph.state import RUNTIME_LOCK, Cell, State

_TRACE, _EAGER, _DISABLE_JIT = _jax.TRACE_STATE, _jax.EAGER, _jax.DISABLE_JIT
_FIRST_USE = threading.Lock()


class Stream(State[jax.Array]):
    """A State that holds a random key, and gives keys."""

    def __init__(
        self,
        seed_or_key: SeedOrKey = None,
        name: str | None = None,
        *,
        tag: str | Iterable[str] | None = None,
        **metadata: Any,
    ) -> None:
        key = seed_or_key.value if isinstance(seed_or_key, Stream) else as_key(seed_or_key)
        super().__init__(key, name, tag=tag, **metadata)

    @classmethod
    def deferred(cls, name: str) -> Self:
        """A stream whose key is made at its first use: importing a package must not start JAX."""
        stream = object.__new__(cls)
        stream.name, stream.tag, stream.metadata = name, None, {}
        stream._tree = stream._captured = stream._home = None
        caller = sys._getframe(1)
        stream._source = (caller.f_code, caller.f_lineno)
        stream._seed = fresh_seed()
        return stream

    _backup: tuple[Recorder | None, jax.Array] | None

    def __getattr__(self, name: str) -> Any:
        if name != "_cells":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _FIRST_USE:
            if "_seed" in self.__dict__:  # else another thread was faster
                with _jax.set_trace(_EAGER):
                    self._cells = (Cell(as_key(self._seed)),)
                del self._seed
        return object.__getattribute__(self, "_cells")

    def _extra(self) -> dict[str, Any]:
        return {key: value for key, value in super()._extra().items() if key not in ("_seed", "_backup")}

    # ------------------------------------------------------------------------------------------------ the key

    def seed(self, seed_or_key: SeedOrKey = None) -> None:
        """Start again from a seed: an integer ``n`` means ``jax.random.key(n)``; without one, from the
        operating system's entropy.
        """
        if seed_or_key is None:
            if LOCAL.recorder is not None:
                raise TraceError(
                    describe(
                        f"{self._describe()} is seeded without a seed in traced code.",
                        at=_jax.here(),
                        why="the seed would be chosen once, while tracing, and be the same in every call",
                        fix="seed it outside of the function, or pass a seed or key: seed(n)",
                    )
                )
            seed_or_key = fresh_seed()
        if (
            "_seed" in self.__dict__
            and isinstance(seed_or_key, int)
            and _jax.current_trace() is None
            and LOCAL.recorder is None
        ):
            with _FIRST_USE:
                if "_seed" in self.__dict__:
                    self._seed = seed_or_key
                    return
        self.set_key(seed_or_key)

    def set_key(self, seed_or_key: SeedOrKey) -> None:
        """Draw from this key (or seed) next."""
        if seed_or_key is None:
            raise TypeError("set_key needs a key or a seed")
        self.value = seed_or_key.value if isinstance(seed_or_key, Stream) else as_key(seed_or_key)

    def get_key(self) -> jax.Array:
        """The current key. Drawing with it yourself repeats what the next ``split_key`` starts from;
        ``split_key`` gives a key of your own.
        """
        return self.value

    def get_key_data(self) -> jax.Array:
        """The current key as ``uint32`` numbers."""
        return jax.random.key_data(self.value)

    def split_key(self, n: int | None = None, backup: bool = False) -> jax.Array:
        """A key of your own, or ``n`` of them; the stream goes on with another.

        Args:
          n: how many; None for a single key.
          backup: whether ``restore_key`` shall be able to undo this.
        """
        if backup:
            self.backup_key()
        if n is None:
            return self._step(advance_compiled, advance)
        if n < 0:
            raise ValueError(f"n has to be at least 0, but is {n}")
        return self._step(lambda key: _split_compiled(key, n), lambda key: _split(key, n))

    def split_keys(self, n: int, backup: bool = False) -> jax.Array:
        """``n`` keys of your own, as one array."""
        return self.split_key(n, backup)

    def self_assign_multi_keys(self, n: int, backup: bool = True) -> None:
        """Hold ``n`` keys instead of one, to be split over the lanes of a ``vmap``; ``restore_key`` goes
        back.
        """
        if n < 1:
            raise ValueError(f"n has to be at least 1, but is {n}")
        if backup:
            self.backup_key()
        self.value = self.split_key(n)

    def backup_key(self) -> None:
        """Remember the current key for ``restore_key``."""
        if self.__dict__.get("_backup") is not None:
            raise ValueError("the key has been backed up already; call restore_key() first")
        self._backup = (LOCAL.recorder, self.value)

    def restore_key(self) -> None:
        """Go back to the key that ``backup_key`` (or ``backup=True``) remembered."""
        backup = self.__dict__.get("_backup")
        if backup is None:
            raise ValueError("no key has been backed up; call backup_key(), or split_key(..., backup=True)")
        recorder, key = backup
        if recorder is not None and recorder is not LOCAL.recorder:
            self._backup = None
            raise StateAccessError(
                describe(
                    f"The backup of {self._describe()} was made in a trace, and is gone with it.",
                    at=_jax.here(),
                    fix="restore it in the same function, or use `with rng.seed_context(seed):`",
                )
            )
        self.value = key
        self._backup = None

    @contextlib.contextmanager
    def seed_context(self, seed_or_key: SeedOrKey) -> Iterator[None]:
        """Draw from another seed or key in the block, and go on as if the block had not been afterwards."""
        outside = self.value
        self.set_key(seed_or_key)
        try:
            yield
        finally:
            self.value = outside

    def clone(self) -> Self:
        """An independent stream, from a key of this one."""
        return type(self)(self.split_key())

    def fork(self, n: int) -> list[Self]:
        """``n`` independent streams."""
        keys = self.split_key(n)
        return [type(self)(keys[i]) for i in range(n)]

    # ------------------------------------------------------------------------------------------------ drawing

    def _draw(self, sampler: Sampler, static: Any, parameters: tuple[Any, ...], key: SeedOrKey) -> jax.Array:
        """One sample, with ``key`` if there is one, else with the stream's next."""
        if key is not None:
            sample: jax.Array = sampler.function(as_key(key), static, *parameters)
            return sample
        if _TRACE.value is _EAGER and LOCAL.recorder is None and not _DISABLE_JIT.value:
            with RUNTIME_LOCK:
                following, sample = sampler.eager(self.value, static, parameters)
                self._assign(following)
            return sample
        return self._step(None, lambda own: sampler.recorded(own, static, parameters))

    def _step(self, compiled: Any, plain: Callable[[jax.Array], tuple[jax.Array, jax.Array]]) -> jax.Array:
        """Replace the key: ``plain(key)``, or its ``compiled`` form in eager code, gives (the next key, a
        result).
        """
        if LOCAL.recorder is None:
            if _jax.current_trace() is None:
                with RUNTIME_LOCK:
                    run = plain if compiled is None or _DISABLE_JIT.value else compiled
                    following, result = run(self.value)
                    self._assign(following)
                return result
            self._check_may_draw()
        following, result = plain(self.value)
        self.value = following
        return result

    def _assign(self, key: jax.Array) -> None:
        """What the setter of ``value`` does in eager code, without what it need not look at."""
        if self._captured is not None:
            self._warn_captured()
        self._fill([key], None)

    def _check_may_draw(self) -> None:
        if is_writable_here() or self._is_at_home() or _jax.runs_shards_eagerly():
            return
        batching = any(map(_jax.is_batching, _jax.trace_chain()))
        where = "jax.vmap" if batching else "a JAX transformation that StateGraph does not trace"
        raise StateAccessError(
            describe(
                f"{self._describe()} is drawn from inside {where}.",
                state=self._describe(),
                created=self.source_location,
                at=_jax.here(),
                why="every lane would get the same numbers"
                if batching
                else "its next key would exist only in there (jax.jit, jax.grad, a jax.lax loop run eagerly)",
                fix=("use stategraph.augment.vmap" if batching else "use stategraph.compile.jit")
                + ", or pass a key as an argument and draw with it: rand(3, key=key)",
            )
        )


def _split(key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(key, n + 1)
    return keys[0], keys[1:]


_split_compiled: Any = functools.partial(jax.jit, static_argnums=1)(_split)
