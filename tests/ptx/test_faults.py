"""What a GPU would not do as it is meant, or not always, ends the launch, and the fault says what and where."""

from __future__ import annotations

import pytest
import torch

from .machine import Fault, Machine
from .program import Program
from .text import Unreadable
from .written import kernel, run

THREADS = 64
BLOCK = "mov.u32 %block, %ctaid.x; mad.wide.u32 %ours, %block, 4, %base0;"
OF_BLOCK_1 = "setp.eq.u32 %one, %block, 1; and.pred %both, %one, %chosen;"
THREAD_0 = "setp.eq.u32 %chosen, %thread, 0;"
WARP_0 = "setp.lt.u32 %chosen, %thread, 32;"


@pytest.fixture
def numbers():
    return torch.arange(THREADS, dtype=torch.int32)


# global memory -------------------------------------------------------------------------------------------------------


def test_nothing_is_wrong(numbers):
    run("ld.global.b32 %r, [%at]; add.s32 %r, %r, 5; st.global.b32 [%at], %r;", numbers)
    assert numbers.tolist() == list(range(5, THREADS + 5))


@pytest.mark.parametrize(
    ("instruction", "where"),
    [
        ("ld.global.b32 %r, [%at + 4];", "thread 63 .*, 0 bytes behind"),
        ("ld.global.b32 %r, [%at + -8];", "thread 0 .*, 8 bytes before"),
        ("st.global.b32 [%at + 40], %thread;", "thread 54 .*, 0 bytes behind"),
        ("ld.global.v2.b32 {%r, %s}, [%base0 + 264];", "thread 0 .*, 8 bytes behind"),
    ],
)
def test_what_is_in_no_tensor(instruction, where, numbers):
    with pytest.raises(Fault, match=rf"(?s){where} tensor 0 \(256 bytes\)"):
        run(instruction, numbers)


def test_what_is_half_in_one_tensor_and_half_in_the_next():
    both = torch.zeros(8, dtype=torch.int32)
    run("ld.global.v4.b32 {%a, %b, %c, %d}, [%base0];", both)
    with pytest.raises(Fault, match=r"not all of one tensor"):
        run("ld.global.v4.b32 {%a, %b, %c, %d}, [%base0];", both[:2], both[2:])


def test_what_else_is_in_the_storage_of_a_tensor(numbers):
    with pytest.raises(Fault, match=r"thread 32 .*not all of one tensor"):
        run("ld.global.b32 %r, [%at];", numbers[:32])


@pytest.mark.parametrize(
    "instruction",
    [
        "ld.global.b32 %r, [%base0 + 2];",
        "ld.global.v4.b32 {%a, %b, %c, %d}, [%base0 + 4];",
        "st.global.v2.b16 [%base0 + 2], {1, 1};",
        "st.global.b64 [%base0 + 12], 0;",
    ],
)
def test_addresses_that_are_no_multiple_of_the_width(instruction, numbers):
    with pytest.raises(Fault, match=r"no multiple of its width"):
        run(instruction, numbers)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0, 1)])
@pytest.mark.parametrize(
    "body",
    [
        "@%chosen st.global.b32 [%base0], 7;",
        "ld.global.b32 %r, [%base0]; @%chosen st.global.b32 [%ours], 7;",
        "@%chosen st.global.b32 [%ours], 7; ld.global.b32 %r, [%base0 + 4];",
        f"{OF_BLOCK_1} @!%one ld.global.b32 %r, [%base0]; @%both st.global.b32 [%base0], 7;",
        f"{OF_BLOCK_1} ld.global.b32 %r, [%base0]; @%both st.global.b32 [%base0], 7;",
    ],
)
def test_blocks_that_conflict(body, order, numbers):
    """Also where they write the same, and in whatever order they run."""
    with pytest.raises(Fault, match=r"(reads|writes) what another block of the launch (reads|writes)"):
        run(f"{BLOCK} {THREAD_0} {body}", numbers, blocks=order, threads=32)


def test_blocks_that_read_the_same_and_write_each_its_own(numbers):
    body = "ld.global.b32 %r, [%base0 + 128]; @%chosen st.global.b32 [%ours], %r;"
    run(f"{BLOCK} {THREAD_0} {body}", numbers, blocks=(0, 1, 2), threads=32)
    assert numbers[:4].tolist() == [32, 32, 32, 3]


