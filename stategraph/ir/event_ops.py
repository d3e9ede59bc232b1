"""Event ops: products that cost what the events cost. An *event* is an element of a vector that is not zero, whatever number
it is (NaN is one): it is multiplied by. So each of these ops is right for every vector, and guards what ``infer-events``
assumes of State at entry.

``event.csr``        events and weights over connectivity in compressed rows; ``transposed``: from post to pre; then the same synapses
                     may follow listed by post neuron, for kernels that look at those of active neurons only: ``indptr``, ``indices``,
                     and for each the number that it has in the first list
``event.csr_add``    the same, added to a sum that comes first
``event.csr_ring``   the same, added to a ring buffer: each target is counted from the number ``base``, which comes last; what lies
                     there then moves to the end of the buffer
``event.csr_outer``  for each synapse, the product of a pre and a post value: the cotangent of ``event.csr``'s weights
``event.csr_outer_add`` the same, added to a sum that comes first
``event.csr_change`` weights, those of the synapses of active neurons changed by ``event * amount * other``, times a power ``mu`` of
                     their distance from the bound that they go to (``up`` says which), and kept between ``low`` and ``high``;
                     ``order`` after the connectivity: synapse ``s`` has the weight ``order[s]``
``event.dense``      events and a matrix; ``transposed``: the matrix comes first
``event.jit``        events through synapses that a seed (two u32) makes: each exists with probability ``prob``, and its weight is
                     ``weight``, or for another ``law`` than "one" ``weight[0] + weight[1] * x`` with a random ``x``
``event.compact``    where a bool array is true: how many elements are, then their places, counted over all axes, in order; what
                     comes after these is unspecified
``event.list``       such a list of no events, with ``room`` for some; ``number`` tells apart those that are equal otherwise
``event.append``     a list, and behind what it holds the places of the events of a bool array, each plus a number, ``base``
``event.declare``    a value as it is, of which the user says that it holds events: ``rate`` is the share of active
                     elements, ``use`` pins the products with it ("events", "dense"); None leaves it open

Connectivity is an operand, never an attribute: ``indptr`` (pre + 1) and ``indices`` (synapses), both i32. Events may
have one more axis in front, a batch; ``event.csr_outer`` sums over it.
"""

from __future__ import annotations

from stategraph.ir.core import Op
from stategraph.ir.registry import no_effects, register_op
from stategraph.ir.types import TensorType

EVENT_OPS = (
    "event.csr",
    "event.csr_add",
    "event.csr_outer",
    "event.csr_outer_add",
    "event.csr_change",
    "event.dense",
    "event.jit",
    "event.csr_ring",
    "event.compact",
    "event.list",
    "event.append",
    "event.declare",
)


def _tensors(op: Op, count: int) -> list[TensorType] | str:
    if len(op.operands) != count or len(op.results) != 1:
        return f"it takes {count} operands and gives one result"
    found = [value.type for value in (*op.operands, *op.results) if isinstance(value.type, TensorType)]
    return found if len(found) == count + 1 else "its operands and its result are tensors"


def _connectivity(op: Op, indptr: TensorType, indices: TensorType) -> str | None:
    shape = op.attributes.get("shape")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(isinstance(n, int) for n in shape):
        return "its attribute shape is the numbers of pre and post neurons"
    if indptr.dtype != "i32" or indices.dtype != "i32":
        return f"indptr ({indptr.dtype}) and indices ({indices.dtype}) are i32"
    if indptr.shape != (shape[0] + 1,) or len(indices.shape) != 1:
        return f"indptr is {indptr} and indices {indices}; for {shape[0]} rows they have the shapes ({shape[0] + 1},) and (synapses,)"
    return None


def _vector(what: str, given: TensorType, size: int) -> str | None:
    if len(given.shape) in (1, 2) and given.shape[-1] == size:
        return None
    return f"{what} are {given}; they have {size} elements, with a batch in front of them or without"


def _verify_csr(op: Op) -> str | None:
    types = _tensors(op, 7 if len(op.operands) == 7 else 4)
    return types if isinstance(types, str) else _product(op, types)


