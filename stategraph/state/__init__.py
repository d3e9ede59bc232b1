"""State: a named place for a value that a program may read and write; see ``state``."""

from stategraph.state.cells import CHECKS as CHECKS
from stategraph.state.cells import RUNTIME_LOCK as RUNTIME_LOCK
from stategraph.state.cells import Cell as Cell
from stategraph.state.cells import Poisoned as Poisoned
from stategraph.state.cells import Unborn as Unborn
from stategraph.state.kinds import (
    BatchState,
    DelayState,
    FakeState,
    HiddenState,
    LongTermState,
    ParamState,
    ShortTermState,
)
from stategraph.state.state import State
from stategraph.state.state import T as T
from stategraph.state.state import is_state_type as is_state_type
from stategraph.state.state import type_text as type_text

__all__ = [
    "State", "ParamState", "ShortTermState", "LongTermState", "HiddenState", "BatchState", "DelayState", "FakeState",
]  # fmt: skip
