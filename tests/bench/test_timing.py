"""What is made of samples and of a profiler's events; no test here asks how long anything takes."""

from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity

from hf_winopt.bench import launches, timing
from hf_winopt.bench.timing import Sample

CPU = torch.device("cpu")
KERNEL = {"ph": "X", "cat": "kernel", "dur": 100.0}
COPY = {"ph": "X", "cat": "gpu_memcpy", "dur": 20}


def test_steps_take_turns():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "ab"}
    samples = timing.interleaved(steps, 4, CPU)
    assert calls[-8:] == ["a", "b"] * 4
    assert len(calls) == 8 + 2 * timing.WARM_UP
    assert all(len(mine) == 4 and all(s.ms >= 0 and s.host_us is None for s in mine) for mine in samples.values())


def test_ratios_are_within_rounds():
    slow_in_the_second = [Sample(1), Sample(50), Sample(2)], [Sample(2), Sample(100), Sample(2)]
    assert timing.ratios(*slow_in_the_second) == (0.5, 0.5, 0.75)
    assert timing.ratios([Sample(3)], [Sample(2)]) == (1.5, 1.5, 1.5)


def test_a_summary():
    made = timing.summary([Sample(1.0, 7.0), Sample(5.0, 9.0), Sample(2.0, 20.0)])
    assert made == {"median_ms": 2.0, "min_ms": 1.0, "max_ms": 5.0, "host_us": 9.0}
    assert timing.summary([Sample(1.0)])["host_us"] is None


def test_kernels_are_counted_apart_from_copies():
    annotation = {"ph": "X", "cat": "gpu_user_annotation", "name": "Optimizer.step#AdamW.step", "dur": 500}
    host = {"ph": "X", "cat": "cpu_op", "dur": 900}
    events = [host, annotation, KERNEL, {"ph": "f", "cat": "ac2g"}, COPY, KERNEL, {**COPY, "cat": "gpu_memset"}]
    assert launches.counts(events) == {"launches": 2, "copies": 2, "busy_ms": pytest.approx(0.24)}


def test_no_kernels_are_not_taken_for_none_launched():
    assert launches.counts([]) == launches.UNKNOWN
    assert launches.launches(lambda: None, CPU) == launches.UNKNOWN


class Recorder:
    """Stands for `torch.cuda`: writes down what it is asked."""

    def __init__(self):
        self.asked = []

    def synchronize(self):
        self.asked.append("synchronize")

    def Event(self, enable_timing):
        assert enable_timing
        event = SimpleNamespace(elapsed_time=lambda end: 2.5)
        event.record = lambda: self.asked.append("record")
        return event


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(torch, "get_device_module", lambda device: recorder)
    return recorder


def test_a_step_on_a_device_starts_when_the_queue_is_empty(recorder):
    sample = timing.timed(lambda: recorder.asked.append("step"), torch.device("cuda"))
    assert recorder.asked == ["synchronize", "record", "step", "record", "synchronize"]
    assert sample.ms == 2.5 and sample.host_us > 0


def test_the_device_is_busy_with_something_else_while_the_host_prepares_a_step(recorder):
    """Otherwise the time of the device would be that of the host, for models that are small."""
    timing.timed(lambda: recorder.asked.append("step"), torch.device("cuda"), lambda: recorder.asked.append("ahead"))
    assert recorder.asked == ["synchronize", "ahead", "record", "step", "record", "synchronize"]


def test_what_lies_ahead_takes_longer_than_the_host(recorder, monkeypatch):
    monkeypatch.setattr(timing.Ahead, "BYTES", 64)
    ahead = timing.Ahead(CPU)  # 100 copies take 2.5 ms, says the recorder
    copies = []
    monkeypatch.setattr(ahead, "_copy", copies.append)
    ahead.for_seconds(1e-3)
    ahead.for_seconds(0.0)
    assert copies == [40, 0]

    asked = []
    monkeypatch.setattr(timing, "Ahead", lambda device: SimpleNamespace(for_seconds=asked.append))
    monkeypatch.setattr(timing, "timed", lambda step, device, ahead=None: ahead() if ahead else Sample(1.0, step()))
    timing.interleaved({"a": lambda: 200.0, "b": lambda: 50.0}, 2, torch.device("cuda"))
    assert asked == pytest.approx([6e-4, 1.5e-4] * 2)


def test_the_events_of_a_profile(recorder):
    events = launches._trace(lambda: torch.ones(3).add_(1), [ProfilerActivity.CPU], torch.device("cuda"))
    assert "aten::add_" in {event.get("name") for event in events}
    assert launches.counts(events) == launches.UNKNOWN


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_launches_on_a_device():
    device = torch.device("cuda")
    source = torch.ones(1 << 20, device=device)
    target = torch.empty_like(source)
    counted = launches.launches(lambda: (source.mul_(1.0), target.copy_(source)), device)
    assert (counted["launches"], counted["copies"]) == (1, 1)
    assert counted["busy_ms"] > 0
    assert timing.timed(lambda: source.mul_(1.0), device).host_us > 0