def _verify_csr_add(op: Op) -> str | None:
    types = _tensors(op, 8 if len(op.operands) == 8 else 5)
    if isinstance(types, str):
        return types
    total, result = types[0], types[-1]
    if (total.shape, total.dtype) != (result.shape, result.dtype):
        return f"the sum is {total}, and its result is {result}"
    return _product(op, types[1:])


def _verify_csr_ring(op: Op) -> str | None:
    types = _tensors(op, 6)
    if isinstance(types, str):
        return types
    total, events, weight, indptr, indices, base, result = types
    problem = _connectivity(op, indptr, indices)
    if problem is None:
        problem = _vector("the events", events, op.attributes["shape"][0])
    size = op.attributes["shape"][1] if problem is None else 0
    if problem is None and (total.shape[:-1], total.dtype) != (events.shape[:-1], weight.dtype):
        problem = (
            f"the buffer is {total}; it has the batch of the events, {events}, and the dtype of the weight"
        )
    if problem is None and not (len(total.shape) and size <= total.shape[-1] <= 2 * size):
        problem = f"the buffer is {total}; it has {size} elements, and those of one slot"
    if problem is None and (total.shape, total.dtype) != (result.shape, result.dtype):
        problem = f"the buffer is {total}, and its result is {result}"
    if problem is None and weight.shape not in ((), indices.shape):
        problem = f"the weight is {weight}; it is one number, or one for each of {indices.shape[0]} synapses"
    if problem is None and events.dtype not in ("bool", weight.dtype):
        problem = f"the events are {events} and the weight {weight}; events are bool or of the weight's dtype"
    if problem is None and (base.shape, base.dtype) != ((), "i32"):
        problem = f"the base is {base}; it is i32[]"
    return problem


def _product(op: Op, types: list[TensorType]) -> str | None:
    events, weight, indptr, indices, *index, result = types
    problem = _connectivity(op, indptr, indices)
    if problem is not None:
        return problem
    if index:
        wanted = [(op.attributes["shape"][1] + 1,), indices.shape, indices.shape]
        if [(given.dtype, given.shape) for given in index] != [("i32", shape) for shape in wanted]:
            return f"its synapses by post neuron are {', '.join(map(str, index))}; they are i32 and have the shapes {wanted}"
        if op.attributes.get("transposed") is not True:
            return "its synapses are listed by post neuron, and it is not transposed"
    transposed = op.attributes.get("transposed")
    if not isinstance(transposed, bool):
        return "its attribute transposed is True or False"
    sent, arrived = op.attributes["shape"][::-1] if transposed else op.attributes["shape"]
    problem = _vector("the events", events, sent)
    if problem is None and weight.shape not in ((), indices.shape):
        problem = f"the weight is {weight}; it is one number, or one for each of {indices.shape[0]} synapses"
    if problem is None and events.dtype not in ("bool", weight.dtype):
        problem = f"the events are {events} and the weight {weight}; events are bool or of the weight's dtype"
    if problem is None and (result.shape, result.dtype) != ((*events.shape[:-1], arrived), weight.dtype):
        problem = f"its result is {result}, and {arrived} elements of {weight.dtype} arrive"
    return problem


def _verify_outer(op: Op) -> str | None:
    types = _tensors(op, 4)
    return types if isinstance(types, str) else _outer(op, types)


def _verify_outer_add(op: Op) -> str | None:
    types = _tensors(op, 5)
    if isinstance(types, str):
        return types
    total, result = types[0], types[-1]
    if (total.shape, total.dtype) != (result.shape, result.dtype):
        return f"the sum is {total}, and its result is {result}"
    return _outer(op, types[1:])


def _outer(op: Op, types: list[TensorType]) -> str | None:
    pre, post, indptr, indices, result = types
    problem = _connectivity(op, indptr, indices)
    if problem is None:
        problem = _vector("the pre values", pre, op.attributes["shape"][0])
    if problem is None:
        problem = _vector("the post values", post, op.attributes["shape"][1])
    if problem is None and pre.shape[:-1] != post.shape[:-1]:
        problem = f"the pre values are {pre} and the post values {post}; their batches are equal"
    if problem is None and {pre.dtype, post.dtype} - {"bool"} != {result.dtype}:
        problem = f"the values are {pre} and {post}, and its result is {result}"
    if problem is None and result.shape != indices.shape:
        problem = f"its result is {result}, and there are {indices.shape[0]} synapses"
    return problem


