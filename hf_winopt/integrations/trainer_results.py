"""What a training with Trainer, in whatever script, has to say: the content of its `results.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_winopt.compare.recorder import state_bytes
from hf_winopt.integrations.hub import EVALUATION
from hf_winopt.integrations.results import (
    Results,
    describe_optimizer,
    describe_training,
    environment,
    is_score,
    split_log,
)
from hf_winopt.integrations.timing import StepTimer
from hf_winopt.integrations.trainer_facts import (
    adapter_tags,
    card_facts,
    examples,
    is_adapter,
    model_facts,
    usage,
)
from hf_winopt.public import own_command

_RUNTIME, _RATE = "runtime", "samples_per_second"  # what every evaluation logs, after the prefix of its metrics


def results_of(
    trainer: Any,
    timer: StepTimer,
    wall_seconds: float,
    said: Mapping[str, Any],
    *,
    finished: bool,
    best: Mapping[str, Any] | None = None,
    ask_hub: bool = False,
) -> Results:
    """The results of a Trainer that trains, or has trained.

    Args:
        trainer: a `transformers.Trainer`; only its main process need ask.
        timer: of its steps.
        wall_seconds: of the training so far.
        said: what a script gives `trainer.create_model_card` or `trainer.push_to_hub`, by the same names; what it does
            not say is found out as Trainer does for its own card.
        finished: whether the training has ended.
        best: `step` that Trainer has gone back to in the end, and by which `metric`; None if the weights are the last.
        ask_hub: whether the Hub may be asked for what is not known here.
    """
    args, state, model = trainer.args, trainer.state, trainer.accelerator.unwrap_model(trainer.model)
    facts = card_facts(trainer, said, ask_hub=ask_hub)
    prefixes = _prefixes(state.log_history, trainer.eval_dataset)
    last = _last_evaluations(state.log_history, prefixes, best)
    metrics = {split: scores for split, (_, scores) in last.items() if scores}
    names = list(dict.fromkeys(name for scores in metrics.values() for name in scores if name != "loss"))
    return {
        **{key: facts[key] for key in ("name", "task", "license", "pipeline", "dataset")},
        "library": "peft" if is_adapter(model) else "transformers",
        "tags": [*facts["tags"], *adapter_tags(model)],
        "usage": usage(model, trainer),
        "model": model_facts(model, facts["base"]),
        "optimizer": describe_optimizer(trainer.optimizer, args),
        "training": _training(trainer, model),
        "headline": next(iter(names), "loss") if metrics else None,
        "metrics": metrics,
        "best": None if best is None else dict(best),
        "scored_at_step": min((step for step, _ in last.values()), default=None),
        "history": split_log(state.log_history, prefixes, names),
        "wall_seconds": wall_seconds,
        "seconds_per_step": timer.median,
        "state_bytes": state_bytes(trainer.optimizer),
        "comparison": None,
        "resumed_at_step": state.global_step - len(timer.seconds),
        "step": state.global_step,
        "finished": finished,
        **environment("peft" if is_adapter(model) else None),
        "command": own_command(args.world_size),
    }


def _training(trainer: Any, model: Any) -> dict[str, Any]:
    """As the arguments say, but for what was given to Trainer ready made."""
    training = describe_training(trainer.args, trainer.state.max_steps) | examples(trainer.train_dataset)
    group, schedule = trainer.optimizer.param_groups[0], getattr(trainer, "lr_scheduler", None)
    training["learning_rate"] = float(group.get("initial_lr", group["lr"]))
    if schedule is not None and not getattr(trainer, "_created_lr_scheduler", True):
        training["lr_scheduler_type"] = type(getattr(schedule, "scheduler", schedule)).__name__
        del training["warmup_steps"]
    dtype = next((p.dtype for p in model.parameters() if p.requires_grad), None)
    if training["precision"] == "fp32" and dtype is not None:
        training["precision"] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(
            str(dtype).removeprefix("torch."), str(dtype)
        )
    return training


# ------------------------------------------------------------------------------------------------ evaluations


def _prefixes(log: Iterable[Mapping[str, Any]], eval_dataset: Any) -> dict[str, str]:
    """What stands before the metrics of each data split in Trainer's log; the splits in order of appearance."""
    found = dict.fromkeys(key.removesuffix(_RUNTIME) for entry in log for key in entry if key.endswith(f"_{_RUNTIME}"))
    found.pop("train_", None)
    return {_split(prefix, eval_dataset): prefix for prefix in found}


def _split(prefix: str, eval_dataset: Any) -> str:
    if prefix == "eval_":
        # That of a part, "train[:10%]", says more than a word can that is a name of a split.
        return str(getattr(eval_dataset, "split", None) or EVALUATION)
    return prefix.removeprefix("eval_").rstrip("_")


def _last_evaluations(
    log: Sequence[Mapping[str, Any]], prefixes: Mapping[str, str], best: Mapping[str, Any] | None
) -> dict[str, tuple[int, dict[str, float]]]:
    """Step and scores of the evaluation of the model as it is now, for each split that was evaluated.

    Of a model that Trainer has put back to its best, that of the best, unless there is one after the training.
    """
    last = {}
    trained = max((index for index, entry in enumerate(log) if "train_runtime" in entry), default=len(log))
    for split, prefix in prefixes.items():
        entries = [(index, entry) for index, entry in enumerate(log) if f"{prefix}{_RUNTIME}" in entry]
        if best is not None and entries[-1][0] < trained:
            entries = [pair for pair in entries if pair[1]["step"] == best["step"]] or entries
        entry = entries[-1][1]
        scores = {key.removeprefix(prefix): value for key, value in entry.items() if is_score(key, prefix, value)}
        last[split] = (entry["step"], {name: scores[name] for name in sorted(scores, key=lambda name: name == "loss")})
    return last
