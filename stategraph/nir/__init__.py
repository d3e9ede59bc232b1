"""The Neuromorphic Intermediate Representation: graphs of it as modules, and modules as graphs. Needs the extra ``nir``.

Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for interoperable brain-inspired
computing" (Nature Communications 2024).
"""

from stategraph.nir.choices import Choices
from stategraph.nir.graph import Graph
from stategraph.nir.reading import from_nir, read
from stategraph.nir.writing import to_nir, write

__all__ = ["Choices", "Graph", "from_nir", "read", "to_nir", "write"]
