"""The whole command on a script that only pretends to train: plan, going on, failure, divergence, report."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from hf_winopt import cli
from hf_winopt.compare import pools, report
from tests.compare.conftest import but_for_times, compare, summary

OURS = ["--optims", "adamw_torch,adan", "--jobs", "2", "--out", "out"]
ALL = [*OURS, "--learning_rate", "1e-3"]
ONE_RATE = [*OURS, "--lrs", "1e-3"]


def statuses(folder):
    return {path.parent.relative_to(folder / "runs"): path for path in folder.glob("runs/*/*/*/status.json")}


def test_from_plan_to_report(toy, capsys):
    assert compare("toy.py", *ALL, "--dry-run") == 0
    plan = capsys.readouterr().out
    assert plan.count("tune ") == 6 and "final  seeds 1 to 3 of each of 2" in plan
    assert "12 runs, 0 done, 2 at a time" in plan and "time: known once the first run has ended" in plan
    assert "hf-winopt run toy.py --optim adamw_torch --learning_rate 0.00033 --seed 1001" in plan
    assert not (toy / "out").exists()

    assert compare("toy.py", *ALL) == 0
    printed = capsys.readouterr()
    result = summary(toy / "out")
    assert printed.out.strip() == (toy / "out" / "report.md").read_text().strip()
    assert "14 of 14: " in printed.err and ": adan lr 0.015 seed 3: eval_loss " in printed.err
    assert "left" in printed.err and "by eval_loss, lower is better; learning rates: adamw_torch from" in printed.err

    one, other = result["optimizers"]
    assert result["baseline"] == "adamw_torch" and one["against_baseline"] is None
    assert one["lr"] == 1e-3 and other["lr"] == 1.5e-2  # the nearest to 1e-2, where the toy's adan is at its best
    assert [entry["lr"] for entry in other["grid"]] == [1.7e-3, 5e-3, 1.5e-2, 4.5e-2]
    assert len(one["grid"]) == 4 and not one["best_at_end_of_grid"]  # gone on beside adan's, which was at its end
    assert one["seconds_per_step"] == 0.05 and other["seconds_per_step"] == 0.07  # by Trainer's own log
    assert other["against_baseline"]["quality"]["word"] == "worse"
    assert result["runs"] == {"finished": 14, "diverged": 0, "failed": 0, "missing": 0, "tried_again": 0}
    assert result["machines"][0]["torch"] and result["pictures"] == [
        "curves.png",
        "differences.png",
        "learning_rates.png",
    ]
    for name in result["pictures"]:
        assert (toy / "out" / name).read_bytes().startswith(b"\x89PNG")

    folder = toy / "out" / "runs" / "adan" / "lr_0.015" / "seed_1"
    assert "run toy.py --optim adan --learning_rate 0.015 --seed 1 " in (folder / "command.txt").read_text()
    assert "threads" in (folder / "log.txt").read_text() and json.loads((folder / "status.json").read_text())
    assert not (folder / "output" / "model.safetensors").exists()  # deleted: fourteen of them would fill a disk

    again(toy, capsys)


def again(toy, capsys):
    """A finished comparison: nothing is repeated, the report is made again, more seeds are added."""
    before = but_for_times(toy / "out")
    made = {path: path.stat().st_mtime_ns for path in statuses(toy / "out").values()}
    assert compare("toy.py", *ALL) == 0
    assert {path: path.stat().st_mtime_ns for path in statuses(toy / "out").values()} == made

    (toy / "out" / "report.md").unlink()
    assert compare("--report", "out") == 0
    assert but_for_times(toy / "out") == before
    (toy / "out" / "runs").rename(toy / "elsewhere")  # the raw results alone will do
    assert compare("--report", "out") == 0
    assert but_for_times(toy / "out") == before
    (toy / "elsewhere").rename(toy / "out" / "runs")

    capsys.readouterr()
    assert compare("toy.py", *ALL, "--seeds", "4", "--dry-run") == 0
    assert "16 runs, 14 done" in (shown := capsys.readouterr().out) and "time: about " in shown
    assert compare("toy.py", *ALL, "--seeds", "4", "--metric", "accuracy") == 0
    result = summary(toy / "out")
    assert result["greater_is_better"] and result["metric"] == "eval_accuracy"
    assert len(result["optimizers"][0]["final"]["seeds"]) == 4
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_the_report_reads_as_a_verdict(toy):
    assert compare("toy.py", *ONE_RATE, "--seeds", "5") == 0
    report = (toy / "out" / "report.md").read_text()
    assert "- **adamw_torch** is the baseline:" in report
    assert "- **adan**: worse at equal steps (by" in report and "and more time to the baseline's result" in report
    assert "| **worse** |" in report and "not reached" in report
    command = report.partition("```sh\n")[2].partition("\n```")[0]
    assert command.replace("\\\n   ", "") == (
        "hf-winopt compare toy.py --optims adamw_torch,adan --jobs 2 --out out --lrs 1e-3 --seeds 5"
    )
    assert "## Learning rates" not in report  # one rate for all: nothing was tuned
    assert str(toy) not in report + (toy / "out" / "summary.json").read_text()


def test_a_test_metric_judges_and_the_other_chooses(toy, capsys):
    """The toy's test loss falls where its eval loss rises: so the verdict turns, and rates and targets stay."""
    assert compare("toy.py", *ALL) == 0
    before = summary(toy / "out")
    assert compare("toy.py", *ALL, "--test-metric", "test_loss") == 0
    after = summary(toy / "out")
    assert [row["lr"] for row in after["optimizers"]] == [row["lr"] for row in before["optimizers"]]
    assert after["target"] == before["target"]
    verdicts = [result["optimizers"][1]["against_baseline"]["quality"]["word"] for result in (before, after)]
    assert verdicts == ["worse", "better"]
    for row, old in zip(after["optimizers"], before["optimizers"], strict=True):
        assert row["steps_to_target"] == old["steps_to_target"] and row["grid"] == old["grid"]
        assert row["final"]["mean"] == pytest.approx(2 - old["final"]["mean"] + 0.02)
    report = (toy / "out" / "report.md").read_text()
    assert report.startswith("# test loss: which optimizer?") and "| test loss, mean ± sd |" in report
    assert "Learning rates were chosen by loss." in report and "in the mean: loss " in report
    assert compare("toy.py", *ALL, "--test-metric", "test_acc") == 1
    assert "the script logs no eval_test_acc at its end: it has eval_accuracy, eval_loss" in capsys.readouterr().err