def _verify_change(op: Op) -> str | None:
    ordered = len(op.operands) == 7
    types = _tensors(op, 7 if ordered else 6)
    if isinstance(types, str):
        return types
    weight, events, others, amount, indptr, indices = types[:6]
    result, order = types[-1], types[6] if ordered else None
    problem = _connectivity(op, indptr, indices)
    bounds = [op.attributes.get(name) for name in ("low", "high", "mu")]
    if problem is None and not all(isinstance(number, float) for number in bounds):
        problem = "its attributes low, high and mu are numbers"
    if problem is None and not isinstance(op.attributes.get("up"), bool):
        problem = "its attribute up is True or False"
    if problem is None:
        for what, given, size in zip(
            ("events", "other values"), (events, others), op.attributes["shape"], strict=True
        ):
            if given.shape != (size,):
                problem = f"the {what} are {given}; there are {size}"
    if problem is None and weight.shape != indices.shape:
        problem = f"the weights are {weight}; there is one for each of {indices.shape[0]} synapses"
    if problem is None and order is not None and (order.shape, order.dtype) != (indices.shape, "i32"):
        problem = f"the order is {order}; it is i32, and has a number for each of {indices.shape[0]} synapses"
    if problem is None and {weight.dtype} != {others.dtype, amount.dtype, result.dtype}:
        problem = f"the weights are {weight}, and the other values {others}, the amount {amount} and the result {result}"
    if problem is None and events.dtype not in ("bool", weight.dtype):
        problem = (
            f"the events are {events} and the weights {weight}; events are bool or of the weights' dtype"
        )
    if problem is None and (amount.shape != () or result.shape != weight.shape):
        problem = f"the amount is {amount} and the result {result}"
    return problem


def _verify_dense(op: Op) -> str | None:
    types = _tensors(op, 2)
    if isinstance(types, str):
        return types
    events, matrix, result = types
    transposed, threshold = op.attributes.get("transposed"), op.attributes.get("threshold")
    if not isinstance(transposed, bool):
        return "its attribute transposed is True or False"
    if threshold is not None and not isinstance(threshold, float):
        return (
            "its attribute threshold is the share of active events above which the product is dense, or None"
        )
    if len(matrix.shape) != 2:
        return f"the matrix is {matrix}; it has two axes"
    sent, arrived = matrix.shape[::-1] if transposed else matrix.shape
    problem = _vector("the events", events, sent)
    if problem is None and events.dtype not in ("bool", matrix.dtype):
        problem = f"the events are {events} and the matrix {matrix}; events are bool or of the matrix's dtype"
    if problem is None and (result.shape, result.dtype) != ((*events.shape[:-1], arrived), matrix.dtype):
        problem = f"its result is {result}, and {arrived} elements of {matrix.dtype} arrive"
    return problem


def _verify_jit(op: Op) -> str | None:
    types = _tensors(op, 3)
    if isinstance(types, str):
        return types
    events, weight, seed, result = types
    shape, prob = op.attributes.get("shape"), op.attributes.get("prob")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(isinstance(n, int) for n in shape):
        return "its attribute shape is the numbers of pre and post neurons"
    if not isinstance(prob, float) or not 0.0 <= prob <= 1.0:
        return "its attribute prob is a probability"
    for name in ("transposed", "include_self"):
        if not isinstance(op.attributes.get(name), bool):
            return f"its attribute {name} is True or False"
    law = op.attributes.get("law")
    if law not in ("one", "uniform", "normal"):
        return "its attribute law is one, uniform or normal"
    sent, arrived = shape[::-1] if op.attributes["transposed"] else shape
    problem = _vector("the events", events, sent)
    if problem is None and weight.shape != (() if law == "one" else (2,)):
        problem = (
            f"the weight is {weight}; for the law {law} it has {'one number' if law == 'one' else 'two'}"
        )
    if problem is None and (seed.dtype, seed.shape) != ("u32", (2,)):
        problem = f"the seed is {seed}; it is u32[2]"
    if problem is None and events.dtype not in ("bool", weight.dtype):
        problem = f"the events are {events} and the weight {weight}; events are bool or of the weight's dtype"
    if problem is None and (result.shape, result.dtype) != ((*events.shape[:-1], arrived), weight.dtype):
        problem = f"its result is {result}, and {arrived} elements of {weight.dtype} arrive"
    return problem


