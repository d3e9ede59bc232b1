"""``python -m stategraph.cli``."""

import sys

from stategraph.cli.main import main

sys.exit(main())
