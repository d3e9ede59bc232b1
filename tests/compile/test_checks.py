"""Runtime checks: compiled code raises what eager Python raises, wherever the check stands, and keeps State."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import stategraph as sg
from stategraph import environ, ir
from stategraph.backends import reference, reference_compare
from stategraph.errors import CheckError, StateAccessError
from tests.support import leaves_of

pytestmark = pytest.mark.core
error_if = sg.compile.jit_error_if


def first_line(function, *args):
    """The first line of what a call raises; empty if it raises nothing."""
    try:
        function(*args)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def positive(x, name="x"):
    error_if(x < 0, "{name} is {x:.1f}", x=x, name=name)
    return jnp.sqrt(jnp.abs(x))


@jax.custom_vjp
def ruled(x):
    error_if(x > 5, "primal {0:.1f}", x)
    return x * x


def _forward(x):
    error_if(x > 5, "forward {0:.1f}", x)
    return x * x, x


ruled.defvjp(_forward, lambda x, g: (2 * x * g,))


@jax.custom_jvp
def tangent_ruled(x):
    error_if(x > 5, "primal {0:.1f}", x)
    return x * x


@tangent_ruled.defjvp
def _tangent(primals, tangents):
    error_if(primals[0] > 5, "tangent {0:.1f}", primals[0])
    return primals[0] ** 2, 2 * primals[0] * tangents[0]


@jax.custom_jvp
def recursive(x):
    error_if(x < -1, "recursive {0:.1f}", x)
    return x**3


@recursive.defjvp
def _recursive_tangent(primals, tangents):
    (x,), (t,) = primals, tangents
    return recursive(x), recursive(x) / x * 3 * t


def cases():
    """Functions of a vector: some with State, none of which raises for ones."""
    count = sg.State(0.0)
    w = sg.ParamState(1.0)

    def straight(xs):
        positive(xs[0], "a")
        return positive(xs[1], "b")

    def loop(xs):
        def step(x):
            count.value += 1.0
            return positive(x - 0.1 * count.value + 1.0)

        count.value = 0.0
        return sg.compile.for_loop(step, xs)

    def while_loop(xs):
        def body(i):
            positive(xs[i])
            return i + 1

        return sg.compile.while_loop(lambda i: i < xs.size, body, 0)

    def condition(xs):
        def going(i):
            positive(xs[i], "condition")
            return i < xs.size - 1

        return sg.compile.while_loop(going, lambda i: i + 1, 0)

    def branch(xs):
        return sg.compile.cond(xs[0] > 0, lambda: positive(xs[1]), lambda: positive(xs[2], "else"))

    def lanes(xs):
        return sg.augment.vmap(lambda x: positive(positive(x) - 0.5, "second") + positive(x))(xs)

    def branch_in_lanes(xs):
        return sg.augment.vmap(lambda x: sg.compile.cond(x > 0, lambda: positive(x), lambda: x))(xs)

    def loop_of_its_own_length_in_lanes(xs):
        def body(c):
            error_if(c < 0.6, "an ended lane goes on")
            return c - 1

        positive(xs.sum())
        return sg.augment.vmap(lambda x: sg.compile.while_loop(lambda c: c > 0.5, body, x + jnp.round(x)))(xs)

    def lanes_in_loop(xs):
        def step(x):
            count.value += 1.0
            return sg.augment.vmap(lambda y: positive(x * y))(xs)

        return sg.compile.for_loop(step, xs)

    def loop_in_lanes(xs):
        return sg.augment.vmap(lambda x: sg.compile.for_loop(lambda y: positive(x + y), xs - 1))(xs)

    def lanes_in_lanes(xs):
        return sg.augment.vmap(lambda x: sg.augment.vmap(lambda y: positive(x * y + 0.5))(xs))(xs)

    def gradient(xs):
        return sg.augment.grad(lambda: positive(w.value * xs[0], "in gradient") + positive(xs[1]), w)()

    def gradient_of_loop(xs):
        def loss():
            return sg.compile.for_loop(lambda x: positive(w.value * x), xs).sum()

        return sg.augment.grad(loss, w)()

    def gradient_of_lanes(xs):
        return sg.augment.grad(lambda: sg.augment.vmap(lambda x: positive(w.value * x))(xs).sum(), w)()

    def lanes_of_gradient(xs):
        return sg.augment.vmap(lambda x: sg.augment.grad(lambda: positive(w.value * x), w)())(xs)

    def remat(xs):
        return sg.augment.grad(lambda: sg.compile.checkpoint(lambda x: positive(w.value * x))(xs[0]), w)()

    def forward(xs):
        return sg.augment.jvp(lambda x: positive(x[1]), (xs,), (xs,))

    def jacobian(xs):
        return sg.augment.jacrev(lambda x: jnp.stack([positive(x[0]), positive(x[1])]), argnums=0)(xs)

    def inner_jit(xs):
        return jax.jit(positive)(xs[1])

    def with_rule(xs):
        return ruled(6.5 - jnp.sign(xs[0]) * 2)

    def gradient_of_rule(xs):
        return sg.augment.grad(lambda x: ruled(6.5 - jnp.sign(xs[0]) * 2 + 0 * x), argnums=0)(1.0)

    def gradient_of_rule_in_loop(xs):
        def step(x):
            return sg.augment.grad(lambda y: tangent_ruled(6.5 - jnp.sign(x) * 2 + 0 * y), argnums=0)(1.0)

        return sg.compile.for_loop(step, xs)

    def recursive_rule(xs):
        return sg.augment.grad(lambda x: recursive(x * xs[0]) + jax.nn.relu(x), argnums=0)(2.0)

    def devices(xs):
        mesh, spec = jax.make_mesh((1,), ("i",)), jax.sharding.PartitionSpec("i")
        return sg.augment.shard_map(lambda x: jax.vmap(positive)(x), mesh, (spec,), spec)(xs)

    def checkpointed(xs):
        return sg.augment.grad(
            lambda: sg.compile.checkpointed_for_loop(lambda x: positive(w.value * x), xs, base=2).sum(), w
        )()

    return {name: function for name, function in locals().items() if callable(function)}


INPUTS = [[1.0, 1, 1, 1, 1], [1.0, -2, 1, 1, 1], [-3.0, 1, -1, 1, 1], [1.0, 1, 1, 1, -2]]


@pytest.mark.parametrize("name", list(cases()))
def test_compiled_code_raises_what_eager_code_raises(name):
    compiled = sg.compile.jit(cases()[name])
    # Eagerly every op over devices is compiled anew: one input that passes and one that raises have to do.
    for numbers in INPUTS[:2] if name == "devices" else INPUTS:
        xs = jnp.asarray(numbers)
        with jax.disable_jit():
            expected = first_line(cases()[name], xs)
        assert first_line(compiled, xs) == expected
        assert first_line(compiled, jnp.ones(5)) == ""
    program = compiled.trace(xs).program
    assert len(list(program.walk("check.error_if"))) >= 1
    reference_compare.validate(program, compiled.lower(xs).program, exactness="reduction-order")


def test_the_state_is_committed_and_the_next_call_runs():
    total = sg.State(0.0)

    @sg.compile.jit
    def add(x):
        total.value += x
        error_if(total.value > 2, "too much: {0}", total.value)
        return total.value

    add(2.0)
    with pytest.raises(CheckError, match=r"too much: 3\.0"):
        add(1.0)
    assert float(total.value) == 3.0
    assert float(add(-2.0)) == 1.0
    assert add.trace_count == 1


def test_state_is_still_donated():
    total = sg.State(jnp.zeros(8))

    def add(x):
        total.value += x
        error_if(x > 2, "no")

    assert sg.trace(add, 1.0).lower().executable.donated


@pytest.mark.parametrize("jitted", [False, True])
def test_what_an_error_may_be(jitted):
    def run(error, *args, **kwargs):
        def function(x):
            error_if(x > 0, error, *args, **kwargs)

        return (sg.compile.jit(function) if jitted else function)(1.0)

    def build(x, name):
        raise OverflowError(f"{name}: {x + 1:.1f}")

    with pytest.raises(CheckError, match=r"plain \{braces\}"):
        run("plain {braces}")
    with pytest.raises(CheckError, match=r"wrong \{0 \(1.0"):
        run("wrong {0", jnp.ones(()))
    with pytest.raises(KeyError, match="missing"):
        run(KeyError("missing"))
    with pytest.raises(ZeroDivisionError, match=r"1\.0"):
        run(ZeroDivisionError, jnp.ones(()))
    with pytest.raises(OverflowError, match=r"v: 3.0"):
        run(build, 2 * jnp.ones(()), name="v")
    with pytest.raises(ArithmeticError, match="returned"):
        run(lambda: ArithmeticError("returned"))
    with pytest.raises(CheckError, match="raises nothing"):
        run(lambda: None)
    with pytest.raises(TypeError, match="message, an exception or a function"):
        run(3)


def test_the_line_of_the_check_is_named():
    @sg.compile.jit
    def f(x):
        error_if(x > 0, "positive")

    with pytest.raises(CheckError, match=r"test_checks\.py"):
        f(1.0)


def test_arrays_as_predicates_and_values():
    @sg.compile.jit
    def f(x, key):
        error_if(x < 0, "{x} {key}", x=x, key=key)

    f(jnp.ones(3), jax.random.key(0))
    with pytest.raises(CheckError, match=r"\[ 1. -1.\] \[0 1\]"):
        f(jnp.array([1.0, -1.0]), jax.random.key(1))


def test_checks_can_be_switched_off():
    @sg.compile.jit
    def f(x):
        error_if(x > 0, "positive")
        return x

    with environ.context(jit_error_check=False):
        assert float(f(1.0)) == 1.0
    with pytest.raises(CheckError):
        f(1.0)


def test_a_program_without_checks_is_as_it_was():
    lowered = sg.trace(lambda x: x + 1, 1.0).lower()
    assert lowered.executable.checks is None
    assert not lowered.program.states


def test_a_program_read_back_from_text_still_checks():
    def f(x):
        error_if(x > 0, "x is {0}", x)
        error_if(x < -5, ValueError, x)
        return x

    for program in (sg.trace(f, 1.0).program, sg.trace(f, 1.0).lower().program):
        lowered = sg.lower(ir.parse(str(program)))
        compiled = lowered.compile()
        assert float(compiled(-1.0)) == -1.0
        with pytest.raises(CheckError, match=r"x is 1.0"):
            compiled(1.0)
        with pytest.raises(ValueError, match="-6"):
            compiled(-6.0)


def test_functional_calls_raise_and_touch_nothing():
    total = sg.State(0.0)

    def add(x):
        total.value += x
        error_if(total.value > 2, "too much")
        return total.value

    compiled = sg.trace(add, 1.0).lower().compile()
    result, new = compiled.functional({"total": 1.0}, 1.0)
    assert (float(result), {k: float(v) for k, v in new.items()}) == (2.0, {"total": 2.0})
    with pytest.raises(CheckError):
        compiled.functional({"total": 2.0}, 1.0)
    assert float(total.value) == 0.0


def test_an_exported_program_checks(tmp_path):
    total = sg.State(0.0)

    def add(x):
        total.value += x
        error_if(total.value > 2, "{0} is too much", total.value)
        return total.value

    path = tmp_path / "add.sgx"
    sg.export(add, 1.0, path=path)
    loaded = sg.load_exported(path)
    assert list(loaded.states) == ["total"]
    assert float(loaded(np.float32(2.0))) == 2.0
    with pytest.raises(CheckError, match=r"3\.0 is too much"):
        loaded(np.float32(1.0))
    assert float(loaded.states["total"]) == 3.0
    with pytest.raises(CheckError, match=r"3\.0 is too much"):
        loaded.functional({"total": np.float32(2.0)}, np.float32(1.0))


def test_raw_jax_transformations_inside_a_program():
    @sg.compile.jit
    def lanes(xs):
        return jax.vmap(positive)(xs), jax.vmap(lambda x: jax.lax.scan(lambda c, y: (c, positive(y)), x, xs))(
            xs
        )

    @sg.compile.jit
    def gradient(x):
        return jax.grad(positive)(x), jax.grad(
            lambda y: jax.lax.scan(lambda c, z: (c, positive(c)), y, xs=None, length=3)[0]
        )(x)

    @sg.compile.jit
    def others(x):
        again = jax.checkpoint(lambda y: positive(jax.jit(positive)(y)))
        found = jax.grad(again)(x), jax.jvp(positive, (x,), (x,)), jax.hessian(positive)(x)
        return found, jax.linearize(positive, x)[1](x), jax.vjp(ruled, x)[1](x), jax.jacfwd(positive)(x)

    lanes(jnp.ones(3))
    gradient(1.0)
    others(1.0)
    assert first_line(others, -2.0) == "CheckError: x is -2.0"
    assert first_line(others, 6.0) == "CheckError: forward 6.0"
    assert first_line(lanes, jnp.array([1.0, -2.0, -3.0])) == "CheckError: x is -2.0"
    assert first_line(gradient, -2.0) == "CheckError: x is -2.0"


def test_eager_jax_transformations():
    assert first_line(jax.vmap(positive), jnp.array([1.0, -2.0, -3.0])) == "CheckError: x is -2.0"
    assert first_line(jax.grad(positive), -2.0) == "CheckError: x is -2.0"


def test_a_foreign_jit_is_refused():
    with pytest.raises(StateAccessError, match=r"compile\.jit"):
        jax.jit(positive)(1.0)


def test_a_check_in_a_backward_rule_is_refused():
    @jax.custom_vjp
    def f(x):
        return x

    def backward(_, g):
        error_if(g > 0, "no")
        return (g,)

    f.defvjp(lambda x: (x, None), backward)
    with pytest.raises(sg.passes.PassError, match="backward rule"):
        sg.compile.jit(lambda x: sg.augment.grad(f, argnums=0)(x))(1.0)


def test_threads_see_their_own_failures():
    from concurrent.futures import ThreadPoolExecutor

    @sg.compile.jit
    def f(x):
        error_if(x > 5, "{0}", x)
        return x

    f(0.0)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: first_line(f, float(i)), range(40)))
    assert found == ["" if i <= 5 else f"CheckError: {float(i)}" for i in range(40)]


def test_the_interpreter_raises_too():
    trace = sg.trace(positive, 1.0)
    for program in (trace.program, trace.lower().program):
        reference.run(program, [jnp.float32(1)], {})
        with pytest.raises(reference.CheckFailure, match=r"x is -1.0"):
            reference.run(program, [jnp.float32(-1)], {})


# ------------------------------------------------------------------------------------------------- checkify


def counted():
    count = sg.State(0)

    def f(xs, i):
        count.value += 1
        checkify.check(xs[0] > 0, "first is {x}", x=xs[0])
        error_if(xs[1] < 0, "second is {0}", xs[1])
        return jnp.log(xs)[i] / xs[2]

    return f, count


@pytest.mark.parametrize("way", ["eager", "jit", "disabled"])
@pytest.mark.parametrize(
    ("errors", "xs", "i", "message"),
    [
        (checkify.all_checks, [1.0, 1, 1], 0, None),
        (checkify.user_checks, [-1.0, 1, 1], 0, "first is -1.0"),
        (checkify.user_checks, [1.0, -1, 1], 0, "second is -1.0"),
        (checkify.nan_checks, [1.0, -1, 1], 0, "nan generated by primitive: log"),
        (checkify.div_checks, [1.0, 1, 0], 0, "division by zero"),
        (checkify.index_checks, [1.0, 1, 1], 7, "out-of-bounds"),
        (checkify.div_checks, [-1.0, -1, 1], 7, None),
    ],
)
def test_checkify_collects_errors_and_commits_state(way, errors, xs, i, message):
    f, count = counted()
    checked = sg.compile.checkify(f, errors)
    function = sg.compile.jit(checked) if way == "jit" else checked
    if way == "disabled":
        with jax.disable_jit():
            error, _ = function(jnp.asarray(xs), i)
    else:
        error, _ = function(jnp.asarray(xs), i)
    found = error.get()
    assert (found is None) if message is None else (message in found)
    assert int(count.value) == 1


def test_checkify_over_a_loop_with_state():
    total = sg.State(0.0)

    def step(x):
        total.value += x
        checkify.check(total.value < 3, "total is {t}", t=total.value)
        return total.value

    error, ys = sg.compile.checkify(lambda xs: sg.compile.for_loop(step, xs))(jnp.ones(4))
    assert "total is 3.0" in error.get()
    assert np.asarray(ys).tolist() == [1, 2, 3, 4]
    assert float(total.value) == 4.0
    with pytest.raises(Exception, match="total is 3"):
        error.throw()
    assert leaves_of({"total": total})


def test_a_check_of_checkify_that_nobody_collects_raises():
    total = sg.State(0.0)

    @sg.compile.jit
    def add(xs):
        def step(x):
            total.value += x
            checkify.check(total.value < 3, "total is {t}", t=total.value)

        sg.compile.for_loop(step, xs)

    add(jnp.ones(2))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"total is 3\.0"):
        add(jnp.ones(2))
    assert float(total.value) == 4.0
