"""The command `hf-winopt`: finds the subcommand and hands it the rest of the line.

A subcommand is a module of `hf_winopt.commands` with a `main(argv) -> int`, and a line here. It is imported
only when it is the one that was asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "list": "the optimizers: what each is, what it costs, when to use it",
    "bench": "what a step costs on this machine, beside torch's AdamW and a plain copy",
    "compare": "which optimizer is better for a script of yours: tuned alike, on fresh seeds, judged",
    "card": "the model card of a training, from the results that it left",
    "push": "what was trained earlier goes to the Hub: model, card, and what to go on from if asked",
    "hessian": "the spectrum of a model's loss Hessian, and the term of the AdamW paper's bound",
    "run": "run a script or a module, unmodified, that then accepts these optimizers by name",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `hf-winopt ARGV...`; the exit status."""
    first, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    command = _parser().parse_args([first]).command
    return import_module(f"hf_winopt.commands.{command}").main(rest)


def _parser() -> argparse.ArgumentParser:
    from hf_winopt import __version__

    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="hf-winopt",
        description="Optimizers for transformers, by name. `hf-winopt COMMAND --help` says more.",
        epilog="commands:\n" + "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hf-winopt {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    return parser
