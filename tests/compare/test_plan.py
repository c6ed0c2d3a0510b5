"""The plan as a pure function of settings and outcomes."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from hf_winopt.compare import archive, contenders, outcome, runs, settings
from hf_winopt.compare.outcome import DIVERGED, FAILED, FINISHED, Outcome
from hf_winopt.compare.plan import FIRST_TUNE_SEED, command, make_plan
from hf_winopt.compare.settings import Settings, script_lr

RUNNERS = contenders.parse("adamw_torch,adan[eps=1e-6,weight_decay=0.1]", "auto", 1e-3)


def asked(**changes):
    return Settings(("train.py",), ("--epochs", "3"), RUNNERS, **changes)


def carried_out(asked, score):
    """Plan and outcomes once every run has got `score(run)`, an outcome or the metric at its end."""
    outcomes, rounds = {}, 0
    while missing := [run for run in make_plan(asked, outcomes).runs if run not in outcomes]:
        rounds += 1
        for run in missing:
            result = score(run)
            if not isinstance(result, Outcome):
                result = Outcome(FINISHED, evaluations=({"step": 1, asked.metric: result},))
            outcomes[run] = result.under(asked.metric)
    return make_plan(asked, outcomes), outcomes, rounds


def distance(best):
    return lambda run: abs(math.log(run.lr / best[run.optim]))


BEST_IN_THE_MIDDLE = {"adamw_torch": 1e-3, "adan[eps=1e-6,weight_decay=0.1]": 5e-3}


def test_tuning_then_fresh_seeds():
    plan, _, rounds = carried_out(asked(), distance(BEST_IN_THE_MIDDLE))
    tuning, final = ([run for run in plan.runs if run.phase == phase] for phase in ("tune", "final"))
    assert plan.chosen == BEST_IN_THE_MIDDLE and rounds == 2 and plan.unnamed == 0
    assert len(tuning) == 6 and {run.seed for run in tuning} == {FIRST_TUNE_SEED}
    assert [(run.optim, run.seed) for run in final] == [(label, seed) for seed in (1, 2, 3) for label in plan.chosen]
    assert len({run.folder for run in plan.runs}) == len(plan.runs)


def test_before_anything_ran_the_final_runs_are_counted_but_not_named():
    plan = make_plan(asked(tune_seeds=2), {})
    assert len(plan.runs) == 12 and plan.unnamed == 6 and not plan.chosen


def test_all_grids_go_on_while_any_is_best_at_an_end():
    plan, _, rounds = carried_out(asked(), distance({"adamw_torch": 1e-3, "adan[eps=1e-6,weight_decay=0.1]": 0.05}))
    grids = {label: {r.lr for r in plan.runs if r.phase == "tune" and r.optim == label} for label in plan.chosen}
    assert grids["adan[eps=1e-6,weight_decay=0.1]"] == {1.7e-3, 5e-3, 1.5e-2, 4.5e-2, 0.14}
    assert len(grids["adamw_torch"]) == 5  # the same budget
    assert plan.chosen["adan[eps=1e-6,weight_decay=0.1]"] == 4.5e-2 and rounds == 4


def test_grids_go_on_so_many_times_at_most():
    plan, _, _ = carried_out(asked(extensions=1), lambda run: -run.lr)
    assert len([run for run in plan.runs if run.phase == "tune"]) == 8
    plan, _, _ = carried_out(asked(extensions=0), lambda run: -run.lr)
    assert plan.chosen == {"adamw_torch": 3e-3, "adan[eps=1e-6,weight_decay=0.1]": 1.5e-2}


def test_greater_can_be_better():
    by_accuracy = asked(metric="eval_accuracy", greater_is_better=True, extensions=0)
    plan, _, _ = carried_out(by_accuracy, lambda run: run.lr)
    assert plan.chosen["adamw_torch"] == 3e-3


def test_one_rate_needs_no_tuning():
    one = dataclasses.replace(asked(), contenders=contenders.parse("adamw_torch,adan", "1e-3", 1))
    plan, _, rounds = carried_out(one, lambda run: 1.0)
    assert {run.phase for run in plan.runs} == {"final"} and len(plan.runs) == 6 and rounds == 1


def test_rates_that_diverge_are_not_chosen_and_grids_flee_them():
    def score(run):
        return Outcome(DIVERGED, "loss is nan") if run.optim == "adamw_torch" and run.lr > 2e-4 else 1.0

    plan, _, _ = carried_out(asked(), score)
    assert plan.chosen["adamw_torch"] < 2e-4


def test_an_optimizer_whose_runs_all_fail_has_no_result():
    in_the_middle = distance(BEST_IN_THE_MIDDLE)
    plan, _, _ = carried_out(asked(), lambda r: Outcome(FAILED, "no") if r.optim == "adamw_torch" else in_the_middle(r))
    assert set(plan.chosen) == {"adan[eps=1e-6,weight_decay=0.1]"}
    assert len(plan.runs) == 3 + 3 + 3  # a library that is not installed is no reason for wider grids
    assert all(run.optim != "adamw_torch" for run in plan.runs if run.phase == "final")


def test_more_seeds_keep_the_runs_that_are_there():
    few, _, _ = carried_out(asked(), distance(BEST_IN_THE_MIDDLE))
    many, _, _ = carried_out(asked(seeds=5), distance(BEST_IN_THE_MIDDLE))
    assert set(few.runs) < set(many.runs)


def test_the_command_of_a_run():
    run = make_plan(asked(), {}).runs[-1]
    words = command(asked(), RUNNERS[1], run, "out")
    assert " ".join(words) == (
        "train.py --epochs 3 --optim adan --weight_decay 0.1 --optim_args eps=1e-6 "
        "--learning_rate 0.015 --seed 1001 --output_dir out"
    )


def test_the_rate_of_the_script_is_taken_out_of_its_arguments():
    assert script_lr(["--a", "1", "--learning_rate=2e-5", "--b"]) == (2e-5, ("--a", "1", "--b"))
    assert script_lr(["--learning-rate", "1e-4", "x.yaml"]) == (1e-4, ("x.yaml",))
    assert script_lr(["x", "--pad_token", "0"]) == (None, ("x", "--pad_token", "0"))
    for argument in (
        "--optim",
        "--seed=3",
        "--output-dir",
        "--optim_args",
        "--push_to_hub",
        "--hub_token",
        "--load_best_model_at_end",
    ):
        with pytest.raises(ValueError, match=argument.partition("=")[0]):
            script_lr([argument])
    with pytest.raises(ValueError, match="'fast' is no number"):
        script_lr(["--learning_rate", "fast"])


def test_settings_come_back_from_disk_and_are_guarded(tmp_path):
    settings.check(tmp_path, asked())  # nothing is there yet
    settings.save(tmp_path, asked())
    assert settings.load(tmp_path) == asked()
    settings.check(tmp_path, asked(seeds=5, metric="eval_f1", tune_seeds=2))
    with pytest.raises(ValueError, match="another number of threads"):
        settings.check(tmp_path, asked(threads=4))
    with pytest.raises(ValueError, match="another text of the script"):
        settings.check(tmp_path, asked(fingerprint="0"))
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no comparison"):
        settings.load(tmp_path)


def test_what_is_kept_of_the_settings_can_be_shown(tmp_path):
    words = ("/home/ann/train.py", "--data", "/home/ann/data", "--kw", "a=/home/ann/x", "--wandb_api_key", "abc")
    settings.save(tmp_path, dataclasses.replace(asked(), script=words[:1], arguments=words[1:], command=words))
    kept = (tmp_path / "plan.json").read_text()
    assert "ann" not in kept and "abc" not in kept and "PATH_TO/train.py --data PATH_TO/data --kw a=PATH_TO/x" in kept


def test_outcomes_come_back_from_disk():
    result = Outcome(FINISHED, steps=3, evaluations=({"step": 3, "eval_loss": math.nan},), losses=((1, 0.5),))
    back = outcome.from_json(json.loads(json.dumps(dataclasses.asdict(result)).replace("NaN", "null")))
    assert dataclasses.replace(back, evaluations=()) == dataclasses.replace(result, evaluations=())
    assert math.isnan(back.evaluations[0]["eval_loss"])


def test_failed_runs_are_kept_until_they_are_to_be_tried_again(tmp_path):
    plan = make_plan(asked(), {})
    ended = {run: Outcome(FAILED, "no") for run in plan.runs[:2]}
    ended |= {run: Outcome(FINISHED, evaluations=({"step": 1, "eval_loss": 1.0},)) for run in plan.runs[2:]}
    archive.save(tmp_path, plan, ended)
    assert archive.load(tmp_path) == ended and runs.any_ended(tmp_path)
    runs.forget_failed(tmp_path)
    assert list(archive.load(tmp_path)) == list(plan.runs[2:])
    archive.save(tmp_path, plan, dict.fromkeys(plan.runs, Outcome(FAILED, "no")))
    assert not runs.any_ended(tmp_path)


def test_what_is_read_of_a_log(tmp_path):
    output = tmp_path / "output"
    for step in (5, 10, 100):  # 100 comes last by number, not by name
        folder = output / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        log = [
            {"step": 5, "loss": 2.0},
            {"step": 5, "eval_loss": 1.5, "eval_runtime": 3.0},
            {"step": step, "eval_loss": 1.0, "eval_f1": 0.5},
            {"step": step, "eval_loss": 0.9},  # of the best model, after training
        ]
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": log}))
    found = outcome.read(tmp_path, returncode=0)
    assert found.state == FINISHED and found.steps == 100 and found.losses == ((5, 2.0),)
    assert found.value("eval_loss") == 1.0 and found.curve("eval_loss") == [(5, 1.5), (100, 1.0)]
    assert found.curve("eval_f1") == [(100, 0.5)]
    with pytest.raises(ValueError, match="no eval_bleu at its end: it has eval_f1, eval_loss"):
        found.under("eval_bleu")
    assert outcome.read(tmp_path, returncode=2).state == FAILED
    (tmp_path / "record.json").write_text('{"diverged": "loss is nan"}')
    assert outcome.read(tmp_path, returncode=2).state == DIVERGED


def test_a_long_log_is_thinned():
    log = [{"step": step, "loss": 1.0} for step in range(1, 1001)]
    losses = outcome._losses(log)
    assert len(losses) == 200 and losses[-1] == (1000, 1.0)
