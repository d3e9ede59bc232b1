"""``stategraph explain``: what the compiler decided about each State and op."""

from __future__ import annotations

import json
import sys
from typing import Any

from stategraph.cli.console import OK
from stategraph.cli.dump import trace_target
from stategraph.cli.output import load_files, offer_backend
from stategraph.cli.targets import user_code
from stategraph.passes.instruments import Verify


def run(options: Any) -> int:
    load_files(options.load)
    traced = trace_target(options.target, options.args)
    offer_backend(traced.program)
    with user_code():
        lowered = traced.lower(passes=options.passes, exactness=options.exactness, instruments=[Verify()])
    found = lowered.explain()
    if options.json:
        json.dump([explanation.as_json() for explanation in found], sys.stdout, indent=1)
        print()
    else:
        for explanation in found:
            print(explanation)
    return OK
