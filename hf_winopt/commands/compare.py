"""`hf-winopt compare`: which optimizer is better for a script, its data and its budget."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from hf_winopt.compare import archive, contenders, pictures, report, settings, summary
from hf_winopt.compare.carry_out import carry_out, seconds_left, settled
from hf_winopt.compare.figures import duration
from hf_winopt.compare.outcome import FINISHED
from hf_winopt.compare.pools import LocalPool, Pool, RayPool, visible_gpus
from hf_winopt.compare.progress import Display
from hf_winopt.compare.runs import any_ended, find, forget_failed, make_job
from hf_winopt.compare.settings import Settings
from hf_winopt.files import write_atomically, write_json

EPILOG = """
What is done, and how it is judged:
  Every optimizer is trained with the same script, model, data and steps. A grid of learning rates, equally many for
  each, is tried on a seed of its own (--tune-seeds); while the best rate of any is at an end of its grid, all grids go
  on. At its best rate each is then trained with fresh seeds (--seeds), the same for all, and the differences to the
  baseline, paired by seed, get a 95 % interval. An interval that contains zero is a tie.

  The script's own --learning_rate is taken for AdamW's; `--lrs auto` is a grid around it times what is advised for
  each optimizer. Let the script evaluate now and then (--eval_strategy steps --eval_steps N): its curves say how many
  steps an optimizer saves. Killed and started again, the comparison goes on where it was.

examples:
  hf-winopt compare run_glue.py --task_name cola --learning_rate 5e-5 --weight_decay 0.01 --eval_strategy steps \\
      --eval_steps 100 --optims adamw_torch_fused,adamw_win,adan --metric eval_matthews_correlation
  hf-winopt compare train.py --optims 'adamw_torch,adamw_win[reckless_steps=2:4],sgd[lr=0.1]' --jobs 2 --dry-run
  hf-winopt compare -m trl.scripts.sft --model_name_or_path ... --optims adamw_torch,adamw_win
  hf-winopt compare --report compare
"""

TRAINER_LR = 5e-5
"""What Trainer's `learning_rate` is unless it is given; a script may have another default."""

# The last words of metrics of which less is better. For others Trainer's own rule holds: only of a loss less is better.
_ERRORS = frozenset(
    ("loss", "nll", "perplexity", "ppl", "wer", "cer", "ter", "error", "mse", "rmse", "mae", "mape", "byte", "char")
)


def main(argv: Sequence[str]) -> int:
    """Compare and write the report.

    Returns:
        The exit status: 0; 1 where no run gave a result, or the runs show that none can; 130 when interrupted.
    """
    parser = _parser()
    own, words = split(parser, argv)
    args = parser.parse_args(own)
    with ExitStack() as held:
        try:
            work = _ready(args, words, argv, held)
        except (ImportError, OSError, ValueError) as error:  # of what was asked for; later ones are ours
            parser.error(str(error))
        return work()


