"""Shared by the IR's tests: a small program in text, and random ones."""

import pytest

from stategraph import ir

STEP = """stategraph 1

program @step(%x : f32[3], %lr : f32[]) captures(
  %table : f32[2] = $0,  // 8 B
) -> (loss : f32[]) tree * {
  state @net.h : HiddenState<f32[3]> {batch_axis = 0} = [$1] #0
  state @net.W : ParamState<{"b": f32[], "w": f32[3]}> #0
  state @count : LongTermState<i32[]>
  %h = state.read @net.h : f32[3] #1
  %b, %w = state.read @net.W : f32[], f32[3] #1
  %last, %ys = flow.scan [length = 3] carry(%c = %h : f32[3]) xs(%e = %x : f32[]) : f32[3], f32[3] #2 {
    %n = state.read @count : i32[] #2
    %0 = jax.add %n, 1:i32[] : i32[] #2
    state.write @count, %0 #2
    %1 = jax.mul %c, %w : f32[3] #2
    %2 = flow.while carry(%j = %e : f32[]) : f32[] #2 cond {
      %3 = jax.lt %j, %lr : bool[] #2
      flow.yield %3
    } body {
      %4 = jax.add %j, 1.0:f32[] : f32[] #2
      flow.yield %4
    }
    flow.yield %1, %2
  }
  state.write @net.h, %last #3
  %p = jax.gt %b, 0.0:f32[] : bool[] #3
  %loss = flow.cond %p : f32[] #3 branch 0 {
    flow.yield %b
  } branch 1 {
    %5 = flow.call @square(%v = %b : f32[]) : f32[] #3 {
      state.alloc @local = %v #3
      %6 = state.read @local : f32[] #3
      %7 = jax.mul %6, %6 : f32[] #3
      flow.yield %7
    }
    flow.yield %5
  }
  host.debug_print %loss {fmt = "loss {}", ordered = false} #3
  flow.yield %loss
}

locations {
  #0 = "model.py":7
  #1 = "model.py":12 in "step"
  #2 = "model.py":13 in "step" scope "loop"
  #3 = "model.py":15 in "step"
}

{-#
  $0 : f32[2] = "AACAPwAAAEA="
  $1 : f32[3] = "AAAAAAAAAAAAAAAA"
#-}
"""


@pytest.fixture
def step() -> ir.Program:
    """A valid program with States, loops, a branch and a call."""
    return ir.parse(STEP)