def test_launches_follow_each_other(numbers):
    machine = Machine()
    for _ in range(3):
        run("ld.global.b32 %r, [%at]; st.global.b32 [%at], %r;", numbers, machine=machine)


def test_threads_that_write_to_one_address(numbers):
    run("st.global.b32 [%base0], 3;", numbers)
    with pytest.raises(Fault, match=r"thread 1 .*writes otherwise than another thread"):
        run("st.global.b32 [%base0], %thread;", numbers)


def test_warps_of_which_one_writes_what_all_read(numbers):
    """One of them may be ahead, where no barrier holds it; having read it again itself does not matter."""
    body = f"ld.global.b32 %r, [%base0]; {{}} {THREAD_0} @%chosen st.global.b32 [%base0], 5;"
    run(body.format(f"bar.sync 0; {WARP_0} @%chosen ld.global.b32 %r, [%base0];"), numbers)
    with pytest.raises(Fault, match=r"writes what another warp reads"):
        run(body.format(""), numbers)


# shared memory -------------------------------------------------------------------------------------------------------

PLACES = """
    shl.b32 %place, %thread, 2;
    mov.b32 %start, global_smem;
    add.s32 %place, %place, %start;
    xor.b32 %other, %place, 128;
"""
"""A place for each thread, and that of the same lane in the other warp."""


def test_warps_exchange_through_shared_memory(numbers):
    body = """
        st.shared.b32 [%place], %thread;
        bar.sync 0;
        ld.shared.b32 %r, [%other];
        st.global.b32 [%at], %r;
    """
    run(PLACES + body, numbers, shared=256)
    assert numbers.tolist() == [*range(32, 64), *range(32)]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("st.shared.b32 [%place], 1; ld.shared.b32 %r, [%other];", "reads what another warp writes"),
        (
            "st.shared.b32 [%place], 1; bar.sync 0; ld.shared.b32 %r, [%other]; st.shared.b32 [%place], 2;",
            "writes what another warp reads",
        ),
        ("st.shared.b32 [%place], 1; st.shared.b32 [%other], %thread;", "writes otherwise than another thread"),
        ("ld.shared.b32 %r, [%place];", "reads shared memory that nobody wrote"),
        (f"{WARP_0} @%chosen st.shared.b32 [%place], 1; bar.sync 0; ld.shared.b32 %r, [%place];", "nobody wrote"),
        ("st.shared.b32 [%place + 4], 1;", "not all of one tensor"),
        ("st.shared.v2.b32 [%place + 4], {1, 1};", "no multiple of its width"),
    ],
)
def test_faults_in_shared_memory(body, why, numbers):
    with pytest.raises(Fault, match=why):
        run(PLACES + body, numbers, shared=256)


def test_what_another_block_left_in_shared_memory(numbers):
    body = "setp.eq.u32 %first, %block, 0; @%first st.shared.b32 [%place], 1; ld.shared.b32 %r, [%place];"
    with pytest.raises(Fault, match=r"block \(1, 0, 0\) reads shared memory that nobody wrote"):
        run(BLOCK + PLACES + body, numbers, shared=256, blocks=(0, 1))


# what threads do together --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "why"),
    [
        ("@%chosen bra END;\nEND:\n", "goes another way"),
        ("@!%chosen bra END;\nEND:\n", "goes another way"),
        ("@%chosen ret;", "ends, or does not, otherwise"),
        ("@!%chosen bar.sync 0;", "is at a barrier, or is not, otherwise"),
    ],
)
def test_threads_that_go_different_ways(instruction, why, numbers):
    with pytest.raises(Fault, match=rf"thread 32 of block \(0, 0, 0\) {why} than the first thread of its block"):
        run(f"{WARP_0} {instruction}", numbers)


def test_branches_that_all_take_or_none(numbers):
    body = """
        mov.b32 %r, 0;
        AGAIN:
        add.s32 %r, %r, 1;
        setp.lt.u32 %more, %r, 5;
        @%more bra AGAIN;
        @%more bra END;
        st.global.b32 [%at], %r;
        END:
    """
    run(body, numbers)
    assert numbers.tolist() == [5] * THREADS


def test_a_trap(numbers):
    with pytest.raises(Fault, match=r"thread 32 .*traps"):
        run(f"{WARP_0} @!%chosen trap;", numbers)


