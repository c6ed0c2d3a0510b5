"""The optimizers' options as typed arguments, to be mixed into any `TrainingArguments`."""

# No `from __future__ import annotations`: HfArgumentParser needs the types themselves.
from dataclasses import dataclass
from typing import Any

from hf_winopt.integrations.typed import TypedOptions, typed_options


@dataclass
class WinOptArguments(TypedOptions):
    """Options of hf_winopt's optimizers, for `HfArgumentParser` and for code.

    Mixed in first, `@dataclass class MyArguments(WinOptArguments, Seq2SeqTrainingArguments)`, the options are
    checked against the optimizer as soon as the arguments are made; mixed in last, when the optimizer is.
    A field left at None leaves the optimizer's default. All this can be said in `optim_args` as well; where
    both speak, they must agree.

    Raises:
        ValueError: the chosen optimizer does not take an option, or not with this value.
    """

    def __post_init__(self) -> None:
        if hasattr(super(), "__post_init__"):
            super().__post_init__()  # type: ignore[misc]
        if hasattr(self, "optim"):
            from hf_winopt.integrations.options import check  # takes the optimizers along

            check(self)

    def optimizer_options(self) -> dict[str, Any]:
        """The options that were given, by the names that `create_optimizer` knows.

        `agr_stop_ratio` is among them if it was given, though only Trainer can make steps of it.
        """
        return {option: value for option, value in typed_options(self).values()}
