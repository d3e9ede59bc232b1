"""The intermediate representation: programs over State as data. Imports no JAX.

``Program`` is where to begin (``core``); ``docs/ir-text.md`` describes the text form,
``docs/write-a-pass.md`` how to rewrite programs.
"""

from stategraph.ir.arrays import KeyData
from stategraph.ir.attributes import Dense, DType, EnumValue, Opaque, Record, RegionRef, Symbol
from stategraph.ir.clone import clone_op, clone_ops, clone_program, clone_region
from stategraph.ir.core import FORMAT_VERSION, Constant, Op, Program, Region, StateSymbol, Value
from stategraph.ir.dependencies import captured_values, effect_order
from stategraph.ir.dot import to_dot
from stategraph.ir.effects import HOST_EFFECT, ORDERED_HOST_EFFECT, Effect, conflicts
from stategraph.ir.errors import ParseError, VerifyError
from stategraph.ir.event_ops import EVENT_OPS
from stategraph.ir.forms import entry_reads, exit_writes, is_functional
from stategraph.ir.graph import to_networkx
from stategraph.ir.html import program_html
from stategraph.ir.json_form import from_json, to_json
from stategraph.ir.location import UNKNOWN, Location
from stategraph.ir.parser import parse
from stategraph.ir.printer import print_program
from stategraph.ir.registry import (
    OpDefinition,
    definition_of,
    effects_of,
    is_pure,
    may_diverge,
    no_effects,
    own_effects,
    register_op,
    registered_names,
)
from stategraph.ir.rewriter import Rewriter
from stategraph.ir.structure import fingerprint, structure
from stategraph.ir.svg import to_svg
from stategraph.ir.tree import LEAF, NONE, Tree, tuple_tree
from stategraph.ir.types import KeyType, OpaqueType, TensorType, Type, numpy_dtype, short_dtype
from stategraph.ir.verifier import verify

__all__ = [
    # programs
    "Program",
    "StateSymbol",
    "Region",
    "Op",
    "Value",
    "Constant",
    "FORMAT_VERSION",
    # types and trees
    "TensorType",
    "KeyType",
    "OpaqueType",
    "Type",
    "Tree",
    "LEAF",
    "NONE",
    "tuple_tree",
    "short_dtype",
    "numpy_dtype",
    # attributes
    "DType",
    "Symbol",
    "EnumValue",
    "Record",
    "RegionRef",
    "Dense",
    "Opaque",
    "KeyData",
    # locations
    "Location",
    "UNKNOWN",
    # effects and the registry of ops
    "Effect",
    "HOST_EFFECT",
    "ORDERED_HOST_EFFECT",
    "conflicts",
    "EVENT_OPS",
    "register_op",
    "registered_names",
    "OpDefinition",
    "definition_of",
    "own_effects",
    "effects_of",
    "no_effects",
    "is_pure",
    "may_diverge",
    "captured_values",
    "effect_order",
    # edits
    "Rewriter",
    "clone_program",
    "clone_region",
    "clone_op",
    "clone_ops",
    # text
    "print_program",
    "parse",
    "ParseError",
    # other forms
    "to_json",
    "from_json",
    "to_networkx",
    "to_dot",
    "to_svg",
    "program_html",
    # checks and comparison
    "verify",
    "VerifyError",
    "structure",
    "fingerprint",
    "is_functional",
    "entry_reads",
    "exit_writes",
]