def split(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own options, and the words for the script; after `--` all words are the script's."""
    own: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        action = parser._option_string_actions.get(word.partition("=")[0])
        if word == "--":
            rest.extend(words)
        elif action is None:
            rest.append(word)
        else:
            own.append(word)
            if action.nargs != 0 and "=" not in word:
                own.extend(value for value in [next(words, None)] if value is not None)
    return own, rest


def make_report(out: Path, asked: Settings) -> str:
    """Write `runs.jsonl`, `summary.json`, `report.md` and the pictures from what has ended so far; the report."""
    plan, outcomes = settled(asked, out)
    # As they are, whatever the metric makes of them; and those of wider plans too.
    archive.save(out, plan, archive.load(out) | {run: ended for run in plan.runs if (ended := find(out, run))})
    result = summary.summarize(asked, plan, outcomes)
    result["pictures"] = pictures.draw(out, asked, result, outcomes)
    result["machines"] = archive.load_machines(out)
    write_json(out / summary.SUMMARY_FILE, result)
    text = report.write(result)
    write_atomically(out / "report.md", text)
    return text


def dry_run(out: Path, asked: Settings, jobs: int | None) -> str:
    """The runs and, once one has ended, the time that the others will take."""
    plan, outcomes = settled(asked, out)
    lines = [f"{run.phase:5}  {run}{f'  {outcomes[run].state}' if run in outcomes else ''}" for run in plan.runs]
    if plan.unnamed:
        lines.append(f"final  seeds 1 to {asked.seeds} of each of {len(asked.contenders)} at its best learning rate")
    job = make_job(asked, plan.runs[0], out)
    slots = jobs or len(visible_gpus()) or 1
    left = seconds_left(plan, outcomes, slots)
    more = asked.extensions * asked.tune_seeds * len(asked.contenders) if plan.unnamed else 0
    return "\n".join(
        [
            *lines,
            "",
            f"{len(plan.runs) + plan.unnamed} runs, {len(outcomes)} done, {slots} at a time"
            + (f"; grids may go on, by up to {more} runs" if more else ""),
            asked.question,
            f"first: {shlex.join(['hf-winopt', 'run', *job.words])}",
            f"time: {'known once the first run has ended' if left is None else f'about {duration(left)} left'}",
        ]
    )


def _ready(args: argparse.Namespace, words: list[str], argv: Sequence[str], held: ExitStack) -> Callable[[], int]:
    """What is left to do once nothing can be wrong with what was asked for."""
    if args.dry_run and not args.report:
        text = dry_run(args.out, _checked(args, words, argv), args.jobs)
        return lambda: _show(text)
    for module in ("scipy", "matplotlib"):  # found out before the hours of training, not after
        if find_spec(module) is None:
            raise ImportError(f"compare needs {module}: pip install 'hf-winopt[compare]'")
    if args.report:
        known = settings.load(args.report)
        settled(known, args.report)
        return lambda: _show(make_report(args.report, known))
    asked = _checked(args, words, argv)
    pool = _prepare(args, asked, held)
    return lambda: _carry_out(args.out, asked, pool)


def _checked(args: argparse.Namespace, words: list[str], argv: Sequence[str]) -> Settings:
    asked = _settings(args, words, argv)
    if any_ended(args.out):
        settings.check(args.out, asked)
    return asked


def _show(text: str) -> int:
    print(text)
    return 0


def _prepare(args: argparse.Namespace, asked: Settings, held: ExitStack) -> Pool:
    """Take possession of the folder, and say where the runs will be executed."""
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(args.out / ".lock", timeout=0))
    except Timeout:
        raise ValueError(f"--out {args.out}: another comparison is running there") from None
    pool: Pool = RayPool(args.ray, args.jobs, asked.threads) if args.ray else LocalPool(args.jobs)
    held.callback(pool.close)
    if args.retry_failed or not any_ended(args.out):  # what failed under other settings is no run of these
        forget_failed(args.out)
    settings.save(args.out, asked)
    archive.save_machine(args.out, pool.slots)
    return pool


def _carry_out(out: Path, asked: Settings, pool: Pool) -> int:
    display = Display(out, asked, pool.slots)
    try:
        _, outcomes = carry_out(asked, out, pool, display)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except ValueError as error:  # nothing that the script does answers the question
        print(f"\nhf-winopt compare: {error}", file=sys.stderr)
        return 1
    finally:
        display.close()
    print(make_report(out, asked))
    return 0 if any(outcome.state == FINISHED for outcome in outcomes.values()) else 1