def test_a_long_first_word_of_the_command_begins_its_line(toy):
    long = "directory/" * 12 + "toy.py"
    text = report.write({**summary_of_two_seeds(toy), "command": f"hf-winopt compare {long} --lrs 1e-3"})
    assert f"```sh\nhf-winopt compare {long} \\\n    --lrs 1e-3\n```" in text


def summary_of_two_seeds(toy):
    assert compare("toy.py", *ONE_RATE, "--seeds", "2") == 0
    return summary(toy / "out")


def test_two_seeds_say_nothing(toy):
    assert compare("toy.py", *ONE_RATE, "--seeds", "2") == 0
    assert "- **adan**: not enough runs to say at equal steps" in (toy / "out" / "report.md").read_text()


def test_what_goes_wrong_is_tried_once_more_and_reported(toy, capsys):
    curses = "fail:adan 0.001 2;once:adan 0.001 3;nan:adan 0.001 4"
    line = ("toy.py", "--curse", curses, *ONE_RATE, "--seeds", "5")
    assert compare(*line) == 0
    result = summary(toy / "out")
    assert result["runs"] == {"finished": 8, "diverged": 1, "failed": 1, "missing": 0, "tried_again": 2}
    row = result["optimizers"][1]
    seeds = {seed: value if isinstance(value, str) else "value" for seed, value in row["final"]["seeds"].items()}
    assert seeds == {"1": "value", "2": "failed", "3": "value", "4": "diverged", "5": "value"}
    quality = row["against_baseline"]["quality"]
    assert quality["word"] == "worse" and quality["interval"]["n"] == 3
    assert quality["reason"] == "1 of its 4 runs diverged, 0 of the baseline's 5"

    reasons = [(mishap["reason"], len(mishap["failures"])) for mishap in result["mishaps"]]
    failed = "exit status 1: RuntimeError: cursed adan 0.001 2"
    assert reasons == [(failed, 1), ("", 1), ("eval_loss at the end is nan", 0)]
    report = (toy / "out" / "report.md").read_text()
    assert "adan, lr 0.001, seed 2 (final): failed: exit status 1: RuntimeError: cursed adan 0.001 2" in report
    assert "adan, lr 0.001, seed 3 (final): finished at the second attempt" in report
    assert "adan, lr 0.001, seed 4 (final): diverged: eval_loss at the end is nan" in report

    path = toy / "out" / "runs" / "adan" / "lr_0.001" / "seed_2" / "log.txt"
    log = path.read_text()
    assert "=== attempt 1" in log and "=== attempt 2" in log and "=== attempt 3" not in log
    assert compare(*line) == 0 and path.read_text() == log
    assert compare(*line, "--retry-failed") == 0
    assert path.read_text().startswith(log) and "=== attempt 1" in path.read_text()[len(log) :]


