"""What a State access becomes while a trace runs.

While user code is traced, reading, writing or creating a State *binds a JAX primitive*, so that one ordinary
JAX trace records every access in order, in nested bodies too. A ``Recorder`` is the memory of one such trace:
which State has which *token* (an int, so that JAX's caches never hold a State), the current type of each
State, and for every *body* (one run of one function that JAX traced) how many accesses it made. Each access
carries ``at = (body, ordinal)``; the importer uses this to prove that nothing was moved.

This module knows nothing of the State class: the owners of tokens are opaque here.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from stategraph import _jax
from stategraph.errors import StateAccessError, StateTypeError, TraceError, describe
from stategraph.ir.location import Location


class Owner(Protocol):
    """What has a token: a State, of which messages are all that this module asks."""

    @property
    def source_location(self) -> Location: ...

    def _describe(self) -> str: ...


_MOVES = itertools.count(1)


class Epochs:
    """Counters that compiled functions compare instead of looking at every State."""

    structure: int = 0
    """Moves when a Node's attribute is rebound, or a State gets another tree structure."""
    released: int = 0
    """Moves when an owned array was handed out or replaced by the user."""
    pending: Callable[[], None] | None = None
    """What has to be done before the next call looks at State."""

    def moved(self) -> None:
        """Something was rebound. Each time gives a new number, on several threads at once too (``+= 1`` would
        lose some).
        """
        self.structure = next(_MOVES)

    def before_next_call(self, work: Callable[[], None]) -> None:
        """Do this once, when a compiled function is called next; it takes the place of what waits already."""
        self.pending = work
        self.moved()

    def settle(self) -> None:
        """A compiled function is called: do what waits for that."""
        work, self.pending = self.pending, None
        if work is not None:
            work()


EPOCHS = Epochs()


class Token(int):
    """The number of a State within one trace; prints as such in a jaxpr."""

    def __repr__(self) -> str:
        return f"#{int(self)}"


class Body:
    """One run of one function that JAX traced: the accesses it made, in order."""

    __slots__ = (
        "accesses",
        "depth",
        "differentiated",
        "error",
        "frame",
        "number",
        "once",
        "parent",
        "straight",
    )

    def __init__(
        self, number: int, frame: Any, parent: Body | None, once: bool, differentiated: bool = False
    ) -> None:
        self.number = number
        self.frame = _jax.weak(frame)
        self.parent = parent
        self.once = once
        """Whether it runs exactly when the code around it does: no loop body or branch."""
        self.depth: int = (parent.depth if parent is not None else 0) + (not once)
        """In how many bodies that do not run ``once`` its accesses stand."""
        self.differentiated = differentiated
        """Whether a raw JAX transformation differentiates it: that may split or repeat it."""
        self.straight: bool = (
            once and not _jax.traced_for(frame).startswith(MANY) and (parent is None or parent.straight)
        )
        self.accesses: list[tuple[str, Token]] = []
        self.error: StateTypeError | None = None
        """What is wrong with this run; raised when the body is part of the program (JAX may discard the run
        and trace again).
        """

    def next(self, kind: str, token: Token) -> tuple[int, int]:
        self.accesses.append((kind, token))
        return (self.number, len(self.accesses) - 1)


class StartAgain(BaseException):
    """The trace in progress depends on something that has just been made outside of it, for good: it begins again."""


class Local(threading.local):
    """Per thread: the recorder of the running trace."""

    recorder: Recorder | None = None
    shards: frozenset[int] = frozenset()
    """States (by id) that hold shards while a function runs eagerly on all devices."""


LOCAL = Local()
_TRACE_NUMBERS = itertools.count(1)
STRAIGHT = ("jit", "pjit", "checkpoint", "remat", "checkify", "stategraph", "shard_map")
"""What straight-line bodies are traced for: a State may change its type there."""
LANES = "stategraph vmap"
"""What the body of a vmap is traced for: it runs once per lane."""
MANY = (LANES, "shard_map")
"""What bodies are traced for that run once where they stand, but several times side by side."""


