"""`TrainingArguments` with the optimizers' options as fields; importing this imports transformers."""

from dataclasses import dataclass

from transformers import TrainingArguments

from hf_winopt.integrations.arguments import WinOptArguments


@dataclass(repr=False)  # that of TrainingArguments, which hides tokens
class WinOptTrainingArguments(WinOptArguments, TrainingArguments):
    """`TrainingArguments` and `WinOptArguments` in one."""
