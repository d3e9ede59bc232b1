"""All transformations under one name: those of ``compile`` and of ``augment``.

>>> import stategraph as sg
>>> sg.transform.jit is sg.compile.jit, sg.transform.grad is sg.augment.grad
(True, True)
"""

from stategraph import augment as _augment
from stategraph import compile as _compile
from stategraph.augment import *  # noqa: F403
from stategraph.compile import *  # noqa: F403

__all__: list[str] = []
__all__ += _compile.__all__
__all__ += _augment.__all__
