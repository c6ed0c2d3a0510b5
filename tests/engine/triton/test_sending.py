"""What is sent at each step, from memory that may be used again only when the device has read it; streams that stay."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from hf_winopt.engine.triton import plan, sending
from tests.engine.triton.stepping import make, train


class Event:
    """Of a device that reads what it was told to only when it is waited for."""

    def __init__(self, told, copies):
        self.told, self.copies = told, copies

    def record(self):
        self.copies.append(self)

    def synchronize(self):
        self.told.append("waited")


def packed(*numbers):
    return bytearray(torch.tensor(numbers, dtype=torch.int64).numpy().tobytes())


def test_a_ring_of_memory_is_waited_for_only_when_it_comes_round():
    told, copies = [], []
    upload = sending.Upload(2, torch.device("cpu"))
    memories = [torch.zeros(2, dtype=torch.int64) for _ in range(sending.RING)]
    upload._ring = deque(sending._Pinned(memory, Event(told, copies)) for memory in memories)
    for t in range(2 * sending.RING):
        upload.send(packed(t, t + 1), capturing=False)
        upload.send(packed(t, t + 1), capturing=False)  # is there already
        assert upload.tensor.tolist() == [t, t + 1]
        assert memories[t % sending.RING].tolist() == [t, t + 1]
        older = [memory.tolist() for i, memory in enumerate(memories) if i != t % sending.RING]
        assert [t - 1, t] in older or t == 0
        assert len(copies) == len(told) == t + 1
    assert copies[0] is copies[sending.RING] and len(set(map(id, copies))) == sending.RING


def test_a_graph_has_memory_of_its_own():
    upload = sending.Upload(1, torch.device("cpu"))
    upload._of_graph = torch.zeros(1, dtype=torch.int64)
    upload.send(packed(3), capturing=True)
    upload.send(packed(4), capturing=False)
    assert upload._of_graph.tolist() == [3] and upload.tensor.tolist() == [4]


@pytest.mark.parametrize("name", ["adamw_win", "lamb_win", "adan_agr"])
def test_another_stream_keeps_the_memory_of_a_plan(name, device, monkeypatch):
    """Which would else be given to others when the plan is dropped, while the stream still reads it."""
    params, optimizer = make(device, name, weight_decay=0.1)
    train(params, optimizer, 0, 2)
    (mine,) = optimizer._ready.plan._devices
    recorded = []
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda tensor, stream: recorded.append((tensor.data_ptr(), stream))
    )
    train(params, optimizer, 2, 3)
    assert not recorded, "it is the stream that the memory belongs to"
    for stream, times in (("second", 1), ("second", 0), ("third", 1)):
        monkeypatch.setattr(plan._DevicePlan, "_stream", lambda self, stream=stream: stream)
        recorded.clear()
        train(params, optimizer, 3, 4)
        (batch,) = mine._batches
        held = [batch.table, batch.coefs, batch.chunks, batch.spans, batch.parts, batch.sums, mine._upload.tensor]
        assert {each.data_ptr() for each in held} <= {address for address, _ in recorded} or times == 0
        assert {told for _, told in recorded} == ({stream} if times else set())
    assert optimizer._ready.plan._devices[0] is mine
