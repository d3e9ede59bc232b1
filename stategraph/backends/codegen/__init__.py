"""Regions of IR ops as machine code of their own: LLVM IR is generated from the ops and compiled by llvmlite.

- ``llvm``: a function as LLVM text, with loops and branches;
- ``arithmetic``, ``functions``, ``erf_inv``: what one elementwise op is, and exp, log and their like as polynomials;
- ``fusing``: what is rounded once, decided from how an op is defined;
- ``keys``: random keys and what is drawn with them, as ops on numbers;
- ``schedule``: which ops share a loop, and in which order the loops run;
- ``places``: where values are; ``blocks``: the code of a region, ``clusters`` that of its loops of elementwise ops, ``stages``
  that of loops, branches and all other ops, ``events``, ``products`` and ``matrices`` that of event products;
  ``indexing``: which element of an operand it is; ``pieces``: loops that threads share;
- ``kernel``: a whole kernel with the handler by which XLA calls it; ``machine`` compiles, keeps and registers it.
"""
