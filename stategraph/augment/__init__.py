"""Program augmentation: derivatives over State."""

from stategraph.augment.derivatives import fwd_grad, hessian, jacfwd, jacobian, jacrev, vector_grad
from stategraph.augment.grad import grad, value_and_grad
from stategraph.augment.pullback import jvp, vjp

__all__ = [
    "fwd_grad",
    "grad",
    "hessian",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "value_and_grad",
    "vector_grad",
    "vjp",
]
