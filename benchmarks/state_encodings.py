"""What small states of AdamW do where they easily go wrong: each level of `state`, beside other packages' 8 bits.

    python -m benchmarks.state_encodings --json benchmarks/results/state_encodings.json
    python -m benchmarks.state_encodings --report benchmarks/results/state_encodings.json

Gradients are given. Other packages are measured on the CPU, where they are installed. Restated are FlashOptim, which
needs a GPU (its paper is arXiv 2602.23349), and bitsandbytes' rounding to the nearest code: its CPU kernels do not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hf_winopt
from hf_winopt.bench.results import save

Params = list[torch.nn.Parameter]
Make = Callable[[Params], Any]
"""An optimizer with a rate of 1, no weight decay, and what all have by default: betas 0.9 and 0.999, eps 1e-8."""

SHAPE, GROUP = (16, 256), 32
"""So large that all of them take 8 bits; and in so many elements, all share a scale in every encoding."""


class Restated:
    """AdamW that reads back, from one step to the next, what `momentum` and `variance` leave of its moments."""

    def __init__(self, params: Any, momentum: Callable[[Tensor], Tensor], variance: Callable[[Tensor], Tensor]):
        (self.p,), self.momentum, self.variance = params, momentum, variance
        self.t, self.m, self.v = 0, torch.zeros(SHAPE), torch.zeros(SHAPE)

    @torch.no_grad()
    def step(self) -> None:
        self.t += 1
        m, v = torch.lerp(self.m, self.p.grad, 1 - 0.9), torch.lerp(self.v, self.p.grad.square(), 1 - 0.999)
        self.p -= m / (1 - 0.9**self.t) / ((v / (1 - 0.999**self.t)).sqrt() + 1e-8)
        self.m, self.v = self.momentum(m), self.variance(v)


def _scaled(values: Tensor, block: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Values as shares of the largest in their block, and that largest one as `dtype` keeps it."""
    blocks = values.reshape(-1, block)
    scale = blocks.abs().amax(-1, keepdim=True).to(dtype).float()
    return (blocks / torch.where(scale == 0, 1.0, scale)).clamp(-1, 1), scale


def flash_momentum(values: Tensor) -> Tensor:
    """FlashOptim's: int8 of `2 x / (1 + |x|)`."""
    x, scale = _scaled(values, GROUP, torch.float16)
    y = (2 * x / (1 + x.abs()) * 127).round() / 127
    return (y / (2 - y.abs()) * scale).view(SHAPE)


def flash_variance(values: Tensor) -> Tensor:
    """FlashOptim's: uint8 of the root."""
    x, scale = _scaled(values.sqrt(), GROUP, torch.float16)
    return ((x * 255).round() / 255 * scale).square().view(SHAPE)


def nearest(values: Tensor, signed: bool = True) -> Tensor:
    """bitsandbytes' 256 values: 0, 1, and seven decades, each with twice as many as the one below it."""
    edges = [torch.linspace(0.1, 1, 2 ** (i + (not signed)) + 1) for i in range(7)]
    positive = torch.cat([10.0 ** (i - 6) * (each[1:] + each[:-1]) / 2 for i, each in enumerate(edges)])
    codes = torch.cat([positive, torch.tensor([0.0, 1.0]), *([-positive] if signed else [])]).sort().values
    x, scale = _scaled(values, 256, torch.float32)
    return (codes[torch.bucketize(x, (codes[1:] + codes[:-1]) / 2)] * scale).view(SHAPE)


def of(module: str, name: str, **options: Any) -> Make:
    """A class of a package that need not be there."""
    return lambda params: getattr(import_module(module), name)(params, lr=1.0, weight_decay=0.0, **options)


OUR = partial(of, "hf_winopt", "AdamW", backend="eager")
OURS = {f"`{state}`": ("hf_winopt", OUR(state=state)) for state in ("float32", "compact", "8bit")}
ALL: dict[str, tuple[str, Make]] = {
    **OURS,
    "torchao AdamW8bit": ("torchao", of("torchao.optim", "AdamW8bit")),
    "torchao AdamWFp8": ("torchao", of("torchao.optim", "AdamWFp8")),
    "bitsandbytes AdamW8bit, on the CPU": ("bitsandbytes", of("bitsandbytes.optim", "AdamW8bit")),
    "bitsandbytes' codes, to the nearest": ("restated", lambda p: Restated(p, nearest, lambda v: nearest(v, False))),
    "FlashOptim's codes": ("restated", lambda p: Restated(p, flash_momentum, flash_variance)),
}
"""Name -> what is measured, and how it is made."""


