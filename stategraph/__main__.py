"""``python -m stategraph`` is the ``stategraph`` command."""

import sys

from stategraph.cli.main import main

sys.exit(main())