class Recorder:
    """The memory of one trace. Use as a context manager around the traced function's run and its import."""

    def __init__(self) -> None:
        self.number = next(_TRACE_NUMBERS)
        self.epoch = 0
        self.owners: list[Any] = []
        self.tokens: dict[int, Token] = {}
        self.avals: list[tuple[Any, ...]] = []
        self.trees: list[Any] = []
        self.entry: list[tuple[tuple[Any, ...], Any] | None] = []
        """Types at entry by token; None for States created in this trace."""
        self.born_in: dict[Token, Body] = {}
        self.written: set[Token] = set()
        """States that some access writes, in whatever body."""
        self.typed: dict[tuple[int, int], tuple[tuple[Any, ...], Any]] = {}
        """The types that accesses gave to States: (avals, structure), by access. Only where they are new."""
        self.type_changes: list[tuple[Body, Token, StateTypeError]] = []
        """Legal type changes, and what to say if JAX discards the body that made one."""
        self.own_in: dict[Token, Body] = {}
        """States that have a value, and a type, of their own in every lane of a vmap's body."""
        self.bodies: list[Body] = []
        self._body_of: dict[int, Body] = {}
        self.root: Any = None
        """The body of the traced function; None while derivative rules are run after it."""
        self.journal: list[tuple[Any, str, Any, Any]] = []
        """Attribute assignments on Nodes: (node, name, value before, value after); ``MISSING`` for none."""
        self.orders: dict[int, tuple[Any, list[str]]] = {}
        """Nodes that lost an attribute, with their attributes in order before that."""
        self.guards: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        """Attributes of Nodes that the trace read before it assigned them: (node, name, value)."""
        self.settings: dict[Any, tuple[Callable[[], Any], Any]] = {}
        """Settings that the trace read (``environ`` and the like): (how to read it again, the value it had),
        by key.
        """
        self.containers: dict[int, tuple[Any, Any]] = {}
        """Lists and dicts of Nodes that the trace saw: (container, copy)."""
        self.assigned: dict[tuple[int, str], Location] = {}
        """Which (node, attribute) the trace has assigned, and where last."""
        self.new_nodes: dict[int, Any] = {}
        """Nodes that the trace created."""
        self.finishing: dict[Any, Callable[[], None]] = {}
        """What to check when the traced function has run, by key."""
        self.naming: Callable[[], dict[int, str]] = dict
        """Gives the paths of owners, by id; asked only for messages."""
        self._context: Any = None
        self._outer: Recorder | None = None

    # ---------------------------------------------------------------------------------------- context manager

    def __enter__(self) -> Recorder:
        self._outer = LOCAL.recorder
        LOCAL.recorder = self
        EPOCHS.moved()  # a compiled call in the middle of a trace must look twice
        self._context = _jax.trace_context(self._context_value())
        self._context.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        LOCAL.recorder = self._outer
        self._context.__exit__(*exc)

    def _context_value(self) -> int:
        return (self.number << 24) + self.epoch

    def advance(self) -> None:
        """Something that a cached inner trace may depend on changed: JAX's trace caches must miss from here
        on.
        """
        self.epoch += 1
        _jax.set_trace_context(self._context_value())

    # ------------------------------------------------------------------------------------------------- bodies

    def body_here(self, kind: str, owner: Owner) -> Body:
        """The body that a State access made right now belongs to; refuses where it could not be recorded
        truthfully.
        """
        root = self.root() if self.root is not None else None
        frames = [(trace, _jax.frame_of(trace)) for trace in _jax.trace_chain(root)]
        recording = [frame for _, frame in frames if frame is not None]
        if self.root is None and recording:
            root = recording[-1]
        if root is None or _jax.folds_eagerly() or not any(frame is root for frame in recording):
            raise StateAccessError(
                describe(
                    f"{owner._describe()} is {_PAST[kind]} where its value is not part of the traced program.",
                    created=owner.source_location,
                    at=_jax.here(),
                    why="the code runs outside of the trace in progress (jax.ensure_compile_time_eval, a callback, or another thread)",
                    fix="read the State before entering that code and pass the value in",
                )
            )
        if kind != "read":
            for trace, frame in frames:
                if frame is root:
                    break
                if _jax.is_batching(trace):
                    raise StateAccessError(
                        describe(
                            f"{owner._describe()} is {_PAST[kind]} inside jax.vmap.",
                            created=owner.source_location,
                            at=_jax.here(),
                            why="jax.vmap would record one access for all lanes",
                            fix="use stategraph.augment.vmap, which gives every lane its own value",
                        )
                    )
        return self._body(frames, root)

    def _body(self, chain: Sequence[tuple[Any, Any]], root: Any) -> Body:
        """The body of the innermost recording trace of ``chain``, a list of (trace, its frame or None),
        innermost first.
        """
        frames = [frame for _, frame in chain if frame is not None]
        found = self._body_of.get(id(frames[0]))
        if found is not None and found.frame() is frames[0]:
            return found
        around = chain[next(i for i, (_, frame) in enumerate(chain) if frame is frames[0]) + 1 :]
        parent = None if frames[0] is root else self._body(around, root)
        once = parent is None or _jax.traced_for(frames[0]).startswith(STRAIGHT)
        differentiated = parent is not None and (
            parent.differentiated or any(_jax.is_differentiating(trace) for trace, _ in around)
        )
        body = Body(len(self.bodies), frames[0], parent, once, differentiated)
        self.bodies.append(body)
        self._body_of[id(frames[0])] = body
        return body

    def depends_on(self, key: Any, read: Callable[[], Any], value: Any) -> None:
        """The program is valid while ``read()`` gives ``value``: called by settings that traced code looks
        up.

        Whoever changes such a setting moves ``EPOCHS.structure`` (outside of a trace) or calls ``advance``
        (inside).
        """
        self.settings.setdefault(key, (read, value))

    # ----------------------------------------------------------------------------------------------- accesses

    def path(self, owner: Any) -> str | None:
        """Where the traced code finds an owner: ``net.layers[0].W``."""
        return self.naming().get(id(owner))

    def token(self, owner: Any) -> Token | None:
        return self.tokens.get(id(owner))

    def adopt(self, owner: Owner, avals: tuple[Any, ...], tree: Any) -> Token:
        """The token of an owner that existed before the trace."""
        token = self.tokens.get(id(owner))
        if token is None:
            token = self._new(owner, avals, tree)
            self.entry.append((avals, tree))
        return token

    def _new(self, owner: Owner, avals: tuple[Any, ...], tree: Any) -> Token:
        token = Token(len(self.owners))
        self.owners.append(owner)
        self.tokens[id(owner)] = token
        self.avals.append(avals)
        self.trees.append(tree)
        return token

    def read(self, token: Token) -> list[Any]:
        """The leaves of a State, as tracers."""
        body = self.body_here("read", self.owners[token])
        self._check_scope(token, body)
        leaves: list[Any] = state_read_p.bind(
            token=token,
            at=body.next("read", token),
            avals=tuple(map(_jax.aval_here, self.avals[token])),
        )
        return leaves

    def write(self, token: Token, leaves: Sequence[Any], tree: Any) -> None:
        """Give a State new leaves (already strongly typed)."""
        body = self.body_here("write", self.owners[token])
        self._check_scope(token, body)
        avals = tuple(map(_jax.strong_aval, leaves))
        changed = not _jax.same_tree(tree, self.trees[token]) or not same_avals(avals, self.avals[token])
        if changed:
            if not self._in_line(body, token):
                body.error = body.error or self._type_change(token, avals, tree)
            else:
                self.type_changes.append((body, token, self._discarded_change(token)))
                self.avals[token] = avals
                self.trees[token] = tree
                self.advance()
        self.written.add(token)
        at = body.next("write", token)
        if changed:
            self.typed[at] = (avals, tree)
        state_write_p.bind(*leaves, token=token, at=at)

    def change_type(self, token: Token, avals: tuple[Any, ...], tree: Any) -> None:
        """Give a State another type without a write here: what the lanes of a vmap wrote is stacked."""
        if _jax.same_tree(tree, self.trees[token]) and same_avals(avals, self.avals[token]):
            return
        body = self.body_here("write", self.owners[token])
        if not self._in_line(body, token):
            body.error = body.error or self._type_change(token, avals, tree)
            return
        self.avals[token], self.trees[token] = avals, tree
        self.advance()

    def _in_line(self, body: Body | None, token: Token) -> bool:
        """Whether ``body`` runs exactly once each time that the State's own body does."""
        home = self.own_in.get(token) or self.born_in.get(token)
        while body is not None and body is not home:
            if not body.once:
                return False
            body = body.parent
        return True

    def _discarded_change(self, token: Token) -> StateTypeError:
        return StateTypeError(
            describe(
                f"{self.owners[token]._describe()} changes its type in a function whose result JAX discards.",
                created=self.owners[token].source_location,
                at=_jax.here(),
                why="JAX traces the function only for its shapes (jax.eval_shape, jax.make_jaxpr); the State may or may not have chan",
                fix="take the shapes of a function that does not write the State",
            )
        )

    def _type_change(self, token: Token, avals: Sequence[Any], tree: Any) -> StateTypeError:
        name = self.owners[token]._describe()
        return StateTypeError(
            describe(
                f"{name} changes its type inside a loop, branch or function with a derivative rule: it is "
                f"{render(self.trees[token], self.avals[token])} "
                f"and is given {render(tree, avals)}.",
                state=name,
                created=self.owners[token].source_location,
                at=_jax.here(),
                why="every trip of a loop and every branch must leave a State with the type that it had",
                fix="convert the value, for example `s.value = new.astype(s.value.dtype)`, or create the State with that type",
            )
        )

    def pending_error(self) -> StateTypeError | None:
        """What is wrong with the body that was being traced last, or with one around it."""
        body = self.bodies[-1] if self.bodies else None
        while body is not None and body.error is None:
            body = body.parent
        return body.error if body is not None else None

    def alloc(self, owner: Owner, leaves: Sequence[Any], tree: Any) -> Token:
        """A State created in this trace."""
        body = self.body_here("alloc", owner)
        token = self._new(owner, tuple(map(_jax.strong_aval, leaves)), tree)
        self.entry.append(None)
        self.born_in[token] = body
        at = body.next("alloc", token)
        self.typed[at] = (self.avals[token], tree)
        state_alloc_p.bind(*leaves, token=token, at=at)
        return token

    def _check_scope(self, token: Token, body: Body) -> None:
        """A State created in a loop body or branch cannot be used outside of it."""
        home = self.born_in.get(token)
        if home is None or self.root is None:
            # A derivative rule is run while its function is imported, in its scope.
            return
        scope: Body | None = body
        while scope is not None:
            if scope is home:
                return
            scope = scope.parent
        raise StateAccessError(
            describe(
                f"{self.owners[token]._describe()} was created inside a loop body, branch or inner function and is used outside of it.",
                created=self.owners[token].source_location,
                at=_jax.here(),
                why="a State created in a body lives as long as one run of that body",
                fix="create the State before the loop, or return its value from the body",
            )
        )


