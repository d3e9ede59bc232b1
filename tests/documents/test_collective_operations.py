"""The lifecycle of recurrent models, written for BrainState: made, initialised, trained, reset, restored.

Shortened forms of what its documents show of collective operations. Only the import is another.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as brainstate


def test_methods_run_in_the_order_that_they_ask_for() -> None:
    class Diary(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entries: list[str] = []

        def init_state(self) -> None:
            self.entries.append("init")
            self.x = brainstate.State(jnp.zeros(3))

        @brainstate.nn.call_order(0)
        def connect(self) -> None:
            self.entries.append("connect")

        @brainstate.nn.call_order(1)
        def finish(self) -> None:
            self.entries.append("finish")

    diary = Diary()
    for method in ("init_state", "connect", "finish"):
        assert brainstate.nn.call_all_fns(diary, method) is diary
    assert diary.entries == ["init", "connect", "finish"]
    assert (Diary.connect.call_order, Diary.finish.call_order) == (0, 1)  # type: ignore[attr-defined]


def test_a_recurrent_cell_forgets_a_sequence() -> None:
    gru = brainstate.nn.GRUCell(input_size=4, hidden_size=4)
    brainstate.nn.init_all_states(gru, batch_size=4)
    assert gru.h.value.shape == (4, 4) and not gru.h.value.any()
    sequence = jax.random.normal(jax.random.PRNGKey(0), (2, 4, 4))
    first = gru(sequence[0])
    assert gru(sequence[1]).mean() != 0
    brainstate.nn.reset_all_states(gru, batch_size=4)
    assert not gru.h.value.any()
    np.testing.assert_array_equal(gru(sequence[0]), first)


def test_layers_that_are_listed_and_named_are_initialised_once() -> None:
    class Stack(brainstate.nn.Module):
        def __init__(self, size: int, hidden: list[int]) -> None:
            super().__init__()
            self.layers: list[Any] = []
            for i, n in enumerate(hidden):
                layer = brainstate.nn.GRUCell(size, n)
                setattr(self, f"layer_{i}", layer)
                self.layers.append(layer)
                size = n

        def __call__(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return x

    stack = Stack(4, [4, 4])
    brainstate.nn.init_all_states(stack, batch_size=4)
    assert [layer.h.value.shape for layer in stack.layers] == [(4, 4), (4, 4)]
    assert stack(jnp.ones((4, 4))).shape == (4, 4) and stack.layers[1].h.value.any()
    brainstate.nn.reset_all_states(stack, batch_size=4)
    assert not any(layer.h.value.any() for layer in stack.layers)


def test_a_method_of_ones_own_is_called_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    class Part(brainstate.nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.size, self.calls = size, 0

        def init_state(self, batch_size: int = 1) -> None:
            self.state = brainstate.State(jnp.ones((batch_size, self.size)))

        def scaled(self, scale: float = 1.0) -> None:
            self.calls += 1
            self.state.value = self.state.value * scale
            print(self.size, self.calls)

    class Whole(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Part(size=5), Part(size=3)

    whole = Whole()
    brainstate.nn.init_all_states(whole, batch_size=4)
    for scale in (2.0, 0.25):
        brainstate.nn.call_all_fns(whole, "scaled", kwargs={"scale": scale}, fn_if_not_exist="pass")
    assert capsys.readouterr().out == "5 1\n3 1\n5 2\n3 2\n"
    assert (whole.second.state.value == 0.5).all() and whole.second.state.value.shape == (4, 3)
    with pytest.raises(AttributeError, match="scaled"):
        brainstate.nn.call_all_fns(whole, "scaled")


def test_members_of_an_ensemble() -> None:
    member = brainstate.nn.GRUCell(input_size=4, hidden_size=4)
    brainstate.nn.vmap_init_all_states(member, batch_size=4, axis_size=8)
    assert member.h.value.shape == (8, 4, 4)
    member.h.value = member.h.value + 1
    brainstate.nn.vmap_reset_all_states(member, batch_size=4, axis_size=8)
    assert member.h.value.shape == (8, 4, 4) and not member.h.value.any()


def test_a_sequence_classifier_is_trained() -> None:
    class Classifier(brainstate.nn.Module):
        def __init__(self, size: int, hidden: int, classes: int) -> None:
            super().__init__()
            self.rnn = brainstate.nn.GRUCell(size, hidden)
            self.readout = brainstate.nn.Linear(hidden, classes)

        def __call__(self, sequence: Any) -> Any:
            for x in sequence:
                hidden = self.rnn(x)
            return self.readout(hidden)

    brainstate.random.seed(0)
    model = Classifier(4, 4, 3)
    brainstate.nn.init_all_states(model, batch_size=4)
    sequences = jax.random.normal(jax.random.PRNGKey(123), (8, 2, 4))
    labels = jax.random.randint(jax.random.PRNGKey(456), (8,), 0, 3)
    optimizer = brainstate.optim.Adam(lr=3e-2)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))

    @brainstate.compile.jit
    def train(sequence: Any, label: Any) -> Any:
        def loss() -> Any:
            scores = jax.nn.log_softmax(model(sequence))
            return -jnp.mean(jnp.sum(jax.nn.one_hot(label, 3) * scores, axis=-1))

        optimizer.update(brainstate.augment.grad(loss, model.states(brainstate.ParamState))())
        return loss()

    losses = []
    for _ in range(10):
        total = 0.0
        for i in range(0, 8, 4):
            batch = jnp.transpose(sequences[i : i + 4], (1, 0, 2))
            brainstate.nn.reset_all_states(model, batch_size=batch.shape[1])
            total += float(train(batch, labels[i : i + 4]))
        losses.append(total)
    assert losses[-1] < 0.9 * losses[0]


def test_parts_of_a_network_are_left_out() -> None:
    class Mixed(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn1, self.rnn2 = brainstate.nn.GRUCell(4, 4), brainstate.nn.GRUCell(4, 4)
            self.readout = brainstate.nn.Linear(4, 4)

    mixed = Mixed()
    brainstate.nn.init_all_states(mixed, batch_size=4, fn_if_not_exist="pass")
    assert (mixed.rnn1.h.value.shape, mixed.rnn2.h.value.shape) == ((4, 4), (4, 4))
    for cell in (mixed.rnn1, mixed.rnn2):
        cell.h.value = cell.h.value + 1
    brainstate.nn.reset_all_states(mixed, batch_size=4, node_to_exclude=lambda node: node is mixed.rnn2)
    assert not mixed.rnn1.h.value.any() and (mixed.rnn2.h.value == 1).all()


def test_a_compiled_function_takes_sequences_of_any_length_and_the_state_of_now() -> None:
    rnn = brainstate.nn.GRUCell(4, 4)
    brainstate.nn.init_all_states(rnn, batch_size=4)
    traced = []

    @brainstate.compile.jit
    def process(sequence: Any) -> Any:
        traced.append(sequence.shape)
        return jnp.stack([rnn(sequence[t]) for t in range(sequence.shape[0])])

    test = jax.random.normal(jax.random.PRNGKey(0), (3, 4, 4))
    first = process(test)
    assert not np.allclose(process(test), first)
    brainstate.nn.reset_all_states(rnn, batch_size=4)
    np.testing.assert_array_equal(process(test), first)
    brainstate.nn.reset_all_states(rnn, batch_size=4)
    np.testing.assert_allclose(process(test[:2]), first[:2], rtol=1e-6)
    assert traced == [(3, 4, 4), (2, 4, 4)]


# ------------------------------------------------------------------------------------------------ the notebook


def test_a_model_that_hands_the_calls_on_itself() -> None:
    class Pair(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = brainstate.nn.Linear((4,), (4,))
            self.decoder = brainstate.nn.Linear((4,), (4,))

        @brainstate.nn.call_order(0)
        def init_state(self) -> None:
            self.encoder.init_state()
            self.decoder.init_state()

        @brainstate.nn.call_order(1)
        def reset_state(self) -> None:
            self.encoder.reset_state()
            self.decoder.reset_state()

    pair = Pair()
    assert brainstate.nn.init_all_states(pair, batch_size=2) is pair
    assert brainstate.nn.reset_all_states(pair) is pair


def test_layers_without_state_are_initialised_in_every_way() -> None:
    model = brainstate.nn.Sequential(
        brainstate.nn.Linear((4,), (4,)), brainstate.nn.GELU(), brainstate.nn.Dropout(prob=0.1)
    )
    brainstate.nn.init_all_states(model, batch_size=4)
    brainstate.nn.init_all_states(model, node_to_exclude=brainstate.nn.Dropout)
    assert brainstate.nn.init_all_states(model) is model


def test_a_reset_keeps_the_batch_and_the_cell_prints() -> None:
    rnn = brainstate.nn.ValinaRNNCell(num_in=4, num_out=8)
    brainstate.nn.init_all_states(rnn, batch_size=2)
    text = repr(brainstate.nn.reset_all_states(rnn))
    shown = (
        "num_out=8",
        "num_in=4",
        "in_size=(12,)",
        "w_mask=None",
        "'weight': ShapedArray(float32[12,8])",
    )
    assert all(part in text for part in shown) and " at 0x" not in text
    assert rnn.h.value.shape == (2, 8)


def test_weights_are_shared_by_the_lanes_unless_they_are_asked_for() -> None:
    def policy() -> Any:
        layers = brainstate.nn.Linear((4,), (4,)), brainstate.nn.GELU(), brainstate.nn.Linear((4,), (4,))
        return brainstate.nn.Sequential(*layers)

    shared = brainstate.nn.vmap_init_all_states(policy(), axis_size=8)
    assert shared.layers[0].weight.value["weight"].shape == (4, 4)
    assert brainstate.nn.vmap_reset_all_states(shared, axis_size=8) is shared
    own = brainstate.nn.vmap_init_all_states(policy(), axis_size=8, parameters=True)
    weight = own.layers[0].weight.value["weight"]
    assert weight.shape == (8, 4, 4) and (weight[0] != weight[1]).any()


def test_layers_take_notes() -> None:
    class Noting(brainstate.nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.linear = brainstate.nn.Linear((size,), (size,))
            self.notes: list[Any] = []

        def init_state(self) -> None:
            self.linear.init_state()

        def note(self) -> None:
            self.notes.append(jnp.mean(self.linear.weight.value["weight"]))

    net = brainstate.nn.Sequential(Noting(size=4), Noting(size=4))
    brainstate.nn.init_all_states(net)
    for layer in net.layers:
        layer.note()
    assert [len(layer.notes) for layer in net.layers] == [1, 1]


def leaves_of(model: Any) -> dict[Any, Any]:
    """The values of a model by the paths of their leaves."""
    found = {}
    for path, state in model.states().items():
        if isinstance(state.value, dict):
            found.update({(*path, key): value for key, value in state.value.items()})
        else:
            found[path] = state.value
    return found


def test_a_model_is_restored_from_its_leaves() -> None:
    layers = brainstate.nn.Linear((4,), (4,)), brainstate.nn.ReLU(), brainstate.nn.Linear((4,), (4,))
    model = brainstate.nn.init_all_states(brainstate.nn.Sequential(*layers))
    kept = leaves_of(model)
    for state in model.states().values():
        state.value = jax.tree.map(jnp.zeros_like, state.value)
    assert brainstate.nn.assign_state_values(model, kept) == ([], [])
    for path, value in leaves_of(model).items():
        np.testing.assert_array_equal(value, kept[path])


def test_a_recurrent_network_runs_in_lanes_and_is_restored() -> None:
    rnn = brainstate.nn.ValinaRNNCell(num_in=4, num_out=8)
    brainstate.nn.vmap_init_all_states(rnn, axis_size=4)
    kept = leaves_of(rnn)
    inputs = brainstate.random.randn(3, 4, 4)
    first = [rnn(x) for x in inputs]
    brainstate.nn.vmap_reset_all_states(rnn, axis_size=4)
    rnn.W.weight.value = jax.tree.map(jnp.zeros_like, rnn.W.weight.value)
    assert brainstate.nn.assign_state_values(rnn, kept) == ([], [])
    np.testing.assert_array_equal([rnn(x) for x in inputs], first)
