"""``--validate-each`` on examples: no pass changes what a step of them computes (all of them: ``steps.py``)."""

from collections.abc import Callable
from types import ModuleType

import pytest

from tests.examples.steps import STEPS, validate


@pytest.mark.parametrize(("name", "op"), [("cuba", "event.csr_add"), ("snn_digits, latency", "flow.scan")])
def test_every_pass_keeps_what_a_step_computes(
    load_example: Callable[[str], ModuleType], name: str, op: str
) -> None:
    assert next(validate(name, load_example, samples=1).walk(op), None) is not None


def test_every_example_has_a_step(load_example: Callable[[str], ModuleType]) -> None:
    from tests.examples.conftest import EXAMPLES

    helpers = {
        "shared",
        "spiking",
        "balanced",
        "spiking_demo",
    }  # what others use, and a demo of coba and cuba
    assert {path.stem for path in EXAMPLES.glob("*.py")} - helpers == {name.split(",")[0] for name in STEPS}