def _settings(args: argparse.Namespace, words: list[str], argv: Sequence[str]) -> Settings:
    if not words:
        raise ValueError("which script?")
    if not args.optims:
        raise ValueError("--optims: which optimizers? For example --optims adamw_torch_fused,adamw_win")
    length = 2 if words[0] == "-m" else 1
    script, rest = tuple(words[:length]), words[length:]
    if script[0] == "-m" and len(script) == 1:
        raise ValueError("-m: which module?")
    if script[0] != "-m" and not Path(script[0]).is_file():
        raise ValueError(f"no such script: {script[0]}")
    for name, least in (("seeds", 1), ("tune_seeds", 1), ("jobs", 1), ("threads", 1), ("extend", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value}: at least {least}")
    adamw_lr, arguments = settings.script_lr(rest)
    runners = contenders.parse(args.optims, args.lrs, TRAINER_LR if adamw_lr is None else adamw_lr)
    if args.baseline not in (None, *contenders.labels(runners)):
        raise ValueError(f"--baseline {args.baseline} is not among --optims {args.optims}")
    metric = _as_logged(args.metric)
    greater = args.greater_is_better
    return Settings(
        script=script,
        arguments=arguments,
        contenders=runners,
        tune_seeds=args.tune_seeds,
        seeds=args.seeds,
        metric=metric,
        greater_is_better=metric.split("_")[-1] not in _ERRORS if greater is None else greater,
        baseline=args.baseline,
        extensions=args.extend,
        threads=args.threads or _threads_before(args.out) or _threads(args.jobs or len(visible_gpus()) or 1),
        keep_models=args.keep_models,
        fingerprint=settings.fingerprint(script),
        command=tuple(argv),
        test_metric=_as_logged(args.test_metric) if args.test_metric else None,
    )


def _as_logged(metric: str) -> str:
    return metric if metric.startswith("eval_") else f"eval_{metric}"


def _threads_before(out: Path) -> int | None:
    return settings.load(out).threads if any_ended(out) else None


def _threads(jobs: int) -> int:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() and int(said) else max(1, (os.cpu_count() or 1) // jobs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-winopt compare",
        usage="hf-winopt compare (SCRIPT | -m MODULE) [ITS ARGUMENTS] --optims NAME,NAME,... [OPTION ...]",
        description="Which optimizer is better for a Trainer script, unmodified: tuned alike, on fresh seeds, judged.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--optims", metavar="NAMES", help="optimizers, ours and transformers' own, options in brackets after a name")
    add("--lrs", default="auto", metavar="auto|LR,LR,...", help="learning rates to begin with (default: auto)")
    add("--tune-seeds", type=int, default=1, metavar="N", help="seeds that choose the learning rate (default: 1)")
    add("--seeds", type=int, default=3, metavar="N", help="fresh seeds for the result (default: 3)")
    add("--metric", default="eval_loss", help="of Trainer's evaluations (default: eval_loss)")
    add("--test-metric", metavar="NAME", help="judge the result by this, of the last evaluation (default: --metric)")
    add(
        "--greater-is-better",
        action=argparse.BooleanOptionalAction,
        help="in this metric (default: yes, but for losses and errors)",
    )
    add("--baseline", metavar="NAME", help="of --optims (default: the best of transformers' own, else the first)")
    add("--extend", type=int, default=3, metavar="N", help="times that the grids may go on (default: 3)")
    add("--jobs", type=int, metavar="N", help="runs at a time (default: one a GPU, or one)")
    add("--threads", type=int, metavar="N", help="CPU threads of a run (default: OMP_NUM_THREADS, or cores / jobs)")
    add("--ray", metavar="ADDRESS", help="run on a Ray cluster: auto, ray://HOST:PORT, or local")
    add("--out", type=Path, default=Path("compare"), metavar="DIR", help="output folder (default: compare)")
    add("--keep-models", action="store_true", help="leave the runs' weights and checkpoints (default: delete them)")
    add("--retry-failed", action="store_true", help="try runs again that failed twice")
    add("--dry-run", action="store_true", help="print the runs and the time they will take, run nothing")
    add("--report", type=Path, metavar="DIR", help="make the report of DIR again, run nothing")
    return parser
