"""The arguments that both training scripts take beside Trainer's, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_winopt import WinOptTrainingArguments
from recipes.common import RecipeError, RunArguments, one_gpu_a_process, parse_arguments, refuse
from recipes.transformer_xl.configuration_transfo_xl import TransfoXLConfig
from recipes.transformer_xl.text import EMBEDDED

BASE = TransfoXLConfig()


def _size(name: str, meaning: str) -> Any:
    return field(default=getattr(BASE, name), metadata={"help": f"Of a new model: {meaning}."})


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Go on with a model that was trained so; a new one unless given."}
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "The vocabulary of a model; a new one, or the model's own, unless given."}
    )
    vocab_size: int | None = field(default=None, metadata={"help": "Of a new vocabulary: at most so many words."})
    min_count: int = field(default=1, metadata={"help": "Of a new vocabulary: rarer words are unknown."})
    cutoffs: list[int] = field(
        default_factory=lambda: list(BASE.cutoffs),
        metadata={"help": "Of a new model: where the adaptive softmax cuts the vocabulary; -1 for nowhere."},
    )
    d_model: int = _size("d_model", "width")
    n_layer: int = _size("n_layer", "layers")
    n_head: int = _size("n_head", "heads")
    d_head: int = _size("d_head", "width of a head")
    d_inner: int = _size("d_inner", "inner width of the feed-forward part")
    dropout: float = _size("dropout", "of hidden states")
    dropatt: float = _size("dropatt", "of attention weights")
    init_std: float = _size("init_std", "standard deviation of initial weights")


@dataclass
class TextArguments(RunArguments):
    dataset_name: str = field(
        default="Salesforce/wikitext",
        metadata={"help": f"On the Hub or in a folder; a folder of text files; or '{EMBEDDED}': no network."},
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "wikitext-103-v1 unless given, for Salesforce/wikitext."}
    )
    tgt_len: int = field(default=150, metadata={"help": "Words of a segment."})
    mem_len: int = field(default=BASE.mem_len, metadata={"help": "Words before a segment that are remembered."})
    eval_tgt_len: int | None = field(default=None, metadata={"help": "In evaluations; --tgt_len unless given."})
    eval_mem_len: int | None = field(default=None, metadata={"help": "In evaluations; --mem_len unless given."})
    eval_clamp_len: int | None = field(
        default=None, metadata={"help": "In evaluations: distances beyond this count as this."}
    )
    eval_same_length: bool = field(
        default=False, metadata={"help": "In evaluations: every word sees equally many words before it."}
    )


Arguments = tuple[ModelArguments, TextArguments, WinOptTrainingArguments]


def parse(script: str, argv: Sequence[str]) -> Arguments:
    """All three, from a command line.

    Raises:
        RecipeError: something cannot be.
    """
    model_args, text_args, training_args = parse_arguments(
        Path(script).name,
        (ModelArguments, TextArguments, WinOptTrainingArguments),
        argv,
        # Segments say of which rows they are; in one row every word has all words before it; a curve needs points.
        {
            "output_dir": "runs/transformer_xl",
            "per_device_eval_batch_size": 1,
            "remove_unused_columns": False,
            "eval_strategy": "epoch",
            "logging_steps": 50,
        },
    )
    for name, least in (
        ("tgt_len", 1), ("mem_len", 0), ("eval_tgt_len", 1), ("eval_mem_len", 0), ("eval_clamp_len", 1)
    ):  # fmt: skip
        if (value := getattr(text_args, name)) is not None and value < least:
            raise RecipeError(f"--{name} {value}: must be at least {least}")
    if training_args.fp16 and training_args.device.type == "cpu":
        raise RecipeError("fp16 needs a GPU: give --fp16 false")
    one_gpu_a_process(training_args)
    refuse(training_args, ("label_smoothing_factor", "neftune_noise_alpha", "auto_find_batch_size"))
    if (training_args.metric_for_best_model or "").endswith("perplexity"):
        training_args.greater_is_better = False  # Trainer knows that only of losses
    if text_args.dataset_config_name is None and text_args.dataset_name == TextArguments.dataset_name:
        text_args.dataset_config_name = "wikitext-103-v1"
    return model_args, text_args, training_args
