"""The ``stategraph`` command: dump programs of your models, run passes on text, list passes.

``main`` is the entry point. One file is one command; ``options`` declares what they take, ``targets`` finds
what ``FILE.py:NAME`` means, ``arguments`` reads ``--args``, ``console`` writes messages and knows the exit
codes. Nothing here imports JAX before a command needs it.
"""

from stategraph.cli.main import main

__all__ = ["main"]
