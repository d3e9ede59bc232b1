"""Run by ``test_loops.py`` in a process with several devices: products that XLA divides among them, and products on each."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stategraph import event
from stategraph.backends.events.primitives import csr_product

P = PartitionSpec
MESH = Mesh(np.array(jax.devices()), ("i",), axis_types=(AxisType.Auto,))
CSR = event.fixed_number(64, 40, 5, seed=0)
EVENTS = np.arange(64) % 3 == 0
WEIGHT = np.arange(320, dtype=np.int32)  # of integers there are no kernels but XLA's
EXPECTED = EVENTS @ CSR.todense(WEIGHT)


def product(events: Any, weight: Any) -> Any:
    return csr_product(events, weight, CSR.indptr, CSR.indices, CSR.shape)


@pytest.mark.parametrize(("of_events", "of_weight"), [(P("i"), P()), (P(), P("i"))])
def test_products_that_are_divided(of_events: Any, of_weight: Any) -> None:
    placed = [
        jax.device_put(x, NamedSharding(MESH, spec)) for x, spec in ((EVENTS, of_events), (WEIGHT, of_weight))
    ]
    compiled = jax.jit(product).lower(*placed).compile()
    np.testing.assert_array_equal(compiled(*placed), EXPECTED)
    assert "inlineable" not in compiled.as_text()


def test_products_on_each_device() -> None:
    each = jax.jit(jax.shard_map(product, mesh=MESH, in_specs=(P(), P()), out_specs=P(), check_vma=False))
    compiled = each.lower(jnp.asarray(EVENTS), jnp.asarray(WEIGHT)).compile()
    np.testing.assert_array_equal(compiled(jnp.asarray(EVENTS), jnp.asarray(WEIGHT)), EXPECTED)
    assert "inlineable" in compiled.as_text()
