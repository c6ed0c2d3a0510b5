"""What was asked for, and what `plan.json` in the output folder keeps of it: nothing private, so it can be shown."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_winopt.compare.contenders import Contender
from hf_winopt.compare.outcome import Outcome
from hf_winopt.files import write_json
from hf_winopt.public import is_secret, public_command

PLAN_FILE = "plan.json"

# Arguments that the comparison gives to every run itself.
_OURS = {
    "load_best_model_at_end": "all are judged at their last step",
    "optim": "--optims names the optimizers",
    "optim_args": "options follow a name in --optims: name[option=value]",
    "seed": "--seeds says how many",
    "data_seed": "the seed of a run fixes the order of the data too",
    "output_dir": "every run has a folder of its own below --out",
    "overwrite_output_dir": "every run has a folder of its own below --out",
    "push_to_hub": "a comparison pushes nothing",
    "resume_from_checkpoint": "runs start from step 0, and the comparison goes on where it was",
}


@dataclass(frozen=True)
class Settings:
    """A comparison.

    Args:
        script: what `hf-winopt run` runs: `("train.py",)`, or `("-m", "package.module")`.
        arguments: of the script, the same for every run.
        contenders: the optimizers.
        tune_seeds: how many seeds choose the learning rate.
        seeds: how many fresh seeds give the result.
        metric: of Trainer's evaluations: by it rates are chosen, and its curves are drawn.
        test_metric: what the result is judged by, of the last evaluation, where that is another.
        greater_is_better: what is good in this metric.
        baseline: label that the others are held against; None leaves it to the results (`summary.choose_baseline`).
        extensions: how many times grids may go on.
        threads: of a run on the CPU; part of the settings, since sums come out otherwise with another number.
        keep_models: leave weights and checkpoints where they are.
        fingerprint: of the script's text; None for a module.
        command: the words after `hf-winopt compare`, as they were typed.
    """

    script: tuple[str, ...]
    arguments: tuple[str, ...]
    contenders: tuple[Contender, ...]
    tune_seeds: int = 1
    seeds: int = 3
    metric: str = "eval_loss"
    greater_is_better: bool = False
    baseline: str | None = None
    extensions: int = 3
    threads: int = 1
    keep_models: bool = False
    fingerprint: str | None = None
    command: tuple[str, ...] = ()
    test_metric: str | None = None

    @property
    def judged_by(self) -> str:
        """The metric of the result."""
        return self.test_metric or self.metric

    def count(self, outcome: Outcome, phase: str) -> Outcome:
        """As it counts in this comparison, see `Outcome.under`."""
        counted = outcome.under(self.metric)
        return counted.under(self.judged_by) if phase == "final" else counted

    @property
    def question(self) -> str:
        """By what the optimizers are judged, and with which rates they begin, in a line."""
        goal = "higher" if self.greater_is_better else "lower"
        begin = "; ".join(f"{c.label} from {', '.join(f'{lr:g}' for lr in c.rates)}" for c in self.contenders)
        judged = f", the result by {self.test_metric}" if self.test_metric else ""
        return f"by {self.metric}{judged}, {goal} is better; learning rates: {begin}"

    def contender(self, label: str) -> Contender:
        """The contender of that label."""
        return next(contender for contender in self.contenders if contender.label == label)

    def score(self, value: float) -> float:
        """`value` of the metric as something of which less is better."""
        return -value if self.greater_is_better else value


def fingerprint(script: Sequence[str]) -> str | None:
    """Of a script's text; None for a module."""
    return None if script[0] == "-m" else hashlib.sha256(Path(script[0]).read_bytes()).hexdigest()[:16]


def script_lr(arguments: Sequence[str]) -> tuple[float | None, tuple[str, ...]]:
    """The last `--learning_rate` among the script's arguments, and the others.

    Raises:
        ValueError: it is no number, or an argument is among them that the comparison gives itself.
    """
    rate, others, words = None, [], iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_") if option.startswith("--") else ""
        if name in _OURS:
            raise ValueError(f"{option} cannot be among the script's arguments: {_OURS[name]}")
        if is_secret(option):
            raise ValueError(f"{option} would be written to disk: give it to the script by the environment (HF_TOKEN)")
        if name != "learning_rate":
            others.append(word)
            continue
        value = value if equals else next(words, "")
        try:
            rate = float(value)
        except ValueError:
            raise ValueError(f"--learning_rate {value!r} is no number") from None
    return rate, tuple(others)


def check(folder: Path, settings: Settings) -> None:
    """Refuse to mix the runs in a folder with those of other settings.

    More optimizers, rates or seeds, or another metric, are no other settings: the runs that are there still count.

    Raises:
        ValueError: these settings would not make those runs.
    """
    if not (folder / PLAN_FILE).exists():
        return
    before, now = _read(folder), _shown(settings)
    for name, what in (
        ("script", "another script"),
        ("arguments", "other arguments of the script"),
        ("identity", "another text of the script, or other paths among its arguments"),
        ("threads", "another number of threads"),
    ):
        if before.get(name) != now[name]:
            values = "" if name == "identity" else f" ({before.get(name)}; now {now[name]})"
            raise ValueError(f"{folder} holds runs with {what}{values}: take another --out, or delete that folder")


def save(folder: Path, settings: Settings) -> None:
    """Write what `load` reads: no secret, and of paths elsewhere only the last part."""
    write_json(folder / PLAN_FILE, _shown(settings))


def load(folder: Path) -> Settings:
    """What `save` wrote: enough for the report. Script and arguments are as they may be shown.

    Raises:
        ValueError: there is no comparison in that folder.
    """
    known = _read(folder)
    try:
        contenders = tuple(map(_contender, known["contenders"]))
        known |= {key: tuple(shlex.split(known[key])) for key in ("script", "arguments", "command")}
        del known["identity"]
        return Settings(**{**known, "contenders": contenders})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no comparison: its {PLAN_FILE} is of something else ({error})") from None


def _contender(entry: Mapping[str, Any]) -> Contender:
    lists = {key: tuple(entry.get(key, ())) for key in ("rates", "arguments")}
    return Contender(**{**entry, **lists})


def _read(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / PLAN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no comparison: its {PLAN_FILE} cannot be read ({error})") from None


def _shown(settings: Settings) -> dict[str, Any]:
    exact = (settings.script, settings.arguments, settings.fingerprint)
    shown = dataclasses.asdict(settings)
    shown |= {key: public_command((), getattr(settings, key)) for key in ("script", "arguments", "command")}
    del shown["fingerprint"]
    return {**shown, "identity": hashlib.sha256(json.dumps(exact).encode()).hexdigest()[:16]}
