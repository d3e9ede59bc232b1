"""Program augmentation: derivatives and lanes over State."""

from stategraph.augment.derivatives import fwd_grad, hessian, jacfwd, jacobian, jacrev, vector_grad
from stategraph.augment.grad import grad, value_and_grad
from stategraph.augment.mapping import map
from stategraph.augment.pullback import jvp, vjp
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
    "value_and_grad",
    "vector_grad",
    "vjp",
    "vmap",
]
