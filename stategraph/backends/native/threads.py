"""Threads of a kernel: XLA's own, asked to help with pieces of work.

    team = begin(frame, wanted)      # None (0) where one thread is to do it all: then ``run`` calls the function itself
    run(team, function, data)        # function(data, piece, pieces) for all pieces, each once, by whoever comes first
    end(team)                        # nobody helps any more

The caller works too, and waits for pieces that somebody has begun, never for threads that have not come: so a busy pool
makes a kernel slow and not stuck. Where it has to wait for long again and again, other programs have the processors, and it
works alone for a while. Every thread has a piece of its own that it takes first, so that its part of the arrays
stays in its cache; whose piece is not taken is helped. A helper that finds nothing to do for a while goes away, and is
called again.

What is between the threads is one word, the *ticket*: its lower 16 bits are the pieces that nobody has taken, the others
count what was run. A helper reads the ticket, then what is to be done, and takes a piece by exchanging the ticket, which
fails if it has changed meanwhile. A negative ticket says that the kernel has returned. Whoever leaves last frees the memory, so a helper
that comes too late finds the ticket.

These functions are LLVM text, compiled once for each process; kernels know them by the names that ``names`` gives.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform

from stategraph.backends.native.frame import Frame, Request

MOST = 16
"""Threads of a kernel at most: bits of the ticket."""
HURRY, PATIENCE = 200, 500
"""How often a helper looks for work before it lets others have its processor each time, and before it goes away: some 100 µs."""
WAITS = 2000
"""How often the caller looks whether the others are done before it lets others have its processor: some 80 µs."""
COST, MOST_COST, REST = 8, 32, 10_000
"""What such a wait counts, each run without one making up for 1 of it; at how much the caller goes on alone, as threads that
have no processors only stand in the way; and for how many runs.
"""
_X86 = "call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"
_ARM = "call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32 immarg)"
_RELAX = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}
"""How a processor is told that a loop waits, and the declaration that it needs."""
FUNCTIONS = ("begin", "run", "end", "split")


@functools.cache
def names(layout: Frame) -> dict[str, str]:
    """What each function is called: a hash of its text is part of the name."""
    key = hashlib.sha256(_text(layout).encode()).hexdigest()[:16]
    return {name: f"stategraph_{name}_{key}" for name in (*FUNCTIONS, "limit")}


def text(layout: Frame) -> str:
    """The functions as LLVM text."""
    found = _text(layout)
    for name, long in names(layout).items():
        found = found.replace(f"@{name}(", f"@{long}(")
    return found.replace("@limit ", f"@{names(layout)['limit']} ").replace(
        "@limit,", f"@{names(layout)['limit']},"
    )


def limit() -> int:
    """How many threads a kernel may have: ``$STATEGRAPH_THREADS``, else as many as there are."""
    given = os.environ.get("STATEGRAPH_THREADS", "")
    return min(max(int(given), 1), MOST) if given.isdecimal() else MOST


def _ask(prefix: str, request: Request, *fields: str) -> str:
    """Code that calls a function of XLA; the error it returns is ``%{prefix}.error``."""
    lines = [
        f"store i64 {request.size}, ptr %{prefix}.args, align 8",
        f"%{prefix}.extension = getelementptr i8, ptr %{prefix}.args, i64 8",
        f"store ptr null, ptr %{prefix}.extension, align 8",
    ]
    for number, (offset, value) in enumerate(zip(request.fields, fields, strict=True)):
        lines.append(f"%{prefix}.at{number} = getelementptr i8, ptr %{prefix}.args, i64 {offset}")
        lines.append(f"store ptr {value}, ptr %{prefix}.at{number}, align 8")
    lines += [
        f"%{prefix}.place = getelementptr i8, ptr %api, i64 {request.function}",
        f"%{prefix}.function = load ptr, ptr %{prefix}.place, align 8",
        f"%{prefix}.error = call ptr %{prefix}.function(ptr %{prefix}.args)",
    ]
    return "\n  ".join(lines)


def _text(layout: Frame) -> str:
    pool = layout.pool
    relax, declare = _RELAX.get(platform.machine().lower(), ("fence acquire", ""))
    return _TEMPLATE.format(
        most=MOST,
        hurry=HURRY,
        patience=PATIENCE,
        waits=WAITS,
        costs=COST,
        bears=MOST_COST,
        rests=REST,
        relax=relax,
        declare=declare,
        frame_api=pool.frame_api,
        frame_context=pool.frame_context,
        count_size=pool.count.size,
        schedule_size=pool.schedule.size,
        forget_size=pool.forget.size,
        ask_count=_ask("count", pool.count, "%context", "%count.number"),
        ask_schedule=_ask("schedule", pool.schedule, "%context", "@help", "%team"),
        forget_count=_ask("forget", pool.forget, "%count.error"),
        forget_schedule=_ask("forget", pool.forget, "%schedule.error"),
    )


_TEMPLATE = """
@limit = global i64 1, align 8