def _verify_declare(op: Op) -> str | None:
    types = _tensors(op, 1)
    if isinstance(types, str):
        return types
    rate, use = op.attributes.get("rate"), op.attributes.get("use")
    if types[0] != types[1]:
        return f"its result has the type of its operand, {types[0]}, not {types[1]}"
    if rate is not None and not (isinstance(rate, float) and 0 <= rate <= 1):
        return "its attribute rate is the share of active elements, between 0.0 and 1.0, or None"
    return None if use in (None, "events", "dense") else "its attribute use is 'events', 'dense' or None"


def _verify_compact(op: Op) -> str | None:
    types = _tensors(op, 1)
    if isinstance(types, str):
        return types
    events, result = types
    if events.dtype != "bool":
        return f"the events are {events}; they are bool"
    if (result.dtype, result.shape) != ("i32", (1 + events.size,)):
        return f"its result is {result}; of {events.size} events it is i32[{1 + events.size}]"
    return None


def _verify_list(op: Op) -> str | None:
    types = _tensors(op, 0)
    if isinstance(types, str):
        return types
    room = op.attributes.get("room")
    if not isinstance(room, int) or room < 0 or not isinstance(op.attributes.get("number"), int):
        return "its attributes are room, how many places there are, and number"
    if (types[0].dtype, types[0].shape) != ("i32", (1 + room,)):
        return f"its result is {types[0]}; with room for {room} it is i32[{1 + room}]"
    return None


def _verify_append(op: Op) -> str | None:
    types = _tensors(op, 3)
    if isinstance(types, str):
        return types
    listed, events, base, result = types
    if events.dtype != "bool":
        return f"the events are {events}; they are bool"
    if listed.dtype != "i32" or len(listed.shape) != 1 or listed.size <= events.size:
        return f"the list is {listed}; with {events.size} events it is i32, and has room for them"
    if (base.dtype, base.shape) != ("i32", ()):
        return f"what is added to the places is {base}; it is i32[]"
    return None if result == listed else f"its result has the type of the list, {listed}, not {result}"


register_op("event.csr", summary="events through sparse synapses", effects=no_effects, verify=_verify_csr)
register_op(
    "event.csr_add",
    summary="a sum, and events through sparse synapses",
    effects=no_effects,
    verify=_verify_csr_add,
)
register_op(
    "event.csr_outer",
    summary="for each synapse, the product of its pre and its post value",
    effects=no_effects,
    verify=_verify_outer,
)
register_op(
    "event.csr_outer_add",
    summary="a sum for each synapse, and the product of its pre and its post value",
    effects=no_effects,
    verify=_verify_outer_add,
)
register_op(
    "event.csr_change",
    summary="weights, those of active neurons changed",
    effects=no_effects,
    verify=_verify_change,
)
register_op("event.dense", summary="events times a matrix", effects=no_effects, verify=_verify_dense)
register_op(
    "event.jit", summary="events through synapses made of a seed", effects=no_effects, verify=_verify_jit
)
register_op("event.compact", summary="list the places of events", effects=no_effects, verify=_verify_compact)
register_op("event.list", summary="a list of no events", effects=no_effects, verify=_verify_list)
register_op(
    "event.append", summary="list the places of more events", effects=no_effects, verify=_verify_append
)
register_op(
    "event.declare", summary="say that a value holds events", effects=no_effects, verify=_verify_declare
)
register_op(
    "event.csr_ring",
    summary="a ring buffer, and events through sparse synapses with delays",
    effects=no_effects,
    verify=_verify_csr_ring,
)
