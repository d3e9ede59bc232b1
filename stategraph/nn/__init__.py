"""Modules: Nodes that compute."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stategraph import errors as _errors
from stategraph import functional
from stategraph.functional import *  # noqa: F403
from stategraph.nn import activations, init
from stategraph.nn.activations import *  # noqa: F403
from stategraph.nn.clocks import Clock, clock
from stategraph.nn.collective import call_all_fns, call_order, init_all_states, reset_all_states
from stategraph.nn.collective_assign import assign_state_values
from stategraph.nn.collective_lanes import vmap_call_all_fns, vmap_init_all_states, vmap_reset_all_states
from stategraph.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from stategraph.nn.delay import Delay, DelayAccess, StateWithDelay
from stategraph.nn.dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d
from stategraph.nn.dynamics import (
    Dynamics,
    OutputDelayAt,
    Prefetch,
    PrefetchDelay,
    PrefetchDelayAt,
    init_maybe_prefetch,
    not_receive_update_input,
    not_receive_update_output,
    receive_update_input,
    receive_update_output,
)
from stategraph.nn.elsewhere import OTHERS
from stategraph.nn.embedding import Embedding
from stategraph.nn.environ_context import EnvironContext
from stategraph.nn.gap_junctions import AsymmetryGapJunction, SymmetryGapJunction
from stategraph.nn.integrators import euler_step, exp_euler_step, rk2_step, rk4_step
from stategraph.nn.lanes import Map, Vmap
from stategraph.nn.latency import LatencyEncoder
from stategraph.nn.linear import AllToAll, Linear, LoRA, OneToOne, SparseLinear
from stategraph.nn.metrics import AccuracyMetric, AverageMetric, Metric, MetricState, MultiMetric
from stategraph.nn.module import Module
from stategraph.nn.module_params import Const, Param
from stategraph.nn.module_summary import Summary, count_parameters, summary
from stategraph.nn.monitors import Monitor, SpikeMonitor
from stategraph.nn.neurons_adaptive import GIF, QIF, AdExIF, ExpIF, Izhikevich
from stategraph.nn.neurons_conductance import HH
from stategraph.nn.neurons_leaky import ALIF, IF, LIF, LIFRef
from stategraph.nn.normalization import (
    BatchNorm0d,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    LayerNorm,
    RMSNorm,
    weight_standardization,
)
from stategraph.nn.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Flatten,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    Unflatten,
)
from stategraph.nn.population import Neuron, Population, Synapse
from stategraph.nn.projections import AlignPostProj, AlignPreProj, CurrentProj, DeltaProj, Projection
from stategraph.nn.readouts import LeakyRateReadout, LeakySpikeReadout
from stategraph.nn.records import Recording
from stategraph.nn.regularization import ChainedReg, ElasticNetReg, GaussianReg, L1Reg, L2Reg, Regularization
from stategraph.nn.rnn import GRUCell, LSTMCell, MGUCell, RNNCell, ValinaRNNCell, VanillaRNNCell
from stategraph.nn.running import run
from stategraph.nn.sequential import Sequential
from stategraph.nn.spike_sources import PoissonEncoder, PoissonInput, PoissonSpike, SpikeTime
from stategraph.nn.synapses import AMPA, STD, STP, Alpha, DualExpon, Expon, GABAa
from stategraph.nn.synapses_nmda import NMDA, BioNMDA
from stategraph.nn.synouts import COBA, CUBA, MgBlock, SynOut
from stategraph.nn.transforms import (
    AffineT,
    ClipT,
    ExpT,
    IdentityT,
    LogT,
    NegativeT,
    NegSoftplusT,
    PositiveT,
    ReluT,
    ScaledSigmoidT,
    SigmoidT,
    SoftplusT,
    SoftsignT,
    TanhT,
    Transform,
)
from stategraph.nn.transforms_vector import ChainT, OrderedT, SimplexT, UnitVectorT
from stategraph.nn.watch import watch

if TYPE_CHECKING:
    from stategraph.event import AllToAll as EventAllToAll
    from stategraph.event import FixedNumConn
    from stategraph.event import FixedNumConn as EventFixedNumConn
    from stategraph.event import OneToOne as EventOneToOne
    from stategraph.event.named import EventFixedProb, EventLinear

_EVENT = {
    "FixedNumConn": ("stategraph.event", "FixedNumConn"),
    "EventFixedNumConn": ("stategraph.event", "FixedNumConn"),
    "EventFixedProb": ("stategraph.event.named", "EventFixedProb"),
    "EventLinear": ("stategraph.event.named", "EventLinear"),
    "EventAllToAll": ("stategraph.event", "AllToAll"),
    "EventOneToOne": ("stategraph.event", "OneToOne"),
}
"""Connections of ``stategraph.event`` by their names here; that package stands on this one, so it is looked at late."""

QuaIF = QIF
Gif = GIF


def __getattr__(name: str) -> Any:
    if name not in _EVENT:
        raise _errors.no_such_name(__name__, name, OTHERS)
    module, attribute = _EVENT[name]
    return getattr(importlib.import_module(module), attribute)


__all__ = [
    "init",
    "Module",
    "Vmap",
    "Map",
    "Param",
    "Const",
    "Transform",
    "IdentityT",
    "AffineT",
    "SoftplusT",
    "NegSoftplusT",
    "ExpT",
    "LogT",
    "PositiveT",
    "NegativeT",
    "ReluT",
    "SigmoidT",
    "ScaledSigmoidT",
    "TanhT",
    "SoftsignT",
    "ClipT",
    "OrderedT",
    "SimplexT",
    "UnitVectorT",
    "ChainT",
    "Regularization",
    "L1Reg",
    "L2Reg",
    "ElasticNetReg",
    "GaussianReg",
    "ChainedReg",
    "Linear",
    "AllToAll",
    "OneToOne",
    "SparseLinear",
    "LoRA",
    "FixedNumConn",
    "EventFixedNumConn",
    "EventFixedProb",
    "EventLinear",
    "EventAllToAll",
    "EventOneToOne",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "Flatten",
    "Unflatten",
    "BatchNorm0d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "LayerNorm",
    "RMSNorm",
    "GroupNorm",
    "weight_standardization",
    "Embedding",
    "RNNCell",
    "ValinaRNNCell",
    "VanillaRNNCell",
    "GRUCell",
    "MGUCell",
    "LSTMCell",
    "Sequential",
    "EnvironContext",
    "Delay",
    "DelayAccess",
    "StateWithDelay",
    "Dynamics",
    "Prefetch",
    "PrefetchDelay",
    "PrefetchDelayAt",
    "OutputDelayAt",
    "init_maybe_prefetch",
    "receive_update_output",
    "not_receive_update_output",
    "receive_update_input",
    "not_receive_update_input",
    "exp_euler_step",
    "euler_step",
    "rk2_step",
    "rk4_step",
    "Population",
    "Neuron",
    "Synapse",
    "IF",
    "LIF",
    "LIFRef",
    "ALIF",
    "ExpIF",
    "AdExIF",
    "QIF",
    "QuaIF",
    "Izhikevich",
    "GIF",
    "Gif",
    "HH",
    "Expon",
    "DualExpon",
    "Alpha",
    "AMPA",
    "GABAa",
    "NMDA",
    "BioNMDA",
    "STP",
    "STD",
    "SynOut",
    "COBA",
    "CUBA",
    "MgBlock",
    "Projection",
    "AlignPostProj",
    "AlignPreProj",
    "DeltaProj",
    "CurrentProj",
    "SymmetryGapJunction",
    "AsymmetryGapJunction",
    "LeakyRateReadout",
    "LeakySpikeReadout",
    "PoissonSpike",
    "PoissonEncoder",
    "LatencyEncoder",
    "PoissonInput",
    "SpikeTime",
    "run",
    "Monitor",
    "SpikeMonitor",
    "Recording",
    "Clock",
    "clock",
    "MetricState",
    "Metric",
    "AverageMetric",
    "AccuracyMetric",
    "MultiMetric",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "AlphaDropout",
    "call_order",
    "call_all_fns",
    "init_all_states",
    "reset_all_states",
    "vmap_call_all_fns",
    "vmap_init_all_states",
    "vmap_reset_all_states",
    "assign_state_values",
    "count_parameters",
    "summary",
    "watch",
    "Summary",
]

__all__ += activations.__all__
__all__ += functional.__all__
