"""Random stateful Python programs, as source text.

``generate(seed)`` gives a module whose ``make()`` builds fresh States and returns ``(program, arguments,
states)``: a plain Python function over State, as a user would write it. Everything is legal JAX; values stay
small, loops short, conditions harmless, so that every way to run the program has to agree on it.

A program is *exact* (only operations whose every rounding is fixed) or *loose* (sums, products, gradients,
whose order of summation is open).

XLA changes the bits of some exact-looking code: it folds transcendental functions of constants with other
algorithms, and turns ``(a + 1) + 2`` into ``a + 3``, ``(a / b) / c`` into ``a / (b * c)``, and ``spikes * a`` into a
selection, which loses the sign of zeros. So exact programs have no such functions, divisions or products, and their
numbers come from a captured array ``k``.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from tests.fuzz.expressions import (
    DICT,
    FLOATS,
    KEY,
    PAIR,
    RNG,
    SHAPES,
    B,
    Expressions,
    F,
    I,
    M,
    Scope,
    V,
    writable,
)
from tests.fuzz.header import HEADER


@attrs.define
class Generator(Expressions):
    """The statements of programs."""

    # -------------------------------------------------------------------------------------------- statements

    def block(self, scope: Scope, size: int) -> None:
        for _ in range(size):
            self.statement(scope)

    def statement(self, scope: Scope) -> None:
        self.budget -= 1
        options: list[tuple[float, Callable[[Scope], None]]] = [(3, self.assign)]
        if writable(scope) and not scope.pure:
            options += [(5, self.write), (1, self.swap), (0.5, self.alias), (0.7, self.random_draw)]
            options += [(0.7, self.stream_draw)]
            if scope.straight and not scope.smooth:
                options += [(0.7, self.change_type)]
        if not scope.pure:
            options += [(1.2, self.local_state), (0.4, self.check)]
            if not scope.quiet:
                options += [(1, self.print_)]
            if not scope.smooth and not scope.quiet:
                options += [(0.4, self.callback)]
        if scope.depth < 3 and self.budget > 0:
            options += [(1.5, self.scan), (0.8, self.fori_loop), (1.5, self.cond), (0.7, self.switch)]
            if not scope.smooth:  # JAX has no reverse mode for it
                options += [(1, self.while_loop)]
            options += [(0.7, self.inner_jit), (0.5, self.checkpoint), (0.4, self.promoted)]
            options += [(0.5, self.compiled_loop), (0.5, self.compiled_cond)]
            options += [(0.5, self.compiled_scan), (0.5, self.compiled_ifelse), (0.4, self.own_rule)]
            options += [(1.2, self.lanes)]
            if not scope.pure and not scope.frozen:
                options += [(0.7, self.recorded)]
            if self.gradients and scope.depth < 2 and not scope.pure:
                options += [(1.5, self.gradient)]
        weights, functions = zip(*options, strict=True)
        self.rng.choices(functions, weights)[0](scope)

    def assign(self, scope: Scope) -> None:
        type, name = self.type(), self.fresh("v")
        self.put(f"{name} = {self.expr(type, scope)}")
        scope.names.append((name, type))

    def write(self, scope: Scope) -> None:
        name, type = self.rng.choice(writable(scope))
        e = lambda t: self.expr(t, scope)
        if type == DICT:
            self.put(
                self.rng.choice(
                    [
                        f"{name}.value = {{**{name}.value, 'a': {self.bounded(V, scope)}}}",
                        f"{name}.value = {{'a': {self.bounded(V, scope)}, 'n': ({e(I)}, {e(B)})}}",
                        f"{name}.value = {{'a': {name}.value['a'], 'n': ({e(I)} % 7, {name}.value['n'][1])}}",
                    ]
                )
            )
        elif type == PAIR:
            self.put(
                self.rng.choice(
                    [
                        f"{name}.value = ({self.bounded(F, scope)}, {name}.value[1])",
                        f"{name}.value = ({e(F)}, {self.bounded(V, scope)})",
                    ]
                )
            )
        elif type in FLOATS and self.chance(0.3):
            self.put(f"{name}.value {self.rng.choice('+-')}= {self.bounded(type, scope)}")
        elif type == I and self.chance(0.5):
            self.put(f"{name}.value += {self.rng.randrange(1, 3)}")
        else:
            self.put(f"{name}.value = {self.bounded(type, scope)}")

    def bounded(self, type: str, scope: Scope) -> str:
        """An expression that cannot grow without bound when it is fed back."""
        text = self.expr(type, scope)
        if type in FLOATS:
            return f"{self.squash}({text})" if self.chance(0.4) else f"{text} * 0.5"
        return f"{text} % 5" if type == I else text

    def swap(self, scope: Scope) -> None:
        name, type = self.rng.choice(writable(scope))
        others = [n for n, t in writable(scope) if t == type and n != name]
        if not others:
            self.write(scope)
            return
        other = self.rng.choice(others)
        self.put(f"{name}.value, {other}.value = {other}.value, {name}.value")

    def alias(self, scope: Scope) -> None:
        name, type = self.rng.choice(scope.states)
        new = self.fresh("alias")
        self.put(f"{new} = {name}")
        scope.states.append((new, type))
        self.aliases[new] = self.aliases.get(name, name)
        if name in scope.frozen:
            scope.frozen |= {new}

    def local_state(self, scope: Scope) -> None:
        type, name = self.type(F, V, I, B, PAIR), self.fresh("t")
        if type == PAIR:
            self.put(f"{name} = State(({self.expr(F, scope)}, {self.expr(V, scope)}))")
        else:
            self.put(f"{name} = State({self.expr(type, scope)})")
        scope.states.append((name, type))

    def print_(self, scope: Scope) -> None:
        number = self.fresh("p")
        ordered = self.chance(0.5) and not scope.smooth
        value = self.expr(self.type(F, I, V, B), scope, 1)
        kind = "o" if ordered else "u"
        self.put(f'jax.debug.print("{kind} {number} {{}}", {value}, ordered={ordered})')

    def check(self, scope: Scope) -> None:
        """A runtime check. Most never fail: the first failure ends the program."""
        rare = self.chance(0.1)
        fails = f"{self.expr(I, scope, 1)} == 4" if rare else f"jnp.abs({self.expr(F, scope, 1)}) > 1e8"
        value = self.expr(self.type(F, I, V), scope, 1)
        self.put(f'sg.compile.jit_error_if({fails}, "check {self.fresh("f")} failed with {{}}", {value})')

    def callback(self, scope: Scope) -> None:
        name = self.fresh("v")
        value = f"jnp.asarray({self.expr(F, scope, 1)}, jnp.float32)"
        if self.chance(0.5):
            self.put(f"{name} = jax.pure_callback(double, FLOAT, {value})")
        else:
            self.put(f"{name} = jax.experimental.io_callback(note, FLOAT, {value}, ordered=True)")
        scope.names.append((name, F))

    def function(
        self,
        prefix: str,
        parameters: list[tuple[str, str]],
        returns: list[str],
        scope: Scope,
        size: int | None = None,
    ) -> str:
        """A nested function with statements; returns its name."""
        name = self.fresh(prefix)
        self.put(f"def {name}({', '.join(n for n, _ in parameters)}):")
        self.indent += 1
        scope.names += parameters
        self.block(scope, self.rng.randrange(1, 4) if size is None else size)
        values = [self.bounded(t, scope) for t in returns]
        self.put(f"return {', '.join(values)}" if values else "return None")
        self.indent -= 1
        return name

    def scan(self, scope: Scope) -> None:
        carry, out, n = self.type(F, V, I), self.type(F, V, I, B), self.rng.choice((1, 2, 3))
        c, x = self.fresh("c"), self.fresh("e")
        with_xs = self.chance(0.6)
        element = F if with_xs else ""
        body = self.function("body", [(c, carry), (x, element)], [carry, out], scope.inner())
        init = self.strong(carry, scope)
        reverse = ", reverse=True" if self.chance(0.2) else ""
        xs = f"k[:{n}]" if with_xs else f"None, length={n}"
        a, b = self.fresh("v"), self.fresh("v")
        self.put(f"{a}, {b} = jax.lax.scan({body}, {init}, {xs}{reverse})")
        scope.names.append((a, carry))
        if out in (F, I, B):
            last = self.fresh("v")
            self.put(f"{last} = {b}[-1]")
            scope.names.append((last, out))

    def strong(self, type: str, scope: Scope) -> str:
        text = (
            self.rng.choice(("0.5", "0.0", "-1.0"))
            if type == F and self.chance(0.2)
            else self.expr(type, scope)
        )
        if self.chance(0.3):
            return text  # maybe weakly typed: JAX promotes it
        return f"jnp.asarray({text}, jnp.{ {I: 'int32', B: 'bool_'}.get(type, 'float32') })"

    def while_loop(self, scope: Scope) -> None:
        type, c = self.type(F, V, I), self.fresh("c")
        inner = scope.inner(pure=True)
        limit = (
            f"jnp.minimum({self.expr(I, inner, 1)}, 3)" if self.chance(0.5) else str(self.rng.randrange(4))
        )
        extra = f" & {self.expr(B, inner, 1)}" if self.chance(0.3) else ""
        condition = f"lambda {c}: ({c}[0] < {limit}){extra}"
        counters = [n for n, t in writable(scope) if t == I]
        if self.chance(0.25) and not scope.pure and counters:
            counted = self.rng.choice(counters)
            name = self.fresh("condition")
            self.put(f"def {name}({c}):")
            self.put(f"    {counted}.value = ({counted}.value + 1) % 6")
            self.put(f"    return ({c}[0] < {limit}){extra}")
            condition = name
        name = self.fresh("body")
        self.put(f"def {name}({c}):")
        self.indent += 1
        k, value = self.fresh("k"), self.fresh("v")
        self.put(f"{k}, {value} = {c}")
        body = scope.inner()
        body.names += [(k, I), (value, type)]
        self.block(body, self.rng.randrange(1, 4))
        self.put(f"return {k} + 1, {self.bounded(type, body)}")
        self.indent -= 1
        out = self.fresh("v")
        self.put(f"{out} = jax.lax.while_loop({condition}, {name}, (0, {self.strong(type, scope)}))[1]")
        scope.names.append((out, type))

    def fori_loop(self, scope: Scope) -> None:
        type, k, c = self.type(F, V, I), self.fresh("k"), self.fresh("c")
        body = self.function("body", [(k, I), (c, type)], [type], scope.inner())
        low, high = self.rng.randrange(2), self.rng.randrange(4)
        top = str(high) if scope.smooth or self.chance(0.7) else f"jnp.minimum({self.expr(I, scope, 1)}, 3)"
        out = self.fresh("v")
        self.put(f"{out} = jax.lax.fori_loop({low}, {top}, {body}, {self.strong(type, scope)})")
        scope.names.append((out, type))

    def cond(self, scope: Scope) -> None:
        type = self.type()
        yes = self.function("yes", [], [type], scope.inner())
        no = self.function("no", [], [type], scope.inner(), self.rng.randrange(2))
        out = self.fresh("v")
        self.put(f"{out} = jax.lax.cond({self.expr(B, scope)}, {yes}, {no})")
        scope.names.append((out, type))

    def switch(self, scope: Scope) -> None:
        type, q = self.type(), self.fresh("q")
        branches = [
            self.function("branch", [(q, F)], [type], scope.inner(), self.rng.randrange(3)) for _ in range(3)
        ]
        out = self.fresh("v")
        operand = self.expr(F, scope, 1)
        self.put(f"{out} = jax.lax.switch({self.expr(I, scope)}, [{', '.join(branches)}], {operand})")
        scope.names.append((out, type))

    def inner_jit(self, scope: Scope) -> None:
        type, q = self.type(F, V), self.fresh("q")
        name = self.function("f", [(q, type)], [type], scope.inner())
        a, b = self.fresh("v"), self.fresh("v")
        self.put(f"{name} = jax.jit({name})")
        self.put(f"{a} = {name}({self.strong(type, scope)})")
        scope.names.append((a, type))
        if self.chance(0.6):
            self.put(f"{b} = {name}({a})")
            scope.names.append((b, type))

    def checkpoint(self, scope: Scope) -> None:
        type, q, out = self.type(F, V), self.fresh("q"), self.fresh("v")
        name = self.function("f", [(q, type)], [type], scope.inner(quiet=True))
        self.put(f"{out} = checkpoint({name})({self.strong(type, scope)})")
        scope.names.append((out, type))

    def promoted(self, scope: Scope) -> None:
        """A carry that starts as a Python int and becomes a float: JAX traces the body twice."""
        c, out = self.fresh("c"), self.fresh("v")
        name = self.function("body", [(c, F), ("_", "")], [], scope.inner(), self.rng.randrange(1, 3))
        self.lines[-1] = self.lines[-1].replace(
            "return None", f"return {c} * 0.5 + {self.expr(F, scope, 1)}, None"
        )
        self.put(f"{out} = jax.lax.scan({name}, 0, None, length=2)[0]")
        scope.names.append((out, F))

    def random_draw(self, scope: Scope) -> None:
        keys = [name for name, type in scope.states if type == KEY and name not in scope.frozen]
        if not keys:
            return self.assign(scope)
        key, subkey, name = self.rng.choice(keys), self.fresh("key"), self.fresh("v")
        self.put(f"{key}.value, {subkey} = jax.random.split({key}.value)")
        self.put(f"{name} = jax.random.uniform({subkey}, (3,))")
        scope.names.append((name, V))

    def stream_draw(self, scope: Scope) -> None:
        """Numbers of a ``RandomState``; lanes draw their own."""
        streams = [name for name, type in scope.states if type == RNG]
        if not streams:
            return self.assign(scope)
        stream, name = self.rng.choice(streams), self.fresh("v")
        draws = ["rand(3)", "uniform(-1.0, 1.0, (3,))", "randint(0, 4, (3,))", "bernoulli(0.4, (3,))"]
        if not self.exact:
            draws += ["randn(3)", "poisson(1.5, (3,))", "exponential(0.5, (3,))"]
        self.put(f"{name} = jnp.asarray({stream}.{self.rng.choice(draws)}, jnp.float32)")
        scope.names.append((name, V))

    def recorded(self, scope: Scope) -> None:
        """A run of a module that records what it returns and what States hold."""
        type, x, rec, out = self.type(F, V), self.fresh("x"), self.fresh("rec"), self.fresh("v")
        name = self.function("step", [(x, F)], [type], scope.inner())
        inputs = self.rng.choice(("0.5", "k[:3]", "lambda t: k[1] - t", self.expr(F, scope, 1)))
        monitors = ['"out": lambda out: jnp.asarray(out, jnp.float32)']
        looked = [n for n, t in scope.states if t in (F, V) and not self.shadowed(n)]
        if looked:
            state = self.rng.choice(looked)
            monitors.append(f'"state": ({state}, None, {self.rng.choice((1, 2))})')
        self.put(
            f"{rec} = sg.nn.run(Runner({name}, clock), 0.3, {inputs}, {{{', '.join(monitors)}}}, dt=0.1)"
        )
        self.put(f'{out} = jnp.asarray({rec}["out"][-1])')
        scope.names.append((out, type))
        if looked:
            self.put(f'{out}s = jnp.max(jnp.asarray({rec}["state"]))')
            scope.names.append((f"{out}s", F))

    def shadowed(self, name: str) -> bool:
        """Whether a State may be one of this trace, which a recording cannot name."""
        return self.aliases.get(name, name)[0] not in "sw"

    def change_type(self, scope: Scope) -> None:
        """Straight-line code may give a State another type; here it gets its own back."""
        names = [name for name, type in writable(scope) if type == F]
        if not names:
            return self.assign(scope)
        state, name = self.rng.choice(names), self.fresh("v")
        self.put(f"{state}.value = {self.expr(V, scope)}")
        self.put(f"{name} = {state}.value * 0.5")
        scope.names.append((name, V))
        self.put(f"{state}.value = {name}[{self.rng.randrange(3)}]")

    def own_rule(self, scope: Scope) -> None:
        """A function with a derivative rule that calls the function; both may read State."""
        q, out = self.fresh("q"), self.fresh("v")
        pure = scope.inner(pure=True, quiet=True)
        pure.depth = 3
        pure.names.clear()  # a rule may use States of the model, but nothing of the function around it
        pure.states = [(name, type) for name, type in scope.states if name[0] in "sw" and not scope.smooth]
        name = self.function("h", [(q, V)], [V], pure, 1)
        outside = attrs.evolve(pure, names=[])
        slope = self.expr(F, outside, 1)
        self.put(f"{name} = jax.custom_jvp({name})")
        self.put(f"{name}.defjvp(lambda p, t: ({name}(p[0]), t[0] * {slope}))")
        self.put(f"{out} = {name}({self.expr(V, scope)})")
        scope.names.append((out, V))

    def compiled_scan(self, scope: Scope) -> None:
        type, c, out, ys = self.type(F, V), self.fresh("c"), self.fresh("v"), self.fresh("v")
        body = self.function("body", [(c, type), ("_", "")], [type, F], scope.inner())
        init = f"jnp.asarray({self.expr(type, scope)}, jnp.float32)"
        self.put(f"{out}, {ys} = sg.compile.scan({body}, {init}, length={self.rng.randrange(1, 4)})")
        self.put(f"{out}l = {ys}[-1]")
        scope.names += [(out, type), (f"{out}l", F)]

    def compiled_ifelse(self, scope: Scope) -> None:
        type, out = self.type(F, V), self.fresh("v")
        size = self.rng.randrange(1, 3)
        branches = [self.function("branch", [], [type], scope.inner(), size) for _ in range(3)]
        conditions = f"[{self.expr(B, scope)}, {self.expr(B, scope)}]"
        self.put(f"{out} = sg.compile.ifelse({conditions}, [{', '.join(branches)}])")
        scope.names.append((out, type))

    def compiled_loop(self, scope: Scope) -> None:
        x = self.fresh("x")
        body = self.function("body", [(x, F)], [], scope.inner())
        self.put(f"sg.compile.for_loop({body}, k[: {self.rng.randrange(1, 4)}])")

    def compiled_cond(self, scope: Scope) -> None:
        type, out = self.type(F, V, I), self.fresh("v")
        yes = self.function("yes", [], [type], scope.inner())
        no = self.function("no", [], [type], scope.inner(), 0)
        self.put(f"{out} = sg.compile.cond({self.expr(B, scope)}, {yes}, {no})")
        scope.names.append((out, type))

    def lanes(self, scope: Scope) -> None:
        """``augment.vmap``: over slices of States, over copies of all States, or reading only."""
        whole, part = self.rng.choice(((V, F), (V, F), (M, V)))
        inner = scope.inner(quiet=True)
        mapped: set[str] = set()
        kept: set[str] = set()
        options = ""
        if not scope.pure and self.chance(0.3):
            options = ", isolated=True"
        else:
            roots = {self.aliases.get(n, n) for n, t in writable(scope) if t == whole and not scope.pure}
            found = sorted(n for n in roots if n not in scope.frozen)
            mapped = set(self.rng.sample(found, self.rng.randrange(1, len(found) + 1)) if found else [])
            kept = set(self.rng.sample(sorted(mapped), 1) if mapped and self.chance(0.3) else [])
            mapped -= kept
            named = {n: self.aliases.get(n, n) for n, _ in inner.states}
            inner.states = [
                (n, part if named[n] in mapped else t) for n, t in inner.states if named[n] not in kept
            ]
            inner.frozen = frozenset(n for n, _ in inner.states if named[n] not in mapped)
            if mapped:
                options += f", in_states=[{', '.join(sorted(mapped))}]"
        q, out = self.fresh("q"), self.fresh("v")
        name = self.function("lane", [(q, part)], [part], inner)
        for state in kept:  # every lane overwrites it
            options += f", out_states={state}"
            last = self.lines.pop()
            self.put(f"    {state}.value = jnp.asarray({self.bounded(part, inner)}, jnp.float32)")
            self.lines.append(last)
        self.put(f"{out} = sg.augment.vmap({name}{options})({self.expr(whole, scope)})")
        scope.names.append((out, whole))

    def gradient(self, scope: Scope) -> None:
        """A gradient with respect to parameters, an argument, or both; the loss may write State."""
        params = [(n, t) for n, t in scope.states if n.startswith("w")]
        q, type = self.fresh("q"), self.type(F, V)
        wanted = self.rng.choice(["argument", "states", "both"]) if params else "argument"
        chosen = self.rng.sample(params, self.rng.randrange(1, len(params) + 1)) if params else []
        loss = self.function("loss", [(q, type)], [F], scope.inner(smooth=True), self.rng.randrange(1, 4))
        if wanted != "argument":  # a gradient may only be asked for what the loss reads
            self.lines[-1] += "".join(f" + 0.1 * jnp.sum({n}.value)" for n, _ in chosen)
        argument = self.strong(type, scope)
        states = "" if wanted == "argument" else f", grad_states=[{', '.join(n for n, _ in chosen)}]"
        argnums = "" if wanted == "states" else ", argnums=0"
        value, g = self.fresh("v"), self.fresh("g")
        self.put(
            f"{value}, {g} = value_and_grad({loss}{states}{argnums})(jnp.asarray({argument}, jnp.float32))"
        )
        scope.names.append((value, F))
        if wanted in ("argument", "both"):
            self.put(f"{g}a = {g}{'[1]' if wanted == 'both' else ''}")
            scope.names.append((f"{g}a", type))
        if wanted in ("states", "both"):
            leaves = f"jax.tree.leaves({g}{'[0]' if wanted == 'both' else ''})"
            self.put(f"{g}s = sum(jnp.sum(leaf) for leaf in {leaves})")
            scope.names.append((f"{g}s", F))

    # ------------------------------------------------------------------------------------------------ module

    def module(self, title: str) -> str:
        scope = Scope()
        self.put("def make():")
        self.indent = 1
        kinds = [F, V, I, B, *self.rng.choices([F, V, M, I, DICT, PAIR], k=self.rng.randrange(1, 4))]
        kinds += [KEY] * (self.rng.random() < 0.5) + [RNG] * (self.rng.random() < 0.5)
        for type in kinds:
            name = self.fresh("s")
            initial = self.initial(type)
            self.put(f"{name} = {initial if type == RNG else f'State({initial})'}")
            scope.states.append((name, type))
        for type in self.rng.choices([F, V, M], k=self.rng.randrange(1, 3)):
            name = self.fresh("w")
            self.put(f"{name} = ParamState({self.initial(type)})")
            scope.states.append((name, type))
        given = dict(scope.states)
        self.put("k = jnp.array([0.5, -0.25, 1.5, 2.0, -1.0, 0.1])")
        self.put("clock = sg.nn.Clock()")
        self.put("")
        self.put("def program(x, y, n):")
        self.indent = 2
        scope.names += [("x", F), ("y", V), ("n", I)]
        self.block(scope, self.rng.randrange(3, 8))
        results = ", ".join(self.expr(t, scope) for t in self.rng.choices([F, V, I], k=2))
        self.put(f"return {results}")
        self.indent = 1
        self.put("")
        clock = ["'clock.i': clock.i", "'clock.dt': clock.dt"]
        self.put(f"states = {{{', '.join([*(f'{n!r}: {n}' for n in given), *clock])}}}")
        number = self.rng.choice((0.5, -1.25, 2.0))
        self.put(f"x, y = jnp.float32({number}), jnp.array([1.0, {number}, -0.5])")
        self.put(f"return program, (x, y, jnp.int32({self.rng.randrange(4)})), states")
        return HEADER.format(title=title, exact=self.exact) + "\n".join(self.lines) + "\n"

    def initial(self, type: str) -> str:
        if type == DICT:
            return "{'a': jnp.array([0.1, -0.2, 0.3]), 'n': (jnp.int32(1), jnp.array(True))}"
        if type == PAIR:
            return "(jnp.float32(0.75), jnp.array([1.0, 2.0, -0.5]))"
        if type == KEY:
            return f"jax.random.key({self.rng.randrange(100)})"
        if type == RNG:
            return f"sg.random.RandomState({self.rng.randrange(100)})"
        number = self.rng.choice((0.3, -1.1, 0.0, 1.7))
        if type in (V, M):
            return f"jnp.linspace({number}, 1.0, {3 if type == V else 6}).reshape({SHAPES[type]})"
        return self.literal(type) if type in (I, B) else f"jnp.float32({number})"


def generate(seed: int, *, gradients: bool = True) -> str:
    """The source of a random program; ``gradients`` allows ``augment``."""
    rng = random.Random(seed)
    exact = rng.random() < 0.65
    generator = Generator(rng, exact, gradients and not exact)
    return generator.module(f"Generated by tests/fuzz/generator.py from seed {seed}.")
