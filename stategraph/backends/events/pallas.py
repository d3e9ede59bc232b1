"""Event products for GPUs, in Pallas: a program for each few neurons, which looks only at the synapses of active ones.

*Sending* programs hold a tile of neurons. Those that are active are taken one after another; their rows are read a
block of synapses at a time, and what they send is added with atomic operations, in an order that the hardware decides.
A tile is as small as the number of programs allows, since a program with many active neurons is waited for.

*Receiving* programs hold several rows side by side and sum along them, in a fixed order and without atomic operations:
products from post to pre, and those that belong to synapses.

16-bit floats are added up as 32-bit floats, so sums of them are not made in place.

The kernels lower through Triton. With ``interpret`` they run as ordinary operations on any device, one program after
another; atomic additions and masked writing are spelled out there, since the interpreter's lose repeated places.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from stategraph.backends.events.changes import changed
from stategraph.backends.events.generic import FEW, of_sums
from stategraph.backends.events.ring import ring_apart, taken

PROGRAMS = 4096
"""Programs that keep a device busy."""
TILE = 32
"""Neurons of a sending program, at most."""
WARP, BLOCK = 32, 128
"""Synapses that are looked at at once: at least; and by one warp at most."""
ROWS = 16
"""Rows side by side in a receiving program."""


def csr_add(total: Any, *operands: Any, interpret: bool = False, **params: Any) -> Any:
    """``event.csr_add``, from pre to post in place.

    Args:
      total: what is added to, ``(..., post)``.
      *operands: those of ``event.csr``.
      interpret: run the kernel as ordinary operations, on any device.
      **params: those of the op.
    """
    if params["transposed"] or of_sums(total.dtype) != total.dtype:
        return total + csr(*operands, **params, interpret=interpret)
    return _sent(total, *operands, interpret=interpret)


def csr(
    events: Any,
    weight: Any,
    indptr: Any,
    indices: Any,
    *by_post: Any,
    shape: tuple[int, int],
    transposed: bool,
    interpret: bool = False,
) -> Any:
    """``event.csr``; from post to pre by the active columns where these are listed and few, else by all rows."""
    if not transposed:
        nothing = jnp.zeros((*events.shape[:-1], shape[1]), of_sums(weight.dtype))
        return _sent(nothing, events, weight, indptr, indices, interpret=interpret).astype(weight.dtype)
    if not by_post:
        return _received(events, weight, indptr, indices, interpret=interpret).astype(weight.dtype)
    starts, pres, order = by_post
    many = jnp.count_nonzero(events) > events.size // FEW
    received = _received(events, weight, indptr, indices, wanted=(many,), interpret=interpret)
    few = jnp.where(many, jnp.zeros_like(events), events)
    places = (order,) if weight.ndim else ()
    sent = _sent(received, few, weight, starts, pres, order=places, interpret=interpret)
    return sent.astype(weight.dtype)


def csr_ring(
    total: Any,
    events: Any,
    weight: Any,
    indptr: Any,
    indices: Any,
    base: Any,
    *,
    shape: tuple[int, int],
    interpret: bool = False,
) -> Any:
    """``event.csr_ring``."""
    if of_sums(total.dtype) != total.dtype:
        apart = ring_apart(functools.partial(csr, interpret=interpret))
        return apart(total, events, weight, indptr, indices, base, shape=shape)
    around = (base, shape[1])
    added = _sent(total, events, weight, indptr, indices, around=around, interpret=interpret)
    return taken(added, base, shape[1])


# ---------------------------------------------------------------------------------------------------------- sending


def _sent(
    total: Any,
    events: Any,
    weight: Any,
    indptr: Any,
    indices: Any,
    *,
    order: tuple[Any, ...] = (),
    around: tuple[Any, ...] = (),
    interpret: bool,
) -> Any:
    """The sum, and what active neurons send to ``indices``.

    Args:
      order: (the place of each synapse's weight), or nothing for their own order.
      around: (where targets are counted from, the elements of a ring of targets), or nothing for targets as they are.
    """
    sums = total if total.ndim == 2 else total[None]
    block = block_of(indices.shape[0], indptr.shape[0] - 1)

    def row(neuron: Any, event: Any, lane: Any, refs: Any) -> None:
        weights, indptr, targets, *more, _, out = refs

        def piece(places: Any, own: Any) -> None:
            found = targets[places]
            if around:
                found = found + more[-1][0]
                found = jnp.where(found >= around[1], found - around[1], found)
            if not weight.ndim:
                sent = jnp.full(places.shape, weights[0])
            else:
                sent = weights[more[0][places] if order else places]
            sent = sent.astype(sums.dtype)
            if event.dtype != jnp.bool_:
                sent = sent * event.astype(sums.dtype)
            add(out, lane, found, sent, own, interpret)

        over_row(indptr, neuron, block, piece)

    operands = (jnp.atleast_1d(weight), indptr, indices, *order, *(jnp.reshape(b, 1) for b in around[:1]))
    added = walk(row, events, (*operands, sums), block, interpret, "event_rows")
    return added.reshape(total.shape)


def csr_change(
    weight: Any,
    events: Any,
    others: Any,
    amount: Any,
    indptr: Any,
    indices: Any,
    *order: Any,
    shape: tuple[int, int],
    interpret: bool = False,
    **law: Any,
) -> Any:
    """``event.csr_change``, in place."""
    block = block_of(indices.shape[0], indptr.shape[0] - 1)

    def row(neuron: Any, event: Any, lane: Any, refs: Any) -> None:
        others, amount, indptr, ends, *order, _, out = refs

        def piece(places: Any, own: Any) -> None:
            at = order[0][places] if order else places
            new = changed(out[at], event, others[ends[places]], amount[0], **law)
            put(out, at, new.astype(weight.dtype), own, interpret)

        over_row(indptr, neuron, block, piece)

    operands = (others, jnp.reshape(amount, 1), indptr, indices, *order, weight)
    return walk(row, events, operands, block, interpret, "event_change")


def csr_outer_add(
    total: Any,
    pre: Any,
    post: Any,
    indptr: Any,
    indices: Any,
    *,
    shape: tuple[int, int],
    interpret: bool = False,
) -> Any:
    """``event.csr_outer_add``, in place."""
    if of_sums(total.dtype) != total.dtype:
        return total + csr_outer(pre, post, indptr, indices, shape=shape, interpret=interpret)
    receivers = jnp.atleast_2d(post)
    block = block_of(indices.shape[0], shape[0])

    def row(neuron: Any, event: Any, lane: Any, refs: Any) -> None:
        post, indptr, ends, _, out = refs

        def piece(places: Any, own: Any) -> None:
            found = post[lane, ends[places]].astype(total.dtype)
            sent = found if event.dtype == jnp.bool_ else found * event
            add(out, 0, places, sent, own, interpret)  # two lanes may add to one synapse

        over_row(indptr, neuron, block, piece)

    received = receivers.astype(jnp.uint8) if post.dtype == jnp.bool_ else receivers
    operands = (received, indptr, indices, total[None])
    return walk(row, pre, operands, block, interpret, "event_outer_rows")[0]


def walk(
    row: Callable[[Any, Any, Any, Any], None],
    events: Any,
    operands: tuple[Any, ...],
    block: int,
    interpret: bool,
    name: str,
) -> Any:
    """The last operand, changed in place by ``row(neuron, its event, lane of the batch, refs)`` for each active neuron.

    Args:
      row: gets references to the operands, and one to the result, which is the memory of the last.
      events: ``(pre,)`` or ``(batch, pre)``.
      operands: arrays.
      block: how many synapses are looked at at once.
      interpret: run as ordinary operations.
      name: the kernel's.
    """
    flags = events if events.ndim == 2 else events[None]
    batch, pre = flags.shape
    valued = flags.dtype != jnp.bool_
    tile = power(min(TILE, batch * pre // PROGRAMS))
    tiles = pl.cdiv(pre, tile)

    def program(flags: Any, *refs: Any) -> None:
        place = pl.program_id(0)
        lane, first = place // tiles, place % tiles * tile
        lanes = jnp.arange(tile, dtype=jnp.int32)
        found = flags[lane, jnp.minimum(first + lanes, pre - 1)]
        active = (found != 0) & (first + lanes < pre)

        def following(after: Any) -> Any:
            return jnp.min(jnp.where(active & (lanes > after), lanes, tile))

        def visit(at: Any) -> Any:
            row(first + at, flags[lane, first + at] if valued else jnp.bool_(True), lane, refs)
            return following(at)

        lax.while_loop(lambda at: at < tile, visit, following(-1))

    given = (flags if valued else flags.astype(jnp.uint8), *operands)
    return pl.pallas_call(
        program,
        grid=(batch * tiles,),
        out_shape=jax.ShapeDtypeStruct(operands[-1].shape, operands[-1].dtype),
        input_output_aliases={len(given) - 1: 0},
        compiler_params=None if interpret else triton.CompilerParams(num_warps=warps(block), num_stages=1),
        interpret=interpret,
        name=name,
    )(*given)


def over_row(indptr: Any, row: Any, block: int, piece: Callable[[Any, Any], None]) -> None:
    """``piece(places, which of them are the row's)`` for each block of the synapses of a row."""
    start, end = indptr[row], indptr[row + 1]

    def one(k: Any, carry: Any) -> Any:
        places = start + k * block + jnp.arange(block, dtype=jnp.int32)
        own = places < end
        piece(jnp.where(own, places, start), own)
        return carry

    lax.fori_loop(0, (end - start + block - 1) // block, one, None)


# -------------------------------------------------------------------------------------------------------- receiving


def _received(
    events: Any, weight: Any, indptr: Any, indices: Any, *, wanted: tuple[Any, ...] = (), interpret: bool
) -> Any:
    """``events[..., indices] * weight``, summed along each row, as sums are; zeros unless ``wanted``, where that is given."""
    sums = of_sums(weight.dtype)
    flags = events if events.ndim == 2 else events[None]
    batch, pre = flags.shape[0], indptr.shape[0] - 1

    def program(events: Any, weights: Any, indptr: Any, indices: Any, *refs: Any) -> None:
        *wanted, out = refs
        place = pl.program_id(0)
        rows = Rows(place // batch, indptr, indices)
        blocks = rows.blocks * wanted[0][0] if wanted else rows.blocks

        def block(k: Any, total: Any) -> Any:
            places, own = rows.block(k)
            ends = triton.load(indices.at[places], mask=own, other=0)
            found = triton.load(events.at[place % batch, ends], mask=own, other=0).astype(sums)
            own_weight = triton.load(weights.at[places], mask=own, other=0) if weight.ndim else weights[0]
            return total + jnp.where(own, found * own_weight.astype(sums), 0)

        total = lax.fori_loop(0, blocks, block, jnp.zeros((ROWS, rows.width), sums))
        put(out, place % batch * pre + rows.ids, total.sum(axis=1), rows.there, interpret)

    given = flags.astype(jnp.uint8) if flags.dtype == jnp.bool_ else flags
    more = (jnp.reshape(flag.astype(jnp.int32), 1) for flag in wanted)
    operands = (given, jnp.atleast_1d(weight), indptr, indices, *more)
    out = jax.ShapeDtypeStruct((batch * pre,), sums)
    found = side_by_side(program, batch * pl.cdiv(pre, ROWS), out, operands, 4, interpret, "event_columns")
    return found.reshape(*events.shape[:-1], pre)


def csr_outer(
    pre: Any, post: Any, indptr: Any, indices: Any, *, shape: tuple[int, int], interpret: bool = False
) -> Any:
    """``event.csr_outer``; nothing is read for silent neurons."""
    dtype = post.dtype if pre.dtype == jnp.bool_ else pre.dtype
    senders, receivers, sums = jnp.atleast_2d(pre), jnp.atleast_2d(post), of_sums(dtype)

    def program(pre: Any, post: Any, indptr: Any, indices: Any, out: Any) -> None:
        rows = Rows(pl.program_id(0), indptr, indices)

        def block(k: Any, carry: Any) -> Any:
            places, own = rows.block(k)
            ends = triton.load(indices.at[places], mask=own, other=0)

            def lane(b: Any, total: Any) -> Any:
                sent = pre[b, rows.safe][:, None]
                there = own & (sent != 0)
                found = triton.load(post.at[b, ends], mask=there, other=0).astype(dtype)
                found = found if senders.dtype == jnp.bool_ else found * sent.astype(dtype)
                return total + jnp.where(there, found, 0).astype(sums)

            total = lax.fori_loop(0, senders.shape[0], lane, jnp.zeros(places.shape, sums))
            put(out, places, total.astype(dtype), own, interpret)
            return carry

        lax.fori_loop(0, rows.blocks, block, None)

    given = (x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x for x in (senders, receivers))
    operands = (*given, indptr, indices)
    out = jax.ShapeDtypeStruct(indices.shape, dtype)
    return side_by_side(program, pl.cdiv(shape[0], ROWS), out, operands, 4, interpret, "event_outer")


class Rows:
    """The rows of a receiving program."""

    def __init__(self, tile: Any, indptr: Any, indices: Any) -> None:
        pre = indptr.shape[0] - 1
        self.width = power(min(max(pl.cdiv(indices.shape[0], pre), 8), BLOCK))
        self.ids = tile * ROWS + jnp.arange(ROWS, dtype=jnp.int32)
        self.there = self.ids < pre
        self.safe = jnp.minimum(self.ids, pre - 1)
        self.start = indptr[self.safe]
        self.end = jnp.where(self.there, indptr[self.safe + 1], self.start)
        self.blocks = (jnp.max(self.end - self.start) + self.width - 1) // self.width

    def block(self, k: Any) -> tuple[Any, Any]:
        """(places ``(ROWS, width)`` of synapses, which of them are there)."""
        places = self.start[:, None] + k * self.width + jnp.arange(self.width, dtype=jnp.int32)[None, :]
        own = places < self.end[:, None]
        return jnp.where(own, places, 0), own


def side_by_side(
    program: Callable[..., None],
    programs: int,
    out: jax.ShapeDtypeStruct,
    operands: tuple[Any, ...],
    warps: int,
    interpret: bool,
    name: str,
    aliases: dict[int, int] | None = None,
) -> Any:
    """The result to which every one of the programs writes its part; in the memory of an operand with ``aliases``."""
    return pl.pallas_call(
        program,
        grid=(programs,),
        out_shape=out,
        input_output_aliases=aliases or {},
        compiler_params=None if interpret else triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
        name=name,
    )(*operands)


# ----------------------------------------------------------------------------------------------------- small things


def add(out: Any, lane: Any, targets: Any, sent: Any, own: Any, interpret: bool) -> None:
    """Add to targets of one lane, which may be repeated, where they are the row's own."""
    if interpret:
        places = jnp.where(own, targets, out.shape[1])
        out[lane, :] = out[lane, :].at[places].add(sent, mode="drop")
    else:
        triton.atomic_add(out, (lane, targets), sent, mask=own)


def put(out: Any, places: Any, values: Any, own: Any, interpret: bool) -> None:
    """Write values where they are the row's own."""
    if interpret:
        out[...] = out[...].at[jnp.where(own, places, out.shape[0])].set(values, mode="drop")
    else:
        triton.store(out.at[places], values, mask=own)


def block_of(synapses: int, rows: int) -> int:
    """How many synapses are looked at at once: those of a row of mean length, if these are not many."""
    return power(min(max(2 * pl.cdiv(synapses, rows) - 1, WARP), 4 * BLOCK))


def warps(block: int) -> int:
    """The warps of a program that looks at so many synapses at once."""
    return max(block // BLOCK, 1)


def power(number: int) -> int:
    """The largest power of two that is not above a number, at least 1."""
    return 1 << max(number, 1).bit_length() - 1
