"""Program augmentation: derivatives, lanes and shards over State."""

from stategraph.augment.derivatives import fwd_grad, hessian, jacfwd, jacobian, jacrev, vector_grad
from stategraph.augment.grad import grad, value_and_grad
from stategraph.augment.mapping import map
from stategraph.augment.new_states import vmap_new_states
from stategraph.augment.pmap import pmap
from stategraph.augment.pullback import jvp, vjp
from stategraph.augment.shard_map import shard_map
from stategraph.augment.vmap import vmap

__all__ = [
    "fwd_grad",
    "grad",
    "hessian",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "map",
    "pmap",
    "shard_map",
    "value_and_grad",
    "vector_grad",
    "vjp",
    "vmap",
    "vmap_new_states",
]
