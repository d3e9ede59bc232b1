"""A step of every example, with small networks, for translation validation: the default pipeline, pass by pass.

    python -m tests.examples.steps [NAME ...]

says for each example whether all passes keep what its program computes (minutes: the reference interpreter runs op by
op). The tests do this for a few of them.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

import stategraph as sg
from stategraph import ir
from stategraph.backends import reference_compare
from stategraph.passes import Validate, run_passes

Step = tuple[Callable[..., Any], tuple[Any, ...]]
Load = Callable[[str], ModuleType]


def simulation(network: Any, *inputs: Any, batch: int | None = None) -> Step:
    """Two steps of a network."""
    network = sg.nn.init_all_states(network, **({} if batch is None else {"batch_size": batch}))

    def run(*inputs: Any) -> Any:
        def step(i: Any) -> Any:
            with sg.environ.context(i=i, t=0.1 * i):
                return network(*inputs)

        return sg.compile.for_loop(step, jnp.arange(2))

    return run, inputs


def training(model: Any, *inputs: Any) -> Step:
    """A step of gradient descent."""
    weights = model.states(sg.ParamState)

    def run(*inputs: Any) -> Any:
        def loss() -> Any:
            return (model(*inputs) ** 2).mean()

        gradients, value = sg.augment.grad(loss, weights, return_value=True)()
        for path, slope in gradients.items():
            weights[path].value = jax.tree.map(lambda w, g: w - 0.1 * g, weights[path].value, slope)
        return value

    return run, inputs


def coba(load: Load) -> Step:
    return simulation(load("coba").COBA(100))


def cuba(load: Load) -> Step:
    return simulation(load("cuba").CUBA(100))


def hodgkin_huxley(load: Load) -> Step:
    return simulation(load("hodgkin_huxley").COBAHH(100))


def brunel(load: Load) -> Step:
    example = load("brunel")
    return simulation(example.Brunel(example.REGIMES["AI"], 40, 10, 0.1))


def decision(load: Load) -> Step:
    return simulation(load("decision").Decision(100), jnp.full((2, 2), 40.0), batch=2)


def working_memory(load: Load) -> Step:
    return simulation(load("working_memory").Memory(4), jnp.ones(2000))


def liquid_state_machine(load: Load) -> Step:
    return simulation(load("liquid_state_machine").Column((2, 2, 5)), jnp.ones((3, 32)), batch=3)


def snn(load: Load, code: str) -> Step:
    example: Any = load("snn_digits")
    example.HIDDEN, example.STEPS, example.PIXELS = 8, 2, 6
    model = example.SpikingReader(getattr(example, code)())
    return training(sg.nn.init_all_states(model, batch_size=2), jnp.ones((2, 6)))


def autoencoder(load: Load) -> Step:
    of = load("autoencoder").Training(0)
    of.model.train()
    return lambda images: of.step(images), (jnp.ones((3, 64)),)  # a compiled method does not keep its object


def convolutional_blocks(load: Load, name: str) -> Step:
    model = getattr(load("convolutional_blocks"), name)()
    model.train()
    return training(model, jnp.ones((2, 8, 8, 1)))


def digits_gru(load: Load) -> Step:
    example: Any = load("digits_gru")
    example.HIDDEN = 4
    step = example.make_training_step(example.DigitReader(jax.random.key(0)), 10)
    return step, (jnp.ones((2, 8, 8)), jnp.zeros(2, jnp.int32))


def ensemble(load: Load) -> Step:
    example: Any = load("ensemble")
    example.HIDDEN, example.MEMBERS = 4, 2
    return training(example.make_ensemble(), jnp.ones((3, 2, 8)))


def sequence_classifier(load: Load) -> Step:
    cell = sg.nn.GRUCell(input_size=8, hidden_size=4)
    model = load("sequence_classifier").SequenceClassifier(cell, 10)
    return training(sg.nn.init_all_states(model, batch_size=2), jnp.ones((3, 2, 8)))


STEPS: dict[str, Callable[[Load], Step]] = {
    "coba": coba,
    "cuba": cuba,
    "hodgkin_huxley": hodgkin_huxley,
    "brunel": brunel,
    "decision": decision,
    "working_memory": working_memory,
    "liquid_state_machine": liquid_state_machine,
    "snn_digits, rate": lambda load: snn(load, "RateCode"),
    "snn_digits, latency": lambda load: snn(load, "LatencyCode"),
    "autoencoder": autoencoder,
    "convolutional_blocks, resnet": lambda load: convolutional_blocks(load, "resnet"),
    "convolutional_blocks, inception": lambda load: convolutional_blocks(load, "inception"),
    "digits_gru": digits_gru,
    "ensemble": ensemble,
    "sequence_classifier": sequence_classifier,
}


def validate(name: str, load: Load, samples: int) -> ir.Program:
    """The program of an example after the default pipeline, every pass of which is validated."""
    compared = 0

    def check(before: ir.Program, after: ir.Program, pass_: Any) -> None:
        nonlocal compared
        compared += reference_compare.validate(before, after, exactness=pass_.exactness, samples=samples)

    with sg.environ.context(dt=0.1):
        function, inputs = STEPS[name](load)
        program = sg.trace(function, *inputs).program
    outcome = run_passes(program, "default", instruments=[Validate()], validator=check)
    if not compared:
        raise AssertionError(f"{name}: there was nothing to compare")
    return outcome.program


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
    for chosen in sys.argv[1:] or STEPS:
        start = time.perf_counter()
        validate(chosen, importlib.import_module, samples=3)
        print(f"{chosen}: valid after each pass, {time.perf_counter() - start:.0f} s", flush=True)
