"""Platform: where arrays are made and programs run.

JAX chooses a platform when it starts. Another one can be asked for at any time: from then on arrays are made
there and programs run there, and the next call of a compiled function moves the arrays of all States that
exist. Arrays that somebody put on a device (``jax.device_put``) stay where they are.
"""

from __future__ import annotations

import gc
import warnings
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.environ.fingerprint import MISSING
from stategraph.environ.settings import HOST_DEVICE_COUNT, PLATFORM, SPECIAL, EnvironError, Special, set
from stategraph.errors import StateGraphError, TraceError, describe
from stategraph.recording import EPOCHS, LOCAL
from stategraph.state import RUNTIME_LOCK, State

_DEFAULT_DEVICE = "jax_default_device"
_chosen = False
"""Whether the default device was chosen here."""


def available() -> list[str]:
    """The platforms that this process has. Starts JAX."""
    names: dict[str, None] = {}
    for backend in jax.extend.backend.backends().values():
        for name in (
            backend.platform,
            backend.devices()[0].platform if backend.devices() else backend.platform,
        ):
            names.setdefault(str(name))
    return list(names)


def get_platform() -> str:
    """The platform that arrays are made on: ``"cpu"``, ``"gpu"`` or ``"tpu"``. Starts JAX."""
    device = getattr(jax.config, _DEFAULT_DEVICE)
    if device is None:
        return str(jax.default_backend())
    return device if isinstance(device, str) else str(device.platform)


def set_platform(platform: str) -> None:
    """Choose the platform. Starts JAX, so set ``host_device_count`` before or in the same call.

    Args:
      platform: ``"cpu"``, ``"gpu"`` (any that JAX has), ``"cuda"``, ``"rocm"``, ``"tpu"``.

    Raises:
      ValueError: when this process has no such platform; the message lists those that it has.
    """
    set(platform=platform)


def _check_platform(platform: Any) -> str:
    if not isinstance(platform, str):
        raise TypeError(f"platform has to be a name such as 'cpu' or 'gpu', not {platform!r}")
    if LOCAL.recorder is not None:
        raise TraceError(
            describe(
                "The platform is changed while a function is traced.",
                at=_jax.here(),
                fix="set it before, outside of the function",
            )
        )
    name = platform.lower()
    try:
        jax.devices(name)
    except RuntimeError as error:
        raise ValueError(
            describe(
                f"There is no platform {platform!r}.",
                why=f"this process has {', '.join(map(repr, available()))}",
                fix="install JAX for that platform (pip install 'jax[cuda]'), or choose one that is there",
            )
        ) from error
    return name


def _apply_platform(platform: Any) -> None:
    global _chosen
    if platform is MISSING:
        if _chosen:
            _choose(None)
        _chosen = False
        return
    device = jax.devices(platform)[0]
    jax.config.update(
        "jax_platform_name", platform
    )  # for a JAX whose default backend nobody has asked for yet
    if get_platform() != device.platform:
        _chosen = True
        _choose(device)


def _choose(device: Any) -> None:
    jax.config.update(_DEFAULT_DEVICE, device)
    target = device if device is not None else jax.devices()[0]
    EPOCHS.before_next_call(lambda: _follow(target))


def _follow(device: Any) -> None:
    """Move what is not on the chosen platform there, and say so."""
    with _jax.set_trace(_jax.EAGER):
        moved = move_states(device)
    if moved:
        warnings.warn(f"moved the arrays of {moved} States to {device.platform}", stacklevel=2)


def move_states(device: Any) -> int:
    """Move the arrays of all States that are not on ``device`` there, but for those that somebody put on a
    device; how many States.
    """
    count = 0
    with RUNTIME_LOCK, jax.default_device(device):
        for state in [obj for obj in gc.get_objects() if isinstance(obj, State)]:
            moved = [_move(cell, device) for cell in getattr(state, "_cells", ())]
            count += any(moved)
        if count:
            EPOCHS.moved()
            EPOCHS.released += 1
    return count


def _move(cell: Any, device: Any) -> bool:
    value = cell.v
    if (
        not isinstance(value, jax.Array)
        or _jax.is_tracer(value)
        or value.is_deleted()
        or getattr(value, "committed", True)
    ):
        return False
    if value.devices() == {device}:
        return False
    if _jax.is_key_array(value):
        data = np.asarray(jax.random.key_data(value))
        cell.v = jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(value))
    else:
        cell.v = jnp.asarray(np.asarray(value))
    cell.owned = False
    return True


# ----------------------------------------------------------------------------------------------- host devices


def set_host_device_count(n: int) -> None:
    """Let the CPU count as ``n`` devices, to try parallel code. Only before JAX starts (the first array)."""
    set(host_device_count=n)


def get_host_device_count() -> int:
    """How many devices the CPU counts as. Starts JAX."""
    return len(jax.devices("cpu"))


def _check_count(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"host_device_count has to be a positive number, not {n!r}")
    return int(n)


def _apply_count(n: Any) -> None:
    if n is MISSING:
        return
    try:
        jax.config.update("jax_num_cpu_devices", n)
    except RuntimeError as error:
        have = get_host_device_count()
        if have != n:
            raise StateGraphError(
                describe(
                    f"It is too late for {n} CPU devices: JAX has started with {have}.",
                    why="the number is fixed when JAX makes its first array or is asked for its devices",
                    fix=f"call stategraph.environ.set(host_device_count={n}) right after the imports",
                )
            ) from error


def _count() -> int:
    try:
        return get_host_device_count()
    except RuntimeError as error:
        raise EnvironError("JAX has no CPU platform in this process") from error


SPECIAL[PLATFORM] = Special(default=get_platform, check=_check_platform, apply=_apply_platform)
SPECIAL[HOST_DEVICE_COUNT] = Special(default=_count, check=_check_count, apply=_apply_count)
