"""Random numbers: NumPy's functions, drawn from a State that holds a JAX key.

The functions of this module draw from ``DEFAULT``, a ``RandomState``. ``seed(42)`` gives it the key
``jax.random.key(42)``; every draw splits the key in two, keeps the first and gives the numbers of
``jax.random`` for the second. Compiled code draws the same numbers as eager code, because the key is a State
that it reads and writes.

>>> from stategraph import random
>>> random.seed(42)
>>> random.rand(2)
Array([0.72766423, 0.78786755], dtype=float32)
"""

from stategraph.random.arrays import RandomState
from stategraph.random.keys import SeedOrKey
from stategraph.tracing.binding import COMMON

DEFAULT = RandomState.deferred("DEFAULT")
"""What the functions of this module draw from."""
COMMON["DEFAULT"] = DEFAULT

# keys
seed = DEFAULT.seed
set_key = DEFAULT.set_key
get_key = DEFAULT.get_key
get_key_data = DEFAULT.get_key_data
split_key = DEFAULT.split_key
split_keys = DEFAULT.split_keys
self_assign_multi_keys = DEFAULT.self_assign_multi_keys
backup_key = DEFAULT.backup_key
restore_key = DEFAULT.restore_key
seed_context = DEFAULT.seed_context
clone = DEFAULT.clone
fork = DEFAULT.fork

# uniform and normal numbers, integers
rand = DEFAULT.rand
randn = DEFAULT.randn
random = DEFAULT.random
random_sample = DEFAULT.random_sample
ranf = DEFAULT.ranf
sample = DEFAULT.sample
standard_normal = DEFAULT.standard_normal
normal = DEFAULT.normal
uniform = DEFAULT.uniform
randint = DEFAULT.randint
random_integers = DEFAULT.random_integers
bernoulli = DEFAULT.bernoulli
rand_like = DEFAULT.rand_like
randn_like = DEFAULT.randn_like
randint_like = DEFAULT.randint_like

# continuous distributions
beta = DEFAULT.beta
cauchy = DEFAULT.cauchy
chisquare = DEFAULT.chisquare
exponential = DEFAULT.exponential
f = DEFAULT.f
gamma = DEFAULT.gamma
gumbel = DEFAULT.gumbel
laplace = DEFAULT.laplace
loggamma = DEFAULT.loggamma
logistic = DEFAULT.logistic
lognormal = DEFAULT.lognormal
maxwell = DEFAULT.maxwell
noncentral_chisquare = DEFAULT.noncentral_chisquare
noncentral_f = DEFAULT.noncentral_f
pareto = DEFAULT.pareto
power = DEFAULT.power
rayleigh = DEFAULT.rayleigh
standard_cauchy = DEFAULT.standard_cauchy
standard_exponential = DEFAULT.standard_exponential
standard_gamma = DEFAULT.standard_gamma
standard_t = DEFAULT.standard_t
student_t = DEFAULT.student_t
t = DEFAULT.t
triangular = DEFAULT.triangular
truncated_normal = DEFAULT.truncated_normal
vonmises = DEFAULT.vonmises
wald = DEFAULT.wald
weibull = DEFAULT.weibull
weibull_min = DEFAULT.weibull_min

# discrete distributions
binomial = DEFAULT.binomial
geometric = DEFAULT.geometric
hypergeometric = DEFAULT.hypergeometric
logseries = DEFAULT.logseries
multinomial = DEFAULT.multinomial
negative_binomial = DEFAULT.negative_binomial
poisson = DEFAULT.poisson
zipf = DEFAULT.zipf

# choosing, shuffling, vectors and matrices
categorical = DEFAULT.categorical
choice = DEFAULT.choice
dirichlet = DEFAULT.dirichlet
multivariate_normal = DEFAULT.multivariate_normal
orthogonal = DEFAULT.orthogonal
permutation = DEFAULT.permutation
shuffle = DEFAULT.shuffle


def default_rng(seed_or_key: SeedOrKey = None) -> RandomState:
    """``DEFAULT``, or a new ``RandomState`` for a seed or key."""
    return DEFAULT if seed_or_key is None else RandomState(seed_or_key)


def clone_rng(seed_or_key: SeedOrKey = None, clone: bool = True) -> RandomState:
    """A new ``RandomState``: for a seed or key, or independent of ``DEFAULT`` but from a key of it;
    ``DEFAULT`` itself with ``clone=False``.
    """
    if seed_or_key is None:
        return DEFAULT.clone() if clone else DEFAULT
    return RandomState(seed_or_key)


__all__ = [
    "DEFAULT", "RandomState", "SeedOrKey", "default_rng", "clone_rng",
    "seed", "set_key", "get_key", "get_key_data", "split_key", "split_keys", "self_assign_multi_keys",
    "backup_key", "restore_key", "seed_context", "clone", "fork",
    "rand", "randn", "random", "random_sample", "ranf", "sample", "standard_normal", "normal", "uniform",
    "randint", "random_integers", "bernoulli", "rand_like", "randn_like", "randint_like",
    "beta", "cauchy", "chisquare", "exponential", "f", "gamma", "gumbel", "laplace", "loggamma", "logistic",
    "lognormal", "maxwell", "noncentral_chisquare", "noncentral_f", "pareto", "power", "rayleigh",
    "standard_cauchy", "standard_exponential", "standard_gamma", "standard_t", "student_t", "t", "triangular",
    "truncated_normal", "vonmises", "wald", "weibull", "weibull_min",
    "binomial", "geometric", "hypergeometric", "logseries", "multinomial", "negative_binomial", "poisson",
    "zipf",
    "categorical", "choice", "dirichlet", "multivariate_normal", "orthogonal", "permutation", "shuffle",
]  # fmt: skip
