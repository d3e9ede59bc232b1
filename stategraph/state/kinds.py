"""The kinds of State: what a value is for. They serve as filters, and are the *kind* in programs."""

from __future__ import annotations

from stategraph.state.state import State, T


class ParamState(State[T]):
    """A trainable parameter: what gradients are taken with respect to by default."""

    __slots__ = ()


class ShortTermState(State[T]):
    """A value that lasts a moment, such as an activation or a spike count of one trial."""

    __slots__ = ()


class LongTermState(State[T]):
    """A value that outlasts trials, such as running statistics or slow weights."""

    __slots__ = ()


class HiddenState(ShortTermState[T]):
    """The hidden state of a recurrent model, such as a membrane potential."""

    __slots__ = ()


class BatchState(LongTermState[T]):
    """A value with a batch axis, such as batch statistics."""

    __slots__ = ()


class DelayState(ShortTermState[T]):
    """The buffer of a delay."""

    __slots__ = ()


class FakeState(State[T]):
    """A value that looks like a State to the model but is no parameter, such as a constant weight."""

    __slots__ = ()
