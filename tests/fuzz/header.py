"""What every random program begins with."""

HEADER = '''\
"""{title}"""

import jax
import jax.numpy as jnp
import numpy as np

import stategraph as sg
import stategraph.augment
import stategraph.compile
from stategraph import ParamState, State, event
from stategraph.backends.events.change_primitive import csr_change
from stategraph.backends.events.compact_primitive import compact
from stategraph.backends.events.jit_primitive import jit_product
from stategraph.backends.events.ring_primitive import csr_ring

LOG = []
FLOAT = jax.ShapeDtypeStruct((), jnp.float32)
EXACT = {exact}
checkpoint = jax.checkpoint
value_and_grad = sg.augment.value_and_grad


def double(x):
    return np.asarray(x) * 2


def note(x):
    LOG.append(np.asarray(x).tolist())
    return np.asarray(x) + 1


def squash(x):
    return jnp.minimum(jnp.maximum(x * 0.5, -2.0), 4.0)


@jax.custom_jvp
def soft(x):
    return jnp.where(x > 0, x, x * 0.25)


@soft.defjvp
def soft_jvp(primals, tangents):
    return soft(primals[0]), tangents[0] * 0.5


@jax.custom_vjp
def clip(x):
    return jnp.minimum(x, 1.0)


clip.defvjp(lambda x: (clip(x), x), lambda x, g: (jnp.where(x < 2.0, g, 0.0),))

LINKS = event.CSR([0, 2, 3, 5], [0, 2, 1, 0, 2], (3, 3))
LATE = event.CSR([0, 2, 3, 5], [0, 5, 4, 3, 2], (3, 6))


def each(x):
    return jnp.concatenate([x, x[1:]])


def send(events, weight, back=False):
    return event.product(events, weight, LINKS, transpose=back)


def made(events, weight, law, back=False):
    given = weight[0] if law == "one" else weight[:2]
    options = dict(shape=(3, 3), prob=0.5, law=law, include_self=True, transposed=back)
    return jit_product(events, given, jnp.array([3, 5], jnp.uint32), **options)


def late(events, weight, waiting, slot):
    buffer = jnp.concatenate([waiting, waiting * 0.5, waiting])
    return csr_ring(buffer, events, each(weight), LATE.indptr, LATE.indices, 3 * (abs(slot) % 2), LATE.shape)[3:6]


def learned(weight, events, others, up, mu):
    law = dict(shape=(3, 3), low=-2.0, high=2.0, up=up, mu=mu)
    given = jnp.clip(each(weight), -2.0, 2.0)
    return csr_change(given, events, others, jnp.float32(0.1), LINKS.indptr, LINKS.indices, **law)[1:4]


class Runner(sg.nn.Module):
    def __init__(self, step, clock):
        super().__init__()
        self.step, self.clock = step, clock

    def update(self, x):
        return self.step(x)


'''
