"""Param: constrained values over unconstrained State, in eager and in traced code; what is kept between
reads.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from stategraph.nn import param_cache
from tests.oracle import agree

SOFT = nn.SoftplusT()


class Net(nn.Module):
    """Params at two levels, constrained and not."""

    def __init__(self) -> None:
        super().__init__()
        self.tau = nn.Param(jnp.array([1.0, 2.0]), t=SOFT, reg=nn.L1Reg(0.5))
        self.inner = nn.Module()
        self.inner.gain = nn.Param(jnp.ones(2), reg=nn.L2Reg(2.0))  # type: ignore[attr-defined]
        self.offset = nn.Const(jnp.zeros(2))

    def update(self, x: Any) -> Any:
        return x * self.tau.value() * self.inner.gain.value() + self.offset.value()  # type: ignore[attr-defined]


@pytest.mark.core
def test_the_value_is_constrained_and_the_state_is_not() -> None:
    p = nn.Param(jnp.array([0.5, 3.0]), t=SOFT)
    assert type(p.val) is sg.ParamState and p.fit and p.reg is None and p.t is SOFT and p.precompute is None
    np.testing.assert_allclose(p.val.value, np.log(np.expm1([0.5, 3.0])), rtol=1e-6)
    np.testing.assert_allclose(p.value(), [0.5, 3.0], rtol=1e-6)
    np.testing.assert_allclose(p(), p.value())
    p.set_value([1.0, 2.0])
    np.testing.assert_allclose(p.value(), [1.0, 2.0], rtol=1e-6)
    p.clip(1.5)
    np.testing.assert_allclose(p.value(), [1.5, 2.0], rtol=1e-6)
    p.clip(max_val=1.75)
    np.testing.assert_allclose(p.value(), [1.5, 1.75], rtol=1e-6)
    assert type(nn.Const(1.0).val) is sg.State and not nn.Const(1.0).fit
    assert nn.Param(1).val.dtype == jnp.float32 and nn.Const(1).val.dtype == jnp.int32
    with sg.environ.context(precision="bf16"):
        assert nn.Param(1.0).val.dtype == jnp.bfloat16 == nn.Param([1, 2]).val.dtype


@pytest.mark.core
def test_shape_dtype_and_size_are_those_of_the_value() -> None:
    p = nn.Param(jnp.full(4, 0.25), t=nn.SimplexT())
    assert p.val.shape == (3,) and p.value.shape == (4,) and p.value.size == 4 and p.value.ndim == 1
    outer = nn.Param(jnp.ones(3), precompute=lambda v: jnp.outer(v, v))
    assert outer.value.shape == (3, 3) == outer.value().shape and outer.value.dtype == jnp.float32
    assert "(3, 3); call it" in repr(outer.value)
    tree = nn.Param({"a": jnp.ones(2), "b": jnp.ones(())}, t=SOFT)
    assert tree.value.shape == {"a": (2,), "b": ()} and tree.value.size == 3
    np.testing.assert_allclose(tree.value()["a"], [1, 1], rtol=1e-6)


@pytest.mark.core
def test_wrong_values_are_refused_and_change_nothing() -> None:
    p = nn.Param(jnp.array([0.5, 3.0]), t=SOFT)
    with pytest.raises(ValueError, match=r"not in the range of SoftplusT\(lower=0.0\): \[-1"):
        p.set_value([2.0, -1.0])
    with pytest.raises(sg.errors.StateTypeError, match=r"it is float32\[2\], and the value float32\[3\]"):
        p.set_value(jnp.ones(3))
    with pytest.raises(sg.errors.StateTypeError, match="another shape"):
        p.set_value({"a": jnp.ones(2)})
    np.testing.assert_allclose(p.value(), [0.5, 3.0], rtol=1e-6)
    with pytest.raises(ValueError, match="range of SimplexT"):
        nn.Param(jnp.ones(3), t=nn.SimplexT())
    with pytest.raises(TypeError, match=r"not a class \(SoftplusT; make an instance"):
        nn.Param(1.0, t=nn.SoftplusT)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reg is a regulariser"):
        nn.Param(1.0, reg=0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="precompute is a function"):
        nn.Param(1.0, precompute=3)  # type: ignore[arg-type]


@pytest.mark.core
def test_compiled_code_computes_what_eager_code_does() -> None:
    def make() -> Any:
        net = Net()

        def step(x: Any) -> Any:
            with net.param_precompute():
                loss, grads = sg.augment.value_and_grad(
                    lambda: jnp.sum(net(x) ** 2) + net.reg_loss(), net.states(sg.ParamState)
                )()
                for path, state in net.states(sg.ParamState).items():
                    state.value -= 0.05 * grads[path]
                return loss, net.tau.value(), net.tau.value()

        return step, list(net.states().values())

    agree(make, (jnp.array([0.5, -1.0]),), (jnp.array([1.0, 2.0]),))


@pytest.mark.core
def test_kept_values_never_meet_gradients_or_traces() -> None:
    net, x = Net(), jnp.array([1.0, 2.0])
    params = net.states(sg.ParamState)

    def loss() -> Any:
        return jnp.sum(net(x) ** 2)

    expected = sg.augment.grad(loss, params)()
    with net.param_precompute():
        kept = net.tau.value()
        assert net.tau.value() is kept
        for grads in (
            sg.augment.grad(loss, params)(),  # the values were kept outside of the gradient
            sg.compile.jit(sg.augment.grad(loss, params))(),
            sg.compile.jit(lambda: (net.tau.cache(), sg.augment.grad(loss, params)())[1])(),
        ):
            assert set(grads) == {("inner", "gain", "val"), ("tau", "val")}
            for path, grad in grads.items():
                np.testing.assert_allclose(grad, expected[path], rtol=1e-6)
        with jax.checking_leaks():
            np.testing.assert_allclose(sg.compile.jit(net)(x), net(x), rtol=1e-6)
        graphdef, trees = sg.graph.treefy_split(net)
        raw = jax.jit(jax.grad(lambda t: jnp.sum(sg.graph.treefy_merge(graphdef, t)(x) ** 2)))(trees)
        np.testing.assert_allclose(raw["tau"]["val"].value, expected[("tau", "val")], rtol=1e-6)
        assert net.tau.value() is kept and net.tau.cache_stats["valid"]
    assert not param_cache.CACHES


def test_a_new_value_of_the_state_is_noticed_however_it_is_written() -> None:
    net = Net()
    with net.param_precompute():
        net.tau.set_value(jnp.array([3.0, 4.0]))
        np.testing.assert_allclose(net.tau.value(), [3, 4], rtol=1e-6)
        net.tau.val.value = jnp.zeros(2)
        np.testing.assert_allclose(net.tau.value(), np.log([2.0, 2.0]), rtol=1e-6)
        step = sg.compile.jit(lambda: setattr(net.tau.val, "value", net.tau.val.value + 1.0))
        for expected in (1.0, 2.0, 3.0):
            step()
            np.testing.assert_allclose(net.tau.value(), np.log1p(np.exp([expected] * 2)), rtol=1e-6)


def test_keeping_values_by_hand() -> None:
    p = nn.Param(jnp.ones(3), t=SOFT)
    assert p.cache_stats == {"valid": False, "hits": 0, "misses": 0} and p.value() is not p.value()
    value = p.cache()
    assert p.value() is value and p.cache_stats == {"valid": True, "hits": 1, "misses": 1}
    with p.param_precompute():
        assert p.value() is value
    assert p.value() is value, "a block leaves what was kept by hand"
    p.clear_cache()
    p.clear_cache()
    assert p.value() is not value and not param_cache.CACHES
    with p.param_precompute(), p.param_precompute():
        first = p.value()
        p.clear_cache()
        assert p.value() is not first, "computed again in the block"
    assert not param_cache.CACHES


def test_uses_of_kept_values_are_logged_when_wanted(caplog: pytest.LogCaptureFixture) -> None:
    p, silent = nn.Param(jnp.ones(3), SOFT, None, None, True, True, "tau"), nn.Param(jnp.ones(3), t=SOFT)
    with caplog.at_level("INFO", "stategraph.nn.Param"):
        p.value()
        for param in (p, silent):
            param.cache()
            param.value()
        p.val.value = p.val.value + 1
        p.value()
    computed, used = ("Param tau: a value to keep is computed", "Param tau: the kept value is used")
    assert caplog.messages == [computed, used, computed]
    for param in (p, silent):
        param.clear_cache()


def test_a_const_is_not_trained() -> None:
    assert type(nn.Const(2.0, fit=False).val) is sg.State
    with pytest.raises(ValueError, match=r"(?s)is to be trained.*nn\.Param"):
        nn.Const(2.0, fit=True)


def test_copies_of_a_model_keep_nothing_and_caches_die_with_their_param() -> None:
    net = Net()
    with net.param_precompute():
        copy = sg.graph.clone(net)
        assert copy.tau not in param_cache.CACHES
    net.tau.cache()
    del net, copy
    gc.collect()
    assert not param_cache.CACHES


def test_hierarchy_and_errors_of_param_precompute() -> None:
    net = Net()
    with net.param_precompute(allowed_hierarchy=(1, 1)):
        assert net.tau in param_cache.CACHES and net.inner.gain not in param_cache.CACHES  # type: ignore[attr-defined]
    with net.param_precompute(lambda p: p.fit):
        assert net.offset not in param_cache.CACHES
    with pytest.raises(ValueError, match="went wrong"):
        with net.param_precompute():
            raise ValueError("something went wrong")
    assert not param_cache.CACHES


def test_threads_share_kept_values() -> None:
    p = nn.Param(jnp.ones(3), t=SOFT)
    wrong: list[Any] = []

    def work(i: int) -> None:
        for _ in range(50):
            with p.param_precompute():
                if not jnp.allclose(p.value(), 1.0):
                    wrong.append(p.value())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not param_cache.CACHES


def test_the_compiler_computes_a_value_once() -> None:
    net = Net()

    def three(x: Any) -> Any:
        return net(x) + net(x) + net.tau.value()

    def exponentials(function: Any) -> int:
        return str(sg.trace(function, jnp.ones(2)).lower().compile().as_text("hlo")).count(" exponential(")

    assert exponentials(three) == exponentials(lambda x: net.tau.value()) > 0


@pytest.mark.core
def test_reg_loss_in_every_form() -> None:
    net = Net()
    assert float(net.tau.reg_loss()) == pytest.approx(1.5) and float(net.inner.reg_loss()) == pytest.approx(
        4.0
    )
    assert float(net.reg_loss()) == pytest.approx(5.5) and nn.Const(1.0).reg_loss() == 0.0
    assert float(net.reg_loss(lambda path, p: isinstance(p.reg, nn.L1Reg))) == pytest.approx(1.5)
    assert float(net.reg_loss(lambda p: isinstance(p.reg, nn.L2Reg))) == pytest.approx(4.0)
    assert float(net.reg_loss(allowed_hierarchy=(1, 1))) == pytest.approx(1.5)
    assert nn.Module().reg_loss() == 0.0
    assert list(net.par_modules()) == list(net.para_modules()) == list(net.param_modules())
    assert [name for name, _ in net.named_para_modules()] == ["inner.gain", "offset", "tau"]
    assert list(net.param_modules(lambda path, p: not isinstance(p.t, nn.IdentityT))) == [net.tau]
    assert [p.reg is not None for p in net.param_modules(lambda path, p: p.reg is not None)] == [True, True]


def test_reset_to_prior() -> None:
    p = nn.Param(jnp.ones(3), reg=nn.GaussianReg(0.5, 2.0))
    p.reset_to_prior()
    np.testing.assert_array_equal(p.value(), [0.5] * 3)
    plain = nn.Param(jnp.ones(3))
    plain.reset_to_prior()
    np.testing.assert_array_equal(plain.value(), [1] * 3)
    with pytest.raises(ValueError, match="range of SoftplusT"):
        nn.Param(jnp.ones(3), t=SOFT, reg=nn.L2Reg()).reset_to_prior()


def test_init_takes_what_a_layer_may_be_given() -> None:
    p = nn.Param(jnp.ones(3))
    assert nn.Param.init(p, 3) is p and nn.Param.init(None) is None
    assert isinstance(nn.Param.init(2.0, (2, 3)), nn.Const) and nn.Param.init(2.0, (2, 3)).value.shape == (
        2,
        3,
    )
    assert nn.Param.init(jnp.ones, (4,)).value.shape == (4,) and nn.Param.init(jnp.ones(2)).value.shape == (
        2,
    )
    assert nn.Param.init(1.0, 2, t=SOFT).t is SOFT
    for wrong, match in (
        (lambda: nn.Param.init(None, 3, allow_none=False), "is None"),
        (lambda: nn.Param.init(p, 4), "has shape"),
        (lambda: nn.Param.init(jnp.ones(4), 3), "has shape"),
        (lambda: nn.Param.init(jnp.ones), "sizes"),
    ):
        with pytest.raises(ValueError, match=match):
            wrong()
