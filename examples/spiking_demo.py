"""Two balanced networks of 4,000 spiking neurons: the program that a second of them is, and what they do.

    make demo                                   (or: python examples/spiking_demo.py [--short] [--output DIR])

The networks are those of ``coba.py`` and ``cuba.py``: modules, and spikes that are multiplied with sparse
connections. StateGraph traces 10,000 steps once into one loop, whose State becomes values that the loop carries.
The passes find out which values are spikes, make products with them cost what the spikes cost, and outline the loop
as one kernel of machine code where numba is installed. Both programs are written to the output folder, with a
raster and the rates.
"""

import time
from typing import Any

from balanced import observe
from coba import COBA
from cuba import CUBA
from digits_gru import skeleton, title
from shared import options

import stategraph as sg
from stategraph import nn

DT, DURATION, SHORT_DURATION = 0.1, 1000.0, 200.0  # ms


def programs(network: Any, duration: float) -> dict[str, sg.ir.Program]:
    """The loop over all steps, as traced and as it is compiled."""
    traced = sg.trace(lambda: nn.run(network, duration, dt=DT) and None)
    return {"as traced": traced.program, "after the passes": traced.lower().program}


def figures(program: sg.ir.Program) -> dict[str, int]:
    """What is counted of a program."""
    ops = list(program.walk())
    accesses = [op for op in ops if op.name in ("state.read", "state.write")]
    return {
        "ops": len(ops),
        "State accesses inside the loop": sum(op.parent is not program.body for op in accesses),
        "event products": sum(op.name.startswith("event.") for op in ops),
        "… that add to a conductance in place": sum(op.name.endswith("_add") for op in ops),
        "native kernels": sum(op.name == "native.kernel" for op in ops),
    }


def compare(columns: dict[str, sg.ir.Program]) -> str:
    """A table of figures, one column for each program."""
    lines = [f"{'':38}" + "".join(f"{name:>18}" for name in columns)]
    found = [figures(program) for program in columns.values()]
    for name in found[0]:
        lines.append(f"{name:38}" + "".join(f"{column[name]:>18,}" for column in found))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Rates (Hz), CV of the intervals, and steps per second of both networks."""
    chosen = options(__doc__, arguments)
    duration = SHORT_DURATION if chosen.short else DURATION
    numbers = {}
    for name, kind in {"CUBA": CUBA, "COBA": COBA}.items():
        sg.random.seed(0)
        network = nn.init_all_states(kind())
        both = programs(network, duration)
        if name == "CUBA":
            title(
                f"{duration:.0f} ms of CUBA as a program, as traced: State is read and written where the code does so"
            )
            print(skeleton(both["as traced"]))
            title(
                "after the passes: the loop carries the State, products add in place, one kernel makes all steps"
            )
            print(skeleton(both["after the passes"]))
        title(f"{name} in figures")
        print(compare(both))
        for stage, program in both.items():
            text = program.to_text(locations=False).partition("\n{-#")[0]  # without the synapses
            words = f"{name.lower()}.{'traced' if stage == 'as traced' else 'optimized'}.sg"
            (chosen.output / words).write_text(text, encoding="utf-8")
        title(f"{name}: {duration:.0f} ms of 4,000 neurons in steps of {DT} ms")
        found = observe(name, network, duration, chosen.output / f"{name.lower()}.png", dt=DT)
        for _ in range(2):  # the first compiles once more: there is no bar to move
            began = time.perf_counter()
            nn.run(network, duration, monitor={"spikes": network.neurons.spike}, dt=DT)
            seconds = time.perf_counter() - began
        found["steps per second"] = duration / DT / seconds
        rate = f"{found['steps per second']:,.0f} steps per second"
        print(f"without compiling, {duration:.0f} ms take {seconds:.3f} s: {rate}")
        numbers[name] = found
    return numbers


if __name__ == "__main__":
    main()
