"""Writes transfo_xl.npz: weights, inputs, losses and memories of the Transformer-XL of transformers 4.35.2.

Run where that version is installed (with torch; numpy below 2.4): python tests/parity/record_transfo_xl.py
"""

from pathlib import Path

import numpy
import torch
import transformers
from transformers import TransfoXLConfig, TransfoXLLMHeadModel

SIZES = {"d_model": 24, "d_embed": 24, "n_head": 3, "d_head": 8, "d_inner": 40, "n_layer": 3, "vocab_size": 90}
SEGMENTS, BATCH, LENGTH = 4, 2, 7


def main() -> None:
    assert transformers.__version__ == "4.35.2", transformers.__version__
    torch.manual_seed(0)
    kept = {}
    for name, options in {
        "plain": {"mem_len": 10, "same_length": False, "clamp_len": -1},
        "same_length": {"mem_len": 9, "same_length": True, "clamp_len": 5},
    }.items():
        config = TransfoXLConfig(**SIZES, cutoffs=[20, 50], div_val=1, proj_share_all_but_first=False, **options)
        model = TransfoXLLMHeadModel(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
        model.tie_weights()
        kept |= {f"{name}.weights.{key}": value.numpy() for key, value in model.state_dict().items()}
        ids = torch.randint(90, (SEGMENTS, BATCH, LENGTH))
        mems = None
        for segment in range(SEGMENTS):
            with torch.no_grad():
                out = model(ids[segment], mems=mems, labels=ids[segment], return_dict=True)
                log_probabilities = model(ids[segment], mems=mems, return_dict=True).prediction_scores
            mems = out.mems
            kept[f"{name}.{segment}.ids"] = ids[segment].numpy()
            kept[f"{name}.{segment}.loss"] = out.loss.numpy()
            kept[f"{name}.{segment}.mems"] = torch.stack(mems).transpose(1, 2).numpy()
            kept[f"{name}.{segment}.log_probabilities"] = log_probabilities.numpy()
    numpy.savez_compressed(Path(__file__).with_name("transfo_xl.npz"), **kept)


if __name__ == "__main__":
    main()