declare ptr @malloc(i64)
declare void @free(ptr)
declare i32 @stategraph_yield()
declare i64 @llvm.cttz.i64(i64, i1)
declare i64 @llvm.usub.sat.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare i16 @llvm.ctpop.i16(i16)
{declare}

; a cache line each: the ticket; function and data, how slow the others were, how many runs they are left alone; pieces done;
; who refers to this, who has come, who is here or called; and what does not change
%team = type {{ i64, [7 x i64], ptr, ptr, i64, i64, [4 x i64], i64, [7 x i64], i64, i64, i64, [5 x i64], ptr, i64, ptr, ptr }}

define ptr @begin(ptr %frame, i64 %wanted) {{
entry:
  %count.args = alloca i8, i64 {count_size}, align 8
  %count.number = alloca i64, align 8
  %forget.args = alloca i8, i64 {forget_size}, align 8
  %most = load i64, ptr @limit, align 8
  %allowed = call i64 @llvm.smin.i64(i64 %most, i64 %wanted)
  %some = icmp sgt i64 %allowed, 1
  br i1 %some, label %ask, label %alone
ask:
  %api.at = getelementptr i8, ptr %frame, i64 {frame_api}
  %api = load ptr, ptr %api.at, align 8
  %context.at = getelementptr i8, ptr %frame, i64 {frame_context}
  %context = load ptr, ptr %context.at, align 8
  store i64 0, ptr %count.number, align 8
  {ask_count}
  %fine = icmp eq ptr %count.error, null
  br i1 %fine, label %counted, label %refused
refused:
  {forget_count}
  br label %alone
counted:
  %there = load i64, ptr %count.number, align 8
  %threads = call i64 @llvm.smin.i64(i64 %there, i64 %allowed)
  %several = icmp sgt i64 %threads, 1
  br i1 %several, label %make, label %alone
make:
  %size = ptrtoint ptr getelementptr (%team, ptr null, i64 1) to i64
  %more = add i64 %size, 64
  %base = call ptr @malloc(i64 %more)
  %none = icmp eq ptr %base, null
  br i1 %none, label %alone, label %fill
fill:
  %number = ptrtoint ptr %base to i64
  %beyond = add i64 %number, 63
  %line = and i64 %beyond, -64
  %gap = sub i64 %line, %number
  %team = getelementptr i8, ptr %base, i64 %gap
  store i64 0, ptr %team, align 8
  %done.at = getelementptr %team, ptr %team, i32 0, i32 7
  store i64 0, ptr %done.at, align 8
  %slow.at = getelementptr %team, ptr %team, i32 0, i32 4
  store i64 0, ptr %slow.at, align 8
  %rest.at = getelementptr %team, ptr %team, i32 0, i32 5
  store i64 0, ptr %rest.at, align 8
  %refs.at = getelementptr %team, ptr %team, i32 0, i32 9
  store i64 1, ptr %refs.at, align 8
  %come.at = getelementptr %team, ptr %team, i32 0, i32 10
  store i64 0, ptr %come.at, align 8
  %here.at = getelementptr %team, ptr %team, i32 0, i32 11
  store i64 0, ptr %here.at, align 8
  %base.at = getelementptr %team, ptr %team, i32 0, i32 13
  store ptr %base, ptr %base.at, align 8
  %threads.at = getelementptr %team, ptr %team, i32 0, i32 14
  store i64 %threads, ptr %threads.at, align 8
  %kept.at = getelementptr %team, ptr %team, i32 0, i32 15
  store ptr %context, ptr %kept.at, align 8
  %table.at = getelementptr %team, ptr %team, i32 0, i32 16
  store ptr %api, ptr %table.at, align 8
  ret ptr %team
alone:
  ret ptr null
}}

