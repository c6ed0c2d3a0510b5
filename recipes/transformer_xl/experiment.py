"""What is trained on what: from the arguments to the vocabulary, the model and the streams of text, and the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainingArguments

from hf_winopt.integrations.results import Finished, Results
from hf_winopt.public import public_name
from recipes.common import RecipeError, check_unfinished
from recipes.transformer_xl import streams, text, vocabulary
from recipes.transformer_xl.arguments import Arguments, ModelArguments, TextArguments
from recipes.transformer_xl.configuration_transfo_xl import TransfoXLConfig
from recipes.transformer_xl.memory import Memory
from recipes.transformer_xl.modeling_transfo_xl import TransfoXLLMHeadModel
from recipes.transformer_xl.streams import Streams

USAGE = """
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

name = "FOLDER_OR_HUB_NAME"
# Words are split at spaces: put spaces around punctuation marks.
tokenizer = PreTrainedTokenizerFast.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)  # the code of the model is in there
words = model.generate(**tokenizer("the module", return_tensors="pt"), max_new_tokens=50, do_sample=True)
print(tokenizer.decode(words[0]))
""".strip()

PREFIXES = {"validation": "eval_", "test": "eval_test_"}
"""What stands before a metric of each split in the log."""


@dataclass(frozen=True)
class Experiment:
    """All that a training script needs, checked before any training."""

    tokenizer: PreTrainedTokenizerBase
    model: TransfoXLLMHeadModel
    train: Streams
    validation: Streams
    test: Streams


def prepare(arguments: Arguments, checkpoint: str | None) -> Experiment:
    """Read the text, find or make the vocabulary and the model, and lay out the streams.

    Args:
        arguments: of the script; the seed must be set already.
        checkpoint: what is gone on from, whose vocabulary must be that of the text.

    Raises:
        RecipeError: some of it does not fit.
    """
    model_args, text_args, training_args = arguments
    lines = text.load(text_args.dataset_name, text_args.dataset_config_name)
    tokenizer = _vocabulary(model_args, lines["train"])
    model = _model(model_args, text_args, tokenizer)
    ids = {split: vocabulary.encode(tokenizer, lines[split]) for split in text.SPLITS}
    rows = training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size
    eval_rows = training_args.eval_batch_size * training_args.world_size
    eval_segment, end = text_args.eval_tgt_len or text_args.tgt_len, tokenizer.eos_token_id
    train = streams.for_training(ids["train"], rows, text_args.tgt_len)
    if checkpoint is not None:
        vocabulary.check_fits(tokenizer, vocabulary.load(checkpoint), checkpoint)
        _check_same_model(model.config, checkpoint)
        check_unfinished(checkpoint, steps(training_args, train))
        Memory(train).load(Path(checkpoint))
    return Experiment(
        tokenizer,
        model,
        train,
        streams.for_evaluation(ids["validation"], eval_rows, eval_segment, end),
        streams.for_evaluation(ids["test"], eval_rows, eval_segment, end),
    )


def steps(training_args: TrainingArguments, train: Streams) -> int:
    """Of the whole training; an epoch has as many as a row has segments."""
    return (
        training_args.max_steps
        if training_args.max_steps > 0
        else math.ceil(training_args.num_train_epochs * train.segments)
    )


def eval_config(text_args: TextArguments) -> dict[str, Any]:
    """What the model's configuration is changed to in evaluations; None stays as it is."""
    return {
        "mem_len": text_args.eval_mem_len,
        "clamp_len": text_args.eval_clamp_len,
        "same_length": text_args.eval_same_length or None,
    }


def results(arguments: Arguments, experiment: Experiment, finished: Finished) -> Results:
    """What `report.write_report` takes."""
    model_args, text_args, _ = arguments
    source = text.describe(text_args.dataset_name, text_args.dataset_config_name)
    origin = {"name": "Transformer-XL", "source": "scratch"}
    if (name := model_args.model_name_or_path) is not None:
        origin = {"name": public_name(name), "source": "local" if Path(name).exists() else "hub"}
    model, seconds = experiment.model, finished.timer.median
    return finished.results(
        PREFIXES,
        ("perplexity",),
        _describe_text(text_args, experiment),
        task=source["title"],
        license=text_args.license,
        pipeline="text-generation",
        dataset=source,
        model=origin | {"class": type(model).__name__, "parameters": model.num_parameters()},
        words_per_second=experiment.train.rows * text_args.tgt_len / seconds if seconds else None,
        usage=USAGE,
    )


def _describe_text(text_args: TextArguments, experiment: Experiment) -> dict[str, Any]:
    config = experiment.model.config.to_dict()
    evaluated = {key: config[key] if value is None else value for key, value in eval_config(text_args).items()}
    return {
        "tgt_len": text_args.tgt_len,
        "mem_len": config["mem_len"],
        "eval_tgt_len": text_args.eval_tgt_len or text_args.tgt_len,
        **{f"eval_{key}": value for key, value in evaluated.items()},
        "vocabulary": len(experiment.tokenizer),
        "train_words": experiment.train.ids.numel(),
    }


def _vocabulary(model_args: ModelArguments, train: Sequence[str]) -> PreTrainedTokenizerBase:
    if name := model_args.tokenizer_name or model_args.model_name_or_path:
        return vocabulary.load(name)
    return vocabulary.build(train, model_args.vocab_size, model_args.min_count)


def _model(
    model_args: ModelArguments, text_args: TextArguments, tokenizer: PreTrainedTokenizerBase
) -> TransfoXLLMHeadModel:
    end = tokenizer.eos_token_id
    if (name := model_args.model_name_or_path) is not None:
        try:
            model = TransfoXLLMHeadModel.from_pretrained(name, mem_len=text_args.mem_len)
        except (OSError, RuntimeError, ValueError) as error:
            raise RecipeError(f"cannot load the model {name!r}: {str(error).strip().splitlines()[0]}") from error
        saved = vocabulary.load(name) if model_args.tokenizer_name else model.config.vocab_size
        vocabulary.check_fits(tokenizer, saved, name)
        return model
    try:
        config = TransfoXLConfig(
            vocab_size=len(tokenizer),
            cutoffs=[] if model_args.cutoffs == [-1] else model_args.cutoffs,
            mem_len=text_args.mem_len,
            **{name: getattr(model_args, name) for name in _SIZES},
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    except ValueError as error:
        raise RecipeError(str(error)) from error
    return TransfoXLLMHeadModel(config)


def _check_same_model(config: TransfoXLConfig, checkpoint: str) -> None:
    before, now = TransfoXLConfig.from_pretrained(checkpoint).to_dict(), config.to_dict()
    for name in ("cutoffs", "mem_len", *_SIZES):
        if before[name] != now[name]:
            raise RecipeError(f"--{name} is {now[name]}, but {checkpoint} was trained with {before[name]}")


_SIZES = ("d_model", "n_layer", "n_head", "d_head", "d_inner", "dropout", "dropatt", "init_std")
