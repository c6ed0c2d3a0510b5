"""The loops that are written in C++: what they do not know is refused, and what is no number goes as in torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hf_winopt import create_optimizer
from hf_winopt.engine.cpp import library, loops


def source_of(operation: Callable[[Tensor], Tensor]) -> str:
    class Pass(torch.nn.Module):
        def forward(self, values: Tensor) -> list[Tensor]:
            values.copy_(operation(values))
            return []

    size = {0: torch.export.Dim("size", min=2)}
    program = torch.export.export(Pass(), (torch.ones(7, 128),), dynamic_shapes=(size,), strict=False)
    return loops.source(program.run_decompositions())


def test_one_walk_up_to_a_maximum_and_one_with_it():
    text = source_of(lambda values: values / values.abs().amax(dim=-1, keepdim=True))
    first, second = (text.index("larger(amax_"), text.index("write(t0"))
    assert first < text.index("largest_of(amax_)") < second and text.count("for (int j") == 2
    assert source_of(lambda values: values * 2).count("for (int j") == 1


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        (torch.sin, "aten.sin.default"),
        (lambda values: values**3, "aten.pow.Tensor_Scalar"),
        (lambda values: values / values.amax(dim=-1, keepdim=True), "aten.amax.default"),
        (lambda values: values / values.abs().amax(dim=0, keepdim=True), "aten.amax.default"),
        (lambda values: values / values.sum(dim=-1, keepdim=True), "aten.sum.dim_IntList"),
        (lambda values: values.to(torch.int32).to(values.dtype), "aten._to_copy.default"),
    ],
)
def test_what_they_do_not_know_is_named(operation, named):
    with pytest.raises(NotImplementedError, match=named):
        source_of(operation)


SPOILED = {
    "not a number": float("nan"),
    "infinite": float("inf"),
    "of an infinite square": 1e30,
    "of the smallest kind": 1e-40,
    "nothing": 0.0,
}


@pytest.mark.parametrize("value", SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize("level", ["compact", "8bit"])
def test_a_spoiled_block_is_spoiled_as_by_the_eager_engine(level, value):
    left = [_left_by(backend, level, value) for backend in ("compile", "eager")]
    for ours, theirs in zip(*left):
        assert torch.equal(ours.isnan(), theirs.isnan())
        torch.testing.assert_close(ours.nan_to_num(), theirs.nan_to_num(), rtol=1e-5, atol=1e-3)  # a code may flip
    assert left[0][0][:, 128:].isfinite().all() and left[0][0][1:].isfinite().all()


def _left_by(backend: str, level: str, value: float) -> list[Tensor]:
    """A parameter and its scales after a block of its gradient was so, and two ordinary steps."""
    generator = torch.Generator().manual_seed(3)
    p = torch.nn.Parameter(torch.randn(32, 256, generator=generator))
    optimizer = create_optimizer("adamw_win", [p], lr=1e-2, backend=backend, state=level)
    for t in range(3):
        p.grad = torch.randn(p.shape, generator=generator)
        if t == 0:
            p.grad[0, :128] = value if value in (0.0, 1e-40) else p.grad[0, :128]
            p.grad[0, 7] = value
        optimizer.step()
    return [p.detach(), *(v for key, v in optimizer.state[p].items() if key.endswith("_scale"))]


@pytest.mark.parametrize("content", [b"", b"no library"])
def test_what_is_no_library_is_said_as_what_is_no_program(tmp_path, content):
    """It is then compiled anew, as any program that was damaged."""
    path = tmp_path / "loops.so"
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"loops\.so cannot be loaded"):
        library.Library(path)