SHUFFLES = {
    "bfly 5, 31": [t ^ 5 for t in range(64)],
    "up 2, 0": [t - 2 if t % 32 >= 2 else t for t in range(64)],
    "down 2, 31": [t + 2 if t % 32 < 30 else t for t in range(64)],
    "idx 3, 31": [t // 32 * 32 + 3 for t in range(64)],
    f"up 2, {24 << 8}": [t - 2 if t % 8 >= 2 else t for t in range(64)],
    f"down 2, {24 << 8 | 31}": [t + 2 if t % 8 < 6 else t for t in range(64)],
    f"idx 3, {24 << 8 | 31}": [t // 8 * 8 + 3 for t in range(64)],
}
"""In whole warps, and in segments of eight lanes."""


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_lanes_exchange(shuffle, numbers):
    way, how = shuffle.split(" ", 1)
    run(f"shfl.sync.{way}.b32 %r, %thread, {how}, -1; st.global.b32 [%at], %r;", numbers)
    assert numbers.tolist() == SHUFFLES[shuffle]


WHOLE = {"add.s32": (-16, 112), "min.s32": (-1, 3), "max.s32": (0, 4), "min.u32": (0, 3), "max.u32": (-1, 4)}
SINGLE = {"min.f32": (-1.0, 3.0), "max.f32": (0.0, 4.0), "max.abs.f32": (1.0, 4.0)}


@pytest.mark.parametrize("name", [*WHOLE, *SINGLE])
def test_warps_reduce(name):
    """One warp's lanes hold 0 and -1 by turns, which without a sign is the largest; the other's 3 and 4."""
    held = torch.tensor([0, -1] * 16 + [3, 4] * 16, dtype=torch.float32 if name in SINGLE else torch.int32)
    run(f"ld.global.b32 %r, [%at]; redux.sync.{name} %r, %r, -1; st.global.b32 [%at], %r;", held)
    of_each = torch.tensor((WHOLE | SINGLE)[name], dtype=held.dtype)
    assert held.equal(of_each.repeat_interleave(32))


BUT_LANE_7 = "and.b32 %lane, %thread, 31; setp.ne.u32 %rest, %lane, 7; @%rest"


@pytest.mark.parametrize(
    ("instruction", "why"),
    [
        (f"{BUT_LANE_7} shfl.sync.bfly.b32 %r, %thread, 1, 31, -1;", "of a mask, one of which is not there"),
        (f"{BUT_LANE_7} redux.sync.add.s32 %r, %thread, -1;", "of a mask, one of which is not there"),
        (f"{BUT_LANE_7} bar.warp.sync -1;", "of a mask, one of which is not there"),
        ("shfl.sync.bfly.b32 %r, %thread, 1, 31, 0xffff;", "thread 16 .*of a mask that leaves it out"),
        (f"{BUT_LANE_7} shfl.sync.idx.b32 %r, %thread, 7, 31, 0xffffff7f;", "takes the value of a lane that is not"),
    ],
)
def test_lanes_that_are_not_there(instruction, why, numbers):
    with pytest.raises(Fault, match=why):
        run(instruction, numbers)


# registers and text --------------------------------------------------------------------------------------------------


HALF = "mov.b64 %pair, {%thread, %nothing}; add.rn.f32x2 %pair, %pair, %pair; mov.b64 {%low, %high}, %pair;"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("st.global.b32 [%at], %nothing;", "makes use of a register"),
        ("ld.global.b32 %r, [%nothing];", "makes use of a register"),
        ("shfl.sync.bfly.b32 %r, %nothing, 1, 31, -1;", "makes use of a register"),
        ("add.s32 %r, %nothing, 1; st.global.b32 [%at], %r;", "makes use of a register"),
        (f"{HALF} st.global.b32 [%at], %high;", "makes use of a register"),
        ("mov.b64 %pair, {%thread, %nothing}; st.global.b64 [%base0], %pair;", "makes use of a register"),
        ("@%nothing mov.b32 %r, 1;", "depends on a predicate"),
        ("setp.eq.s32 %p, %nothing, 1; @%p bra END;\nEND:\n", "depends on a predicate"),
    ],
)
def test_registers_that_nothing_was_put_in(body, why, numbers):
    with pytest.raises(Fault, match=rf"{why} that nothing was put in"):
        run(body, numbers)