_PAST = {"read": "read", "write": "written", "alloc": "created"}


def same_avals(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and x.dtype == y.dtype for x, y in zip(a, b, strict=True)
    )


def render(tree: Any, avals: Sequence[Any]) -> str:
    """A State's type as text: ``f32[3]`` or ``{'bias': f32[3], 'weight': f32[2,3]}``."""
    texts = [str(_jax.type_of(aval)) for aval in avals]
    if tree is None or (len(texts) == 1 and jax.tree.structure(0) == tree):
        return texts[0]
    return str(jax.tree.unflatten(tree, [_Text(text) for text in texts]))


class _Text(str):
    def __repr__(self) -> str:
        return str(self)


# ------------------------------------------------------------------------------------------------- primitives


def _never_run(*args: Any, **params: Any) -> Any:
    raise StateAccessError(
        describe(
            "A State access of a traced program was run outside of it.",
            at=_jax.here(),
            why="JAX moved part of the traced function to another place (for example a raw jax.grad or jax.linearize)",
            fix="use stategraph.augment.grad and the other transformations of stategraph.augment",
        )
    )


def _no_batching(*args: Any, **params: Any) -> Any:
    raise StateAccessError(
        describe(
            "A State is written inside jax.vmap.",
            at=_jax.here(),
            why="jax.vmap would record one access for all lanes",
            fix="use stategraph.augment.vmap, which gives every lane its own value",
        )
    )


def _write_jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    raise TraceError(
        describe(
            "A State is written with a differentiated value inside a raw jax.grad, jax.vjp or jax.jvp.",
            at=_jax.here(),
            why="JAX would drop the derivative of everything that later depends on the State",
            fix="use stategraph.augment.grad (or value_and_grad, vjp, jvp)",
        )
    )


state_read_p = _jax.new_primitive("state_read", lambda *, token, at, avals: avals, on_eval=_never_run)
state_write_p = _jax.new_primitive(
    "state_write", lambda *avals, token, at: (), on_eval=_never_run, on_batch=_no_batching, on_jvp=_write_jvp
)
state_alloc_p = _jax.new_primitive(
    "state_alloc", lambda *avals, token, at: (), on_eval=_never_run, on_batch=_no_batching, on_jvp=_write_jvp
)


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING = _Missing()