def test_a_metric_that_is_not_logged_ends_it_at_once(toy, capsys):
    assert compare("toy.py", *ONE_RATE, "--jobs", "1", "--metric", "eval_bleu") == 1
    assert "logs no eval_bleu at its end: it has eval_accuracy, eval_loss" in capsys.readouterr().err
    assert sum(json.loads(path.read_text())["state"] == "finished" for path in statuses(toy / "out").values()) <= 2
    capsys.readouterr()
    for how in (["--report", "out"], ["toy.py", *ONE_RATE, "--metric", "eval_bleu", "--dry-run"]):
        assert compare(*how) == 2
        assert "logs no eval_bleu" in capsys.readouterr().err
    assert compare("toy.py", *ONE_RATE, "--jobs", "1") == 0  # what ran is not run again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--optims adan", "which script?"),
        ("toy.py", "--optims: which optimizers?"),
        ("gone.py --optims adan", "no such script: gone.py"),
        ("-m --optims adan", "-m: which module?"),
        ("toy.py --optims adan --seeds 0", "--seeds 0: at least 1"),
        ("toy.py --optims adan,lamb --baseline sgd", "--baseline sgd is not among"),
        ("toy.py --optims adan --optim sgd", "--optim cannot be among the script's arguments"),
        ("toy.py --optims adan --out toy.py", "toy.py"),
        ("--report toy.py", "toy.py holds no comparison"),
    ],
)
def test_bad_input(toy, capsys, words, message):
    assert compare(*words.split()) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in toy.iterdir()) == ["toy.py"]


def test_words_after_two_dashes_are_the_scripts(toy, capsys):
    assert compare("toy.py", *ONE_RATE, "--dry-run", "--", "--seeds", "9", "--report") == 0
    assert "run toy.py --seeds 9 --report --optim adamw_torch" in capsys.readouterr().out


def test_what_no_optimizer_can_do_ends_it_at_once(toy, capsys):
    (toy / "broken.py").write_text("raise SystemExit('no such data')")
    assert compare("broken.py", *ALL) == 1
    assert "the first run of every optimizer failed: exit status 1: no such data" in capsys.readouterr().err
    assert compare("toy.py", *ONE_RATE, "--seeds", "1") == 0  # put right: the folder can be used


def test_another_comparison_in_the_folder_is_refused(toy, capsys):
    assert compare("toy.py", *ONE_RATE, "--seeds", "1") == 0
    capsys.readouterr()
    for words, reason in (
        (("toy.py", *ONE_RATE, "--curse", "x"), "other arguments of the script"),
        (("toy.py", *ONE_RATE, "--threads", "7"), "another number of threads"),
        (("toy.py", *ONE_RATE, "--threads", "7", "--dry-run"), "another number of threads"),
    ):
        assert compare(*words) == 2
        assert reason in capsys.readouterr().err
    text = (toy / "toy.py").read_text()
    (toy / "toy.py").write_text(text + "# changed\n")
    assert compare("toy.py", *ONE_RATE) == 2
    assert "another text of the script" in capsys.readouterr().err

    (toy / "toy.py").write_text(text)
    (toy / "out" / "runs").rename(toy / "elsewhere")  # as where only the report was kept
    assert compare("toy.py", *ONE_RATE, "--seeds", "2") == 0
    assert summary(toy / "out")["runs"]["finished"] == 4 and len(statuses(toy / "out")) == 2
    assert compare("toy.py", *ONE_RATE, "--seeds", "1") == 0  # less is asked for, and nothing lost
    assert summary(toy / "out")["runs"]["finished"] == 2
    assert len((toy / "out" / "runs.jsonl").read_text().splitlines()) == 4


def test_an_interrupt_ends_the_runs_and_the_same_command_goes_on(toy):
    line = [sys.executable, "-m", "hf_winopt", "compare", "toy.py", "--curse", "slow:adan 0.001 2", *ONE_RATE]
    path = os.pathsep.join([str(Path(cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    # Whoever runs the tests in the background may have them ignore interrupts.
    options = {
        "env": {**os.environ, "PYTHONPATH": path},
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, **options) as process, killed_at_last(process):
        slow = toy / "out" / "runs" / "adan" / "lr_0.001" / "seed_2" / "pid"
        while not slow.exists() or not slow.read_text():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert "the same command goes on from here" in process.communicate(timeout=300)[1]
    assert process.returncode == 130
    while not ended(int(slow.read_text())):  # what the run had started
        pass
    assert json.loads((slow.parent / "status.json").read_text()) == {"state": "running", "failures": []}
    assert any(json.loads(path.read_text())["state"] == "finished" for path in statuses(toy / "out").values())


@contextlib.contextmanager
def killed_at_last(process):
    """Where a test fails, the end of a process that goes on is not waited for."""
    try:
        yield
    finally:
        process.kill()


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_each_run_has_a_gpu_of_its_own(monkeypatch):
    given = []
    monkeypatch.setattr(pools, "visible_gpus", lambda: ["2", "5"])
    monkeypatch.setattr(pools, "execute", lambda job, device, guard: given.append(device) or both.wait(10))
    both = threading.Barrier(2)
    pool = pools.LocalPool()
    assert pool.slots == 2
    for future in [pool.submit(None) for _ in range(4)]:
        future.result()
    pool.close()
    assert sorted(given[:2]) == ["2", "5"] == sorted(given[2:])


def test_one_at_a_time_in_a_folder(toy):
    (toy / "out").mkdir()
    code = "from filelock import FileLock; lock = FileLock('out/.lock'); lock.acquire(); print('held'); input()"
    line = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert compare("toy.py", *ONE_RATE) == 2
        holder.communicate("\n")
    assert compare("toy.py", *ONE_RATE, "--seeds", "1") == 0