define internal void @leave(ptr %team) {{
entry:
  %refs.at = getelementptr %team, ptr %team, i32 0, i32 9
  %before = atomicrmw sub ptr %refs.at, i64 1 acq_rel
  %last = icmp eq i64 %before, 1
  br i1 %last, label %free, label %done
free:
  %base.at = getelementptr %team, ptr %team, i32 0, i32 13
  %base = load ptr, ptr %base.at, align 8
  call void @free(ptr %base)
  br label %done
done:
  ret void
}}

define internal i1 @work(ptr %team, i64 %home) {{
entry:
  %first = load atomic i64, ptr %team acquire, align 8
  br label %look
look:
  %ticket = phi i64 [%first, %entry], [%now, %choose]
  %pieces = and i64 %ticket, 65535
  %none = icmp eq i64 %pieces, 0
  br i1 %none, label %nothing, label %choose
choose:
  %own = shl i64 1, %home
  %mine = and i64 %pieces, %own
  %has = icmp ne i64 %mine, 0
  %lowest = call i64 @llvm.cttz.i64(i64 %pieces, i1 true)
  %piece = select i1 %has, i64 %home, i64 %lowest
  %bit = shl i64 1, %piece
  %function.at = getelementptr %team, ptr %team, i32 0, i32 2
  %function = load atomic ptr, ptr %function.at monotonic, align 8
  %data.at = getelementptr %team, ptr %team, i32 0, i32 3
  %data = load atomic ptr, ptr %data.at monotonic, align 8
  %left = xor i64 %ticket, %bit
  %exchanged = cmpxchg ptr %team, i64 %ticket, i64 %left acq_rel acquire
  %now = extractvalue {{ i64, i1 }} %exchanged, 0
  %mine.now = extractvalue {{ i64, i1 }} %exchanged, 1
  br i1 %mine.now, label %go, label %look
go:
  %threads.at = getelementptr %team, ptr %team, i32 0, i32 14
  %threads = load i64, ptr %threads.at, align 8
  call void %function(ptr %data, i64 %piece, i64 %threads)
  %done.at = getelementptr %team, ptr %team, i32 0, i32 7
  %before = atomicrmw add ptr %done.at, i64 1 release
  ret i1 true
nothing:
  ret i1 false
}}

define internal void @help(ptr %team) {{
entry:
  %come.at = getelementptr %team, ptr %team, i32 0, i32 10
  %come = atomicrmw add ptr %come.at, i64 1 monotonic
  %threads.at = getelementptr %team, ptr %team, i32 0, i32 14
  %threads = load i64, ptr %threads.at, align 8
  %helpers = sub i64 %threads, 1
  %turn = urem i64 %come, %helpers
  %home = add i64 %turn, 1
  br label %look
look:
  %spins = phi i64 [0, %entry], [0, %look], [%more, %give], [%more, %pause]
  %did = call i1 @work(ptr %team, i64 %home)
  br i1 %did, label %look, label %idle
idle:
  %ticket = load atomic i64, ptr %team monotonic, align 8
  %over = icmp slt i64 %ticket, 0
  %more = add i64 %spins, 1
  %tired = icmp ugt i64 %more, {patience}
  %go = or i1 %over, %tired
  br i1 %go, label %leave, label %rest
rest:
  %long = icmp ugt i64 %more, {hurry}
  br i1 %long, label %give, label %pause
give:
  %given = call i32 @stategraph_yield()
  br label %look
pause:
  {relax}
  br label %look
leave:
  %here.at = getelementptr %team, ptr %team, i32 0, i32 11
  %before = atomicrmw sub ptr %here.at, i64 1 monotonic
  call void @leave(ptr %team)
  ret void
}}

