"""bf16 parameters under AdamW-Win train like float32 ones, since the float32 `x` integrates what rounding loses."""

from __future__ import annotations

import torch

from benchmarks.bf16_params import OPTIMIZERS, final_loss


def test_win_on_bf16_parameters_follows_its_float32_run():
    strays = {}
    for name, make in OPTIMIZERS.items():
        exact, rounded = (final_loss(make, dtype, seed=0, steps=1200) for dtype in (torch.float32, torch.bfloat16))
        strays[name] = abs(rounded - exact) / exact
    assert strays["adamw_win"] < 0.02
    assert strays["torch AdamW"] > 10 * strays["adamw_win"]