def test_registers_that_nothing_was_put_in_and_nothing_comes_of(numbers):
    """As where LLVM has a pair of which it needs one."""
    body = f"setp.eq.u32 %never, %thread, 64; @%never st.global.b32 [%at], %nothing; add.s32 %r, %nothing, 1; {HALF}"
    run(f"{body} st.global.b32 [%at], %low;", numbers)
    assert numbers.view(torch.float32).equal(2 * torch.arange(THREADS, dtype=torch.int32).view(torch.float32))


def test_what_another_block_put_in_a_register(numbers):
    body = """
        setp.ne.u32 %later, %block, 0;
        @%later bra LATER;
        mov.b32 %r, 1;
        LATER:
        st.global.b32 [%at], %r;
    """
    with pytest.raises(Fault, match=r"block \(1, 0, 0\) makes use of a register that nothing was put in"):
        run(BLOCK + body, numbers, blocks=(0, 1))


@pytest.mark.parametrize(
    ("instruction", "why"),
    [
        ("frobnicate.b32 %r, %thread;", "frobnicate.b32: this instruction is not known"),
        ("add.f32 %r, %thread, %thread;", "add.f32: this instruction is not known"),
        ("div.full.f32 %r, %thread, %thread;", "div.full.f32: this instruction is not known"),
        ("sqrt.approx.f32 %r, %thread;", "sqrt.approx.f32: this instruction is not known"),
        ("atom.global.add.u32 %r, [%at], 1;", "atom.global.add.u32: this instruction is not known"),
        ("ld.volatile.global.b32 %r, [%at];", "ld.volatile.global.b32: this instruction is not known"),
        ("ld.global.L1::frob.b32 %r, [%at];", "L1::frob is not known"),
        ("ld.global.v4.b32 {%a, %b}, [%at];", "takes 4 registers, not 2"),
        ("ld.global.b32 %r, [%at], %policy;", "takes 2 operands, not 3"),
        ("ld.global.b32 %r, %at;", "%at is no address"),
        ("ld.param.b64 %r, [%at];", "is no parameter"),
        ("add.s32 %r, %thread;", "takes 3 operands, not 2"),
        ("mov.b32 %r, elsewhere;", "elsewhere is not known"),
        ("bra ELSEWHERE;", "there is no label ELSEWHERE"),
        ("bar.sync 0, 32;", "only barrier 0 is known"),
    ],
)
def test_what_is_not_known_is_named(instruction, why):
    with pytest.raises(Unreadable, match=rf"^written, line 10 .*{why}"):
        Program(kernel(instruction, 1, THREADS))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected one kernel, found 0"),
        (kernel("", 1, 64) + kernel("", 1, 64), "expected one kernel, found 2"),
        (kernel("", 1, 40), "blocks of 40 threads"),
        (kernel("%r = 5;", 1, 64), "line 10: '%r = 5'"),
    ],
)
def test_what_is_not_a_kernel(text, why):
    with pytest.raises(Unreadable, match=why):
        Program(text)


def test_a_fault_says_where(numbers):
    """The lines of Python, the innermost first; the line of the PTX; the instruction."""
    place = ".loc 1 23 5, function_name $L__info_string0, inlined_at 2 186 16"
    text = kernel(f"{place}\n@!%chosen ld.global.v2.b32 {{%r, %s}}, [%at];", 1, THREADS).replace(
        "ld.param", f"{WARP_0} ld.param"
    )
    program = Program(text + '.file 1 "/somewhere/kernels.py"\n.file 2 "/somewhere" "batch.py"\n')
    found = next(each for each in program.kernel.statements if each.opcode.startswith("ld.global"))
    assert found.place == "kernels.py:23, in batch.py:186"
    assert str(found) == "@!%chosen ld.global.v2.b32 {%r, %s}, [%at]"
    assert text.split("\n")[found.line - 1] == f"{found};"
    with pytest.raises(Fault) as caught:
        run("ld.global.b32 %r, [%at + 4];", numbers, blocks=(3,))
    lines = str(caught.value).split("\n")
    assert lines[0] == "thread 63 of block (3, 0, 0) accesses memory that is not all of one tensor"
    assert lines[1] == "written, no line of Python, line 10 of the PTX: ld.global.b32 %r, [%at + 4]"
    assert lines[2] == f"address {numbers.data_ptr() + 256:#x}, 0 bytes behind tensor 0 (256 bytes)"