define internal void @call_one(ptr %team) noinline {{
entry:
  %schedule.args = alloca i8, i64 {schedule_size}, align 8
  %forget.args = alloca i8, i64 {forget_size}, align 8
  %refs.at = getelementptr %team, ptr %team, i32 0, i32 9
  %refs = atomicrmw add ptr %refs.at, i64 1 monotonic
  %here.at = getelementptr %team, ptr %team, i32 0, i32 11
  %here = atomicrmw add ptr %here.at, i64 1 monotonic
  %kept.at = getelementptr %team, ptr %team, i32 0, i32 15
  %context = load ptr, ptr %kept.at, align 8
  %table.at = getelementptr %team, ptr %team, i32 0, i32 16
  %api = load ptr, ptr %table.at, align 8
  {ask_schedule}
  %fine = icmp eq ptr %schedule.error, null
  br i1 %fine, label %done, label %refused
refused:
  {forget_schedule}
  call void @leave(ptr %team)
  br label %done
done:
  ret void
}}

define void @run(ptr %team, ptr %function, ptr %data) {{
entry:
  %alone = icmp eq ptr %team, null
  br i1 %alone, label %whole, label %ask
ask:
  %rest.at = getelementptr %team, ptr %team, i32 0, i32 5
  %rests = load i64, ptr %rest.at, align 8
  %resting = icmp sgt i64 %rests, 0
  br i1 %resting, label %skip, label %shared
skip:
  %fewer = sub i64 %rests, 1
  store i64 %fewer, ptr %rest.at, align 8
  br label %whole
whole:
  call void %function(ptr %data, i64 0, i64 1)
  ret void
shared:
  %threads.at = getelementptr %team, ptr %team, i32 0, i32 14
  %threads = load i64, ptr %threads.at, align 8
  %here.at = getelementptr %team, ptr %team, i32 0, i32 11
  br label %count
count:
  %here = load atomic i64, ptr %here.at monotonic, align 8
  %next = add i64 %here, 1
  %missing = icmp slt i64 %next, %threads
  br i1 %missing, label %call, label %publish
call:
  call void @call_one(ptr %team)
  br label %count
publish:
  %function.at = getelementptr %team, ptr %team, i32 0, i32 2
  store atomic ptr %function, ptr %function.at monotonic, align 8
  %data.at = getelementptr %team, ptr %team, i32 0, i32 3
  store atomic ptr %data, ptr %data.at monotonic, align 8
  %done.at = getelementptr %team, ptr %team, i32 0, i32 7
  store atomic i64 0, ptr %done.at monotonic, align 8
  %old = load atomic i64, ptr %team monotonic, align 8
  %clear = and i64 %old, -65536
  %following = add i64 %clear, 65536
  %bit = shl i64 1, %threads
  %all = sub i64 %bit, 1
  %ticket = or i64 %following, %all
  store atomic i64 %ticket, ptr %team release, align 8
  br label %work
work:
  %did = call i1 @work(ptr %team, i64 0)
  br i1 %did, label %work, label %wait
wait:
  %spins = phi i64 [0, %work], [%more, %again]
  %done = load atomic i64, ptr %done.at acquire, align 8
  %finished = icmp eq i64 %done, %threads
  br i1 %finished, label %finish, label %rest
rest:
  %more = add i64 %spins, 1
  %long = icmp ugt i64 %more, {waits}
  br i1 %long, label %give, label %pause
give:
  %given = call i32 @stategraph_yield()
  br label %again
pause:
  {relax}
  br label %again
again:
  br label %wait
finish:
  %slow.at = getelementptr %team, ptr %team, i32 0, i32 4
  %slow = load i64, ptr %slow.at, align 8
  %was.long = icmp ugt i64 %spins, {waits}
  %slower = add i64 %slow, {costs}
  %faster = call i64 @llvm.usub.sat.i64(i64 %slow, i64 1)
  %slow.now = select i1 %was.long, i64 %slower, i64 %faster
  %too.slow = icmp ugt i64 %slow.now, {bears}
  %slow.kept = select i1 %too.slow, i64 0, i64 %slow.now
  store i64 %slow.kept, ptr %slow.at, align 8
  br i1 %too.slow, label %stop, label %return
stop:
  store i64 {rests}, ptr %rest.at, align 8
  br label %return
return:
  ret void
}}