def directions(make: Make, grads: list[Tensor]) -> Tensor:
    """What each step takes away, in units of the learning rate."""
    p, taken = torch.nn.Parameter(torch.zeros(SHAPE)), []
    optimizer = make([p])
    for p.grad in grads:
        p.data.zero_()
        optimizer.step()
        taken.append(-p.detach())
    return torch.stack(taken)


def noise(steps: int, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=g) for _ in range(steps)]


EARLY, LATE, LONG = 20, 2000, 2000
BOUND = 0.1 / ((1 - 0.999) * (1 - 0.9**2 / 0.999)) ** 0.5
"""The longest step that Adam can take with exact moments, whatever the gradients were."""


def leaps(make: Make) -> dict[str, Any]:
    """Updates beside an outlier, a single gradient of 10^4 of an element in each row, in `LONG` steps from there on.

    In half of the rows it comes after `EARLY` steps, while exp_avg_sq still fills, in the others after `LATE` ones.
    """
    grads = noise(LATE + LONG)
    grads[EARLY][:8, 5] = grads[LATE][8:, 5] = 1e4
    lengths = directions(make, grads)[:, :, :GROUP].abs()
    lengths[:, :, 5] = 0.0
    early, late = lengths[EARLY : EARLY + LONG, :8], lengths[LATE:, 8:]
    beyond = 100 * (early > BOUND).sum().item() / (early.numel() * (GROUP - 1) / GROUP)
    return {"early": early.max().item(), "beyond": beyond, "late": late.max().item()}


def after_silence(make: Make) -> Tensor:
    """How far elements move, whatever the sign, in 100 steps after 1,200 without a gradient: 30 of every 32."""
    grads = noise(1600)
    for g in grads[300:1500]:
        g.view(-1, GROUP)[:, 2:] = 0.0
    return directions(make, grads)[1500:].abs().sum(0).view(-1, GROUP)[:, 2:]


def after_tiny(make: Make) -> Tensor:
    """Where 300 gradients lead, of a mean of 1e-7 or -1e-7 and of noise as large."""
    (mean,) = noise(1, seed=1)
    return directions(make, [1e-7 * (mean.sign() + each) for each in noise(300)]).sum(0)


def measure(lines: dict[str, tuple[str, Make]]) -> dict[str, Any]:
    """A row for each line that can be measured here, and why the others cannot."""
    far, there = after_silence(OUR()), after_tiny(OUR())
    rows, left_out = [], []
    for name, (what, make) in lines.items():
        is_here = what in ("hf_winopt", "restated")
        try:
            row = {"name": name, "measured": what if is_here else f"{what} {version(what)}", **leaps(make)}
            row["silence"] = (after_silence(make).mean() / far.mean()).item()
            row["tiny"] = ((after_tiny(make) * there).sum() / there.square().sum()).item()
            rows.append(row)
        except Exception as error:  # a package that is not there, or that asks for what this machine lacks
            if is_here:
                raise
            left_out.append(f"{name}: {type(error).__name__}")
    versions = {"torch": torch.__version__, "hf_winopt": hf_winopt.__version__}
    return {"versions": versions, "rows": rows, "left_out": left_out}


HEADS = {
    "early": "beside an outlier at step 21: largest update",
    "beyond": f"updates above {BOUND:.2f}, %",
    "late": "beside one at step 2,001: largest update",
    "silence": "after 1,200 silent steps: share of the right step",
    "tiny": "gradients of 1e-7: share of the right way",
}


def digits(x: float) -> str:
    return f"{float(f'{x:.3g}'):,.0f}" if x >= 1000 or x == 0 else f"{x:#.3g}".rstrip(".")


def table(result: dict[str, Any]) -> str:
    """A line for each way to keep the state; updates in units of the learning rate."""
    lines = [f"| state | measured | {' | '.join(HEADS.values())} |", "|---" * (len(HEADS) + 2) + "|"]
    for row in result["rows"]:
        figures = " | ".join(digits(row[key]) for key in HEADS)
        lines.append(f"| {row['name']} | {row['measured']} | {figures} |")
    return "\n".join(lines + [f"\nLeft out: {each}." for each in result["left_out"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--report", type=Path, metavar="JSON", help="only print the table of these figures")
    args = parser.parse_args()
    result = json.loads(args.report.read_text(encoding="utf-8")) if args.report else measure(ALL)
    if args.json:
        save(args.json, result)
    print(table(result))


if __name__ == "__main__":
    main()
