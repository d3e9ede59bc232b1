"""Projections: from one population to another, through delays, connections and synapses.

A projection is called once in each step, before the population that it sends to. What it is called with goes through its
modules (where it begins is usually a delayed spike of the sending population), through the delay that ``delay`` says, then
through ``comm``, the connections: a layer of ``stategraph.event``, ``nn.Linear``, or any other function. Then

- ``DeltaProj`` adds it to the potential;
- ``CurrentProj`` makes it a current;
- ``AlignPostProj`` gives it to synapses that have the size of the receiving population, and the conductance of these makes
  the current. All projections with equal descriptions of synapse and output share one synapse;
- ``AlignPreProj`` first gives the spikes to synapses that have the size of the sending population.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import environ
from stategraph.errors import describe
from stategraph.init import Initial, param
from stategraph.mixin import ParamDescriber
from stategraph.nn.collective import call_order
from stategraph.nn.delay import Delay, exact_slots
from stategraph.nn.dynamics import init_maybe_prefetch
from stategraph.nn.module import Module
from stategraph.nn.population import Population, Synapse
from stategraph.nn.synouts import SynOut
from stategraph.nn.units import TIME, parameter
from stategraph.state import State

__all__ = ["AlignPostProj", "AlignPreProj", "CurrentProj", "DeltaProj", "Projection"]


class Projection(Module):
    """Base class of projections. One of your own holds others, which are called one after the other with what it is called
    with; or write ``update``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Twice(sg.nn.Projection):
    ...     def __init__(self, post):
    ...         super().__init__()
    ...         self.weak, self.strong = (
    ...             sg.nn.DeltaProj(comm=sg.event.Linear(1, 2, weight), post=post) for weight in (1.0, 2.0)
    ...         )
    >>> neurons = sg.nn.init_all_states(sg.nn.LIF(2, V_th=10.0))
    >>> with sg.environ.context(dt=0.1):
    ...     Twice(neurons)(jnp.ones(1))
    ...     _ = neurons()
    >>> neurons.V.value
    Array([3., 3.], dtype=float32)
    """

    def update(self, *args: Any) -> None:
        """Send, in this step, through each projection that this one holds."""
        held = [child for child in self.children() if isinstance(child, Projection)]
        if not held:
            raise NotImplementedError(
                f"{type(self).__name__} holds no projections; write `def update(self, spikes): ...`"
            )
        for projection in held:
            projection(*args)


class _Connected(Projection):
    """A projection with connections, to one population: what all of them have in common."""

    UNITS: ClassVar[Mapping[str, str]] = {"delay": TIME}

    counts_spikes: ClassVar[bool] = False
    """Whether a part of a spike would count as a spike, so that delays are rounded to the nearest steps."""

    def __init__(
        self, *modules: Any, comm: Callable[..., Any], post: Population, delay: Initial | None = None
    ) -> None:
        super().__init__()
        for module in modules:
            if not callable(module) and not isinstance(module, State):
                raise TypeError(
                    describe(
                        f"{type(self).__name__} is given a {type(module).__name__} to begin with.",
                        why="it is neither a function nor a State",
                        fix="for example population.prefetch('V'), or population.output_delay(1.0)",
                    )
                )
        if not callable(comm):
            raise TypeError(f"comm is a layer or another function, not a {type(comm).__name__}")
        if not isinstance(post, Population):
            raise TypeError(
                describe(
                    f"{type(self).__name__} sends to a {type(post).__name__}.",
                    why="input arrives at a stategraph.nn.Neuron or another Population",
                )
            )
        _check_size(type(self).__name__, "comm", getattr(comm, "out_size", None), post)
        self.modules_before = modules
        self.comm = comm
        self.post = post
        self.delay = None if delay is None else _Axons(self, comm, delay)
        self.key = post.new_input_key(type(self).__name__)

    @call_order(2)
    def init_state(self, *args: Any, **kwargs: Any) -> None:
        """Check that what the projection looks up is there."""
        for module in self.modules_before:
            init_maybe_prefetch(module, *args, **kwargs)

    def _before(self, args: tuple[Any, ...]) -> Any:
        """What goes to the connections."""
        for module in self.modules_before:
            args = (module.value if isinstance(module, State) else module(*args),)
        if len(args) != 1:
            raise TypeError(
                describe(
                    f"{type(self).__name__} is called with {len(args)} arguments, and its connections take one.",
                    fix="call it with the spikes, or make it with a module that gives them",
                )
            )
        return args[0] if self.delay is None else self.delay.sent(args[0])


class _Axons(Delay):
    """The delay of what a projection sends, of all neurons or of each."""

    def __init__(self, projection: _Connected, comm: Any, delay: Initial) -> None:
        kind, size = type(projection).__name__, getattr(comm, "in_size", None)
        if not size:
            raise TypeError(
                describe(
                    f"{kind}(delay=...) is given with connections of no in_size.",
                    why="what is on its way is kept in a buffer of that size",
                    fix="begin with delayed spikes, population.output_delay(time)",
                )
            )
        super().__init__(jax.ShapeDtypeStruct(size, environ.dftype()))
        time = param(parameter(projection, "delay", delay), size, allow_none=False)
        if np.ndim(time) > 1 or isinstance(time, State):
            raise TypeError(
                describe(
                    f"{kind}(delay=...) is {'a State' if isinstance(time, State) else 'given for each of a grid'}.",
                    why="delays are known when the model is made, and neurons with delays of their own have one axis",
                    fix="one delay, or one for each sending neuron; event.Delayed has one for each synapse",
                )
            )
        self.register_delay(time)
        slots = exact_slots(time)
        whole = np.round(slots)
        indivisible = projection.counts_spikes or getattr(comm, "float_as_event", False)
        self.slots = whole.astype(np.int32) if indivisible or np.all(slots == whole) else slots
        """The delay in steps: floats if one of them is between two, else integers."""

    def sent(self, values: Any) -> jax.Array:
        """Send values ``(..., pre)``, and give what was sent so long ago."""
        self.update(values)
        if np.ndim(self.slots) == 0:
            return self.retrieve_at_step(self.slots)  # type: ignore[no-any-return]
        # the axis of the neurons comes first, since a batch lies between the two that are looked up
        return jnp.moveaxis(self.retrieve_at_step(self.slots, ..., np.arange(self.slots.size)), 0, -1)


class DeltaProj(_Connected):
    """Connections whose output is added to the potential of the receiving population, at the end of its step.

    Args:
      *modules: functions that what the projection is called with goes through, one after the other; a State stands for its
        value. With none the projection is called with what ``comm`` is given.
      comm: the connections.
      post: the receiving population.
      label: a group of inputs, for populations of your own.
      delay: the time (ms) that what is sent takes to ``comm``: one for all, or an array with one for each sending neuron, or an
        initialiser of these; None for none. What arrives between two steps is interpolated linearly: with a delay of 2.25
        steps, three quarters of a spike arrive after two steps and a quarter after three. Connections that take all numbers
        for spikes (``float_as_event=True``) get whole ones, after the nearest step. (``event.Delayed`` has a delay for each
        synapse; ``population.output_delay(time)`` as a module keeps one buffer for all projections of a population. Both
        round up to steps.)

    Attributes:
      delay: the ``Delay`` that holds what is on its way, or None.

    Raises:
      ValueError: for negative delays, and a number of delays that does not fit ``comm``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neurons = sg.nn.LIF(2, V_th=10.0)
    >>> projection = sg.nn.DeltaProj(comm=sg.event.Linear(1, 2, 3.0), post=neurons)
    >>> _ = sg.nn.init_all_states(neurons)
    >>> with sg.environ.context(dt=0.1):
    ...     projection(jnp.ones(1))
    ...     _ = neurons()
    >>> neurons.V.value
    Array([3., 3.], dtype=float32)
    """

    def __init__(
        self,
        *modules: Any,
        comm: Callable[..., Any],
        post: Population,
        label: str | None = None,
        delay: Initial | None = None,
    ) -> None:
        super().__init__(*modules, comm=comm, post=post, delay=delay)
        self.label = label

    def update(self, *args: Any) -> None:
        """Send, in this step."""
        self.post.add_delta_input(self.key, self.comm(self._before(args)), self.label)


class CurrentProj(_Connected):
    """Connections whose output an output of synapses (``COBA``, ``CUBA``, ``MgBlock``) makes a current.

    Args:
      *modules: see ``DeltaProj``.
      comm: the connections.
      out: what makes a current of it: a ``SynOut``, used by no other projection.
      post: the receiving population.
      delay: see ``DeltaProj``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neurons = sg.nn.LIF(2, V_th=10.0)
    >>> projection = sg.nn.CurrentProj(comm=sg.event.Linear(1, 2, 3.0), out=sg.nn.CUBA(), post=neurons)
    >>> _ = sg.nn.init_all_states(neurons)
    >>> with sg.environ.context(dt=1e6):
    ...     projection(jnp.ones(1))
    ...     _ = neurons()
    >>> neurons.V.value
    Array([3., 3.], dtype=float32)
    """

    def __init__(
        self,
        *modules: Any,
        comm: Callable[..., Any],
        out: SynOut,
        post: Population,
        delay: Initial | None = None,
    ) -> None:
        super().__init__(*modules, comm=comm, post=post, delay=delay)
        self.out = _output(out, post)
        post.add_current_input(self.key, self.out)

    def update(self, *args: Any) -> None:
        """Send, in this step."""
        self.out.bind_cond(self.comm(self._before(args)))


class _Merged(Module):
    """A synapse and its output that several projections share: its step comes before that of the population."""

    def __init__(self, syn: Synapse, out: SynOut, descriptions: tuple[Any, Any, str | None]) -> None:
        super().__init__()
        self.syn = syn
        self.out = out
        self.descriptions = descriptions

    def update(self) -> None:
        self.out.bind_cond(self.syn())


class AlignPostProj(_Connected):
    """Connections to synapses that have the size of the receiving population, with an output.

    Args:
      *modules: see ``DeltaProj``.
      comm: the connections.
      syn: the synapse: described, ``Expon.desc(tau=5.0)``, so that projections to one population whose descriptions are equal
        share it; or one made for this projection. Its equations are linear in what arrives (``Expon``, ``DualExpon``,
        ``Alpha``).
      out: the output, described or made like ``syn``: ``COBA.desc(E=0.0)``.
      post: the receiving population.
      label: projections with different labels do not share.
      delay: see ``DeltaProj``; projections share a synapse whatever their delays are.

    Attributes:
      syn, out: the synapse and the output.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Network(sg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.neurons = sg.nn.LIF(2, V_th=10.0)
    ...         self.projections = [
    ...             sg.nn.AlignPostProj(comm=sg.event.Linear(1, 2, weight), syn=sg.nn.Expon.desc(tau=5.0),
    ...                                 out=sg.nn.CUBA.desc(), post=self.neurons)
    ...             for weight in (1.0, 2.0)
    ...         ]
    ...     def update(self, spikes):
    ...         for projection in self.projections:
    ...             projection(spikes)
    ...         return self.neurons()
    >>> network = sg.nn.init_all_states(Network())
    >>> with sg.environ.context(dt=0.1):
    ...     _ = network(jnp.ones(1))
    >>> network.projections[0].syn is network.projections[1].syn, network.projections[0].syn.g.value
    (True, Array([3., 3.], dtype=float32))
    """

    def __init__(
        self,
        *modules: Any,
        comm: Callable[..., Any],
        syn: Synapse | ParamDescriber[Any],
        out: SynOut | ParamDescriber[Any],
        post: Population,
        label: str | None = None,
        delay: Initial | None = None,
    ) -> None:
        super().__init__(*modules, comm=comm, post=post, delay=delay)
        if isinstance(syn, ParamDescriber) != isinstance(out, ParamDescriber):
            raise TypeError(
                describe(
                    "Of syn and out one is described, and the other made.",
                    why="described ones are shared by projections, made ones belong to one",
                    fix="syn=Expon.desc(tau=5.0), out=COBA.desc(E=0.0)",
                )
            )
        kind = syn.cls if isinstance(syn, ParamDescriber) else type(syn)
        if _needs_spikes(kind):
            raise TypeError(
                describe(
                    f"AlignPostProj cannot have {kind.__name__} synapses.",
                    why="what arrives there is a sum over senders, and their equations need the spikes of each",
                    fix=f"AlignPreProj(syn={kind.__name__}(...), comm=..., out=..., post=...)",
                )
            )
        if isinstance(syn, ParamDescriber):
            merged = self._merged(post, syn, out, label)
            self.syn: Synapse = merged.syn
            self.out: SynOut = merged.out
            self.shared = True
        else:
            self.syn, self.out = _synapse(syn), _output(out, post)
            _check_size("AlignPostProj", "syn", self.syn.varshape, post)
            post.add_current_input(self.key, self.out, label)
            self.shared = False

    def _merged(self, post: Population, syn: Any, out: Any, label: str | None) -> _Merged:
        descriptions = (syn, out, label)
        for hook in post.before_updates.values():
            if isinstance(hook, _Merged) and hook.descriptions == descriptions:
                return hook
        sized = syn.args or "in_size" in syn.kwargs
        merged = _Merged(_synapse(syn() if sized else syn(post.varshape)), _output(out(), post), descriptions)
        post.add_current_input(self.key, merged.out, label)
        post.add_before_update(self.key, merged)
        return merged

    def update(self, *args: Any) -> None:
        """Send, in this step."""
        self.syn.add_delta_input(self.key, self.comm(self._before(args)))
        if not self.shared:
            self.out.bind_cond(self.syn())


class AlignPreProj(_Connected):
    """Synapses that have the size of the sending population, then connections, then an output.

    Args:
      *modules: see ``DeltaProj``; they give the spikes.
      syn: the synapse (``AMPA``, ``STP``, ``Expon``, …), or a list of synapses that the spikes go through one after the other.
      comm: the connections.
      out: what makes a current of it: a ``SynOut``, used by no other projection.
      post: the receiving population.
      delay: see ``DeltaProj``: of the spikes, before they reach the synapses. It is rounded to the nearest step, since
        these synapses count spikes.

    Example: depressing synapses.

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Network(sg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.neurons = sg.nn.LIF(2)
    ...         self.projection = sg.nn.AlignPreProj(syn=[sg.nn.STD(1, U=0.5), sg.nn.Expon(1)], comm=sg.event.Linear(1, 2, 0.1),
    ...                                              out=sg.nn.CUBA(), post=self.neurons)
    ...     def update(self, spikes):
    ...         self.projection(spikes)
    ...         return self.neurons()
    >>> network = sg.nn.init_all_states(Network())
    >>> with sg.environ.context(dt=0.1):
    ...     _ = network(jnp.ones(1))
    >>> network.projection.syn[0].x.value
    Array([0.5], dtype=float32)
    """

    counts_spikes = True

    def __init__(
        self,
        *modules: Any,
        syn: Synapse | list[Synapse],
        comm: Callable[..., Any],
        out: SynOut,
        post: Population,
        delay: Initial | None = None,
    ) -> None:
        super().__init__(*modules, comm=comm, post=post, delay=delay)
        self.syn = [_synapse(one) for one in (syn if isinstance(syn, (list, tuple)) else [syn])]
        self.out = _output(out, post)
        post.add_current_input(self.key, self.out)

    def update(self, *args: Any) -> None:
        """Send, in this step."""
        sent = self._before(args)
        for synapse in self.syn:
            sent = synapse(sent)
        self.out.bind_cond(self.comm(sent))


def _check_size(kind: str, what: str, size: Any, post: Population) -> None:
    """Refuse a part whose output, where its shape is known, is none of the receiving population."""
    if size is None:
        return
    size = tuple(np.atleast_1d(size).tolist())
    try:
        fits = np.broadcast_shapes(size, post.varshape) == post.varshape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            describe(
                f"{kind}({what}=...) gives {size}, and {type(post).__name__} has the shape {post.varshape}.",
                why="what it gives arrives at the neurons one by one",
            )
        )


def _needs_spikes(kind: Any) -> bool:
    """Whether synapses of a class cannot be called without an argument."""
    if not (isinstance(kind, type) and issubclass(kind, Synapse)):
        return False
    parameters = list(inspect.signature(kind.update).parameters.values())[1:]
    return any(
        one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        for one in parameters
    )


def _synapse(syn: Any) -> Synapse:
    if not isinstance(syn, Synapse):
        raise TypeError(f"syn is a stategraph.nn.Synapse, not a {type(syn).__name__}")
    return syn


def _output(out: Any, post: Population) -> SynOut:
    if not isinstance(out, SynOut):
        raise TypeError(f"out is a stategraph.nn.SynOut such as COBA, not a {type(out).__name__}")
    if any(one is out for one in post.current_inputs.values()):
        raise ValueError(
            describe(
                f"Two projections to this {type(post).__name__} have one {type(out).__name__} for their output.",
                why="an output makes the current of one conductance",
                fix=f"make one for each, out=stategraph.nn.{type(out).__name__}(...)",
            )
        )
    return out
