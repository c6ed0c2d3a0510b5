"""`hf-winopt push`: what was trained earlier goes to the Hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Push; 1 where that could not be done, 130 where it was interrupted."""
    parser = argparse.ArgumentParser(
        prog="hf-winopt push",
        description="Push a trained model to the Hub with its model card: in one commit, without what is private and "
        "without what is only needed to train on. After a failure the same command sends only what is missing.",
    )
    parser.add_argument(
        "output_dir", type=Path, help="what the training had as --output_dir, or one of its checkpoints"
    )
    parser.add_argument("repo_id", help="NAME or OWNER/NAME; made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it private; refuse if it is there and public")
    parser.add_argument(
        "--with-optimizer", action="store_true", help="also push the last checkpoint whole, to go on training from"
    )
    arguments = parser.parse_args(argv)
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    from hf_winopt.integrations.push import PushError, push_run

    if not sys.stdout.isatty() and constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()
    try:
        pushed = push_run(
            arguments.output_dir,
            arguments.repo_id,
            private=arguments.private or None,
            with_optimizer=arguments.with_optimizer,
        )
    except PushError as error:
        print(f"hf-winopt push: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(pushed.url)
    return 0
