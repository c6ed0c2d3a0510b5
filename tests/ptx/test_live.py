"""What is live is what is held when a launch comes, and no more of it than its elements."""

from __future__ import annotations

import sys

import pytest
import torch

from .live import Live, held_by_callers
from .machine import Fault, Machine
from .program import Program
from .written import kernel


def ranges(*tensors):
    """From where to where, and where the histories begin, counted from the first address."""
    live = Live((f"tensor {k}", tensor) for k, tensor in enumerate(tensors))
    start = int(live.ranges["begin"].min())
    found = [(int(begin) - start, int(end) - start, int(first)) for begin, end, first in live.ranges]
    return found, live.bytes


def test_a_part_of_a_tensor_adds_nothing():
    whole = torch.zeros(10)
    assert ranges(whole[2:5], whole, whole[8:]) == ([(0, 40, 0)], 40)


def test_tensors_that_overlap_share_the_histories_of_what_they_share():
    whole = torch.zeros(100)
    assert ranges(whole[20:40], whole[:10], whole[5:15], whole[30:50]) == (
        [(0, 40, 0), (20, 60, 20), (80, 160, 60), (120, 200, 100)], 180,
    )  # fmt: skip


def test_the_elements_of_a_tensor_are_not_its_storage():
    whole = torch.zeros(10, 6)
    assert ranges(whole.t(), whole[:0]) == ([(0, 240, 0)], 240)
    assert ranges(whole[1:4, 2:4]) == ([(0, 56, 0)], 56)


def test_where_an_address_is():
    tensor = torch.zeros(4)
    live, start = Live([("it", tensor)]), tensor.data_ptr()
    found = [live.describe(start + offset) for offset in (-3, 0, 15, 16, 20)]
    assert [each.removesuffix(" it (16 bytes)") for each in found] == [
        "3 bytes before", "byte 0 of", "byte 15 of", "0 bytes behind", "4 bytes behind",
    ]  # fmt: skip
    assert Live([]).describe(5) == "no tensor is live"


def held():
    """The addresses of what the callers of this function hold."""
    return {tensor.data_ptr() for _, tensor in held_by_callers(sys._getframe())}


def held_in_a_step(optimizer):
    """The same, as asked from within a step of an optimizer of hf_winopt."""
    names = {"__name__": "hf_winopt.optim.another", "held": held}
    exec("def step(self):\n    return held()", names)
    return names["step"](optimizer)


def test_what_an_optimizer_holds_when_it_steps_is_live_and_nothing_else():
    p, other = torch.nn.Parameter(torch.ones(5)), torch.zeros(5)
    optimizer = torch.optim.Adam([p])
    p.grad = torch.ones(5)
    optimizer.step()
    before = optimizer.state[p]["exp_avg"]
    assert held_in_a_step(optimizer) == {each.data_ptr() for each in (p, p.grad, *optimizer.state[p].values())}
    optimizer.state[p]["exp_avg"] = before.clone()
    found = held_in_a_step(optimizer)
    assert optimizer.state[p]["exp_avg"].data_ptr() in found
    assert not found & {before.data_ptr(), other.data_ptr()}


def test_where_no_optimizer_steps_the_test_says_what_is_live():
    mine = [torch.zeros(3), {"a": torch.zeros(4)}]
    assert held() == {mine[0].data_ptr(), mine[1]["a"].data_ptr()}


def test_a_byte_of_two_tensors_has_one_history():
    """A block that writes through one, and another that reads through the other, conflict."""
    whole = torch.zeros(32, dtype=torch.int32)
    body = """
        mov.u32 %block, %ctaid.x;
        setp.eq.u32 %first, %block, 0;
        @%first st.global.b32 [%base0 + 80], 1;
        @!%first ld.global.b32 %r, [%base1 + 32];
    """
    parts = [whole[:24], whole[12:]]
    program = Program(kernel(body, 2, 32))
    live = Live(("a part", each) for each in parts)
    with pytest.raises(Fault, match=r"reads what another block of the launch writes"):
        Machine().launch(program, [each.data_ptr() for each in parts], live, [(0, 0, 0), (1, 0, 0)], (2, 1, 1))