define void @end(ptr %team) {{
entry:
  %alone = icmp eq ptr %team, null
  br i1 %alone, label %done, label %close
close:
  store atomic i64 -65536, ptr %team release, align 8
  call void @leave(ptr %team)
  br label %done
done:
  ret void
}}

; where in a row of synapses those from %bound on begin; -1 where it holds no such place
define i64 @split(ptr %indices, i64 %begin, i64 %end, i64 %bound) "prefer-vector-width"="512" {{
entry:
  %short = trunc i64 %bound to i32
  %one = insertelement <16 x i32> poison, i32 %short, i64 0
  %bounds = shufflevector <16 x i32> %one, <16 x i32> poison, <16 x i32> zeroinitializer
  %length = sub i64 %end, %begin
  %is.short = icmp slt i64 %length, 16
  br i1 %is.short, label %single, label %vectors
vectors:
  %at = phi i64 [%begin, %entry], [%following, %vectors]
  %below = phi i64 [0, %entry], [%below.now, %vectors]
  %ended = phi i16 [0, %entry], [%ended.now, %vectors]
  %wrong = phi i16 [0, %entry], [%wrong.now, %vectors]
  %final = sub i64 %end, 16
  %start = call i64 @llvm.smin.i64(i64 %at, i64 %final)
  %place = getelementptr i32, ptr %indices, i64 %start
  %found = load <16 x i32>, ptr %place, align 4
  %less = icmp ult <16 x i32> %found, %bounds
  %all = bitcast <16 x i1> %less to i16
  %seen = sub i64 %at, %start
  %seen.short = trunc i64 %seen to i16
  %bits = lshr i16 %all, %seen.short
  %full = lshr i16 -1, %seen.short
  %number = call i16 @llvm.ctpop.i16(i16 %bits)
  %number.wide = zext i16 %number to i64
  %below.now = add i64 %below, %number.wide
  %plus = add i16 %bits, 1
  %holes = and i16 %bits, %plus
  %late = and i16 %bits, %ended
  %wrong.a = or i16 %wrong, %holes
  %wrong.now = or i16 %wrong.a, %late
  %is.full = icmp eq i16 %bits, %full
  %ends = sext i1 %is.full to i16
  %ends.not = xor i16 %ends, -1
  %ended.now = or i16 %ended, %ends.not
  %following = add i64 %at, 16
  %again = icmp slt i64 %following, %end
  br i1 %again, label %vectors, label %found.it
found.it:
  %fine = icmp eq i16 %wrong.now, 0
  %where = add i64 %begin, %below.now
  %answer = select i1 %fine, i64 %where, i64 -1
  ret i64 %answer
single:
  %s = phi i64 [%begin, %entry], [%s.next, %body]
  %last = phi i64 [%begin, %entry], [%last.now, %body]
  %sum = phi i64 [%begin, %entry], [%sum.now, %body]
  %inside = icmp slt i64 %s, %end
  br i1 %inside, label %body, label %out
body:
  %s.place = getelementptr i32, ptr %indices, i64 %s
  %index = load i32, ptr %s.place, align 4
  %is.less = icmp ult i32 %index, %short
  %s.next = add i64 %s, 1
  %last.now = select i1 %is.less, i64 %s.next, i64 %last
  %add = zext i1 %is.less to i64
  %sum.now = add i64 %sum, %add
  br label %single
out:
  %same = icmp eq i64 %last, %sum
  %answer.short = select i1 %same, i64 %sum, i64 -1
  ret i64 %answer.short
}}
"""
