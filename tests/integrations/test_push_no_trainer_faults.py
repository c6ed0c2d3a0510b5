"""A Hub that fails does not cost a training with a plain Accelerate script."""

from __future__ import annotations

import json
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest

from tests.integrations.hub_client import alone, hub, pushed, read

COLA = (
    "--task_name cola --dataset_name embedded --max_train_samples 64 --max_eval_samples 32 --max_length 32 "
    "--optim adamw_win --learning_rate 1e-3 --max_steps 4 --save_steps 2 --save_strategy steps --report_to none "
    "--disable_tqdm true --use_cpu true --dataloader_pin_memory false --push_to_hub true --hub_strategy checkpoint"
)


@alone
def test_a_hub_that_fails(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        from hf_winopt.cli import main
        from recipes.common import RecipeError
        from recipes.glue import run_glue_no_trainer

        def train(name: str, extra: str) -> tuple[Path, str]:
            folder, said = tmp_path / name, StringIO()
            line = f"{COLA} --hub_model_id owner/{name} {extra}"
            with redirect_stderr(said):
                run_glue_no_trainer.main([*line.split(), "--output_dir", str(folder)])
            return folder, said.getvalue()

        with pytest.raises(RecipeError, match="--push_to_hub: the token is missing or wrong"):
            train("refused", "--hub_token hf_wrong")
        assert not (tmp_path / "refused").exists()  # before anything was trained

        server.fail(at=1, how=503, times=1, of="POST .*/commit/")
        folder, said = train("once", "")
        assert "checkpoint-2 could not be pushed: the server failed (HTTP 503)" in said
        files, local = pushed(server, "owner/once"), read(folder)
        assert files["model.safetensors"] == local["model.safetensors"]
        assert files["last-checkpoint/optimizer.bin"] == local["checkpoint-4/optimizer.bin"]

        server.fail(at=1, how="drop", times=1_000, of="POST .*/commit/")
        with pytest.raises(RecipeError, match=r"trained, but not pushed: (?s:.*)hf-winopt push .*last owner/last"):
            train("last", "")
        server.forgive()
        local = read(tmp_path / "last")
        assert json.loads(local["results.json"])["metrics"] and pushed(server, "owner/last") == {}
        assert main(["push", str(tmp_path / "last"), "owner/last", "--with-optimizer"]) == 0
        for name, content in pushed(server, "owner/last").items():
            assert content == local[name.replace("last-checkpoint", "checkpoint-4")], name
