"""Settings of a simulation: the time step, the current time, precision, platform, and whatever a model looks
up by name.

A *setting* is global (``set``) or belongs to a ``with environ.context(...)`` block of one thread; the
innermost block wins. A concrete setting that traced code looks up is part of what was compiled: change it,
and the next call compiles for the new value (and finds the old program again when it is changed back). A
traced value, such as the time of a loop's step, can be put into a context inside of the program; it is an
ordinary value there, and gone when the block ends.

>>> from stategraph import environ
>>> with environ.context(dt=0.1):
...     environ.get_dt()
0.1
"""

from stategraph.environ.behaviors import (
    list_registered_behaviors,
    register_default_behavior,
    unregister_default_behavior,
)
from stategraph.environ.platforms import (
    get_host_device_count,
    get_platform,
    set_host_device_count,
    set_platform,
)
from stategraph.environ.precisions import (
    dctype,
    dftype,
    ditype,
    dutype,
    get_precision,
    set_precision,
    tolerance,
)
from stategraph.environ.settings import (
    DT,
    FIT,
    HOST_DEVICE_COUNT,
    JIT_ERROR_CHECK,
    PLATFORM,
    PRECISION,
    EnvironError,
    EnvironmentState,
    I,
    T,
    all,
    context,
    get,
    get_dt,
    pop,
    reset,
    set,
)

__all__ = [
    "set", "get", "get_dt", "all", "pop", "context", "reset",
    "set_precision", "get_precision", "dftype", "ditype", "dutype", "dctype", "tolerance",
    "set_platform", "get_platform", "set_host_device_count", "get_host_device_count",
    "register_default_behavior", "unregister_default_behavior", "list_registered_behaviors",
    "EnvironmentState", "EnvironError",
    "I", "T", "DT", "FIT", "PRECISION", "PLATFORM", "HOST_DEVICE_COUNT", "JIT_ERROR_CHECK",
]  # fmt: skip
