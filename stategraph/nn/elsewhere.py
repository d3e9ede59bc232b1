"""Names of brainpy.state that are others here: why, and what to write."""

from __future__ import annotations

_CURRENT = "a simulation takes a constant, an array or a function of the time for its input"
_RUN = "stategraph.nn.run(model, duration, inputs=lambda t: ...)"
_EQUATIONS = "it is a neuron of your own, of few lines: see 'A neuron of your own' in docs/neurons.md"
_NEURON = "stategraph.nn.Neuron: class {}(nn.Neuron), with init_state, get_spike and update"

OTHERS = {
    **{
        name: (_CURRENT, _RUN)
        for name in (
            "ConstantInput",
            "SectionInput",
            "StepInput",
            "RampInput",
            "SinusoidalInput",
            "WienerProcessInput",
            "OUProcessInput",
        )
    },
    **{
        name: (_EQUATIONS, _NEURON.format(name))
        for name in ("ExpIFRef", "AdExIFRef", "AdQuaIF", "AdQuaIFRef", "GifRef", "IzhikevichRef")
    },
    **{
        name: (_EQUATIONS, _NEURON.format(name))
        for name in ("MorrisLecar", "WangBuzsakiHH", "FitzHughNagumo", "HindmarshRose")
    },
    "align_pre_projection": (
        "its synapses and outputs are given to the projection",
        "stategraph.nn.AlignPreProj(spikes, syn=[...], comm=..., out=..., post=...)",
    ),
    "align_post_projection": (
        "its synapses and outputs are given to the projection",
        "stategraph.nn.AlignPostProj(spikes, comm=..., syn=..., out=..., post=...)",
    ),
}
