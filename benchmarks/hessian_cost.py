"""What a product with the Hessian costs beside a forward and backward pass of the same batch.

    python -m benchmarks.hessian_cost [--model FOLDER] [--json FILE]

A pass, the double backward by torch alone, a product that makes its graph, and one on the graph that was kept from the
product before are taken in turn, several times, in a process that keeps freed memory, as `hf-winopt hessian` does. The
models are small ones of their kind, drawn at random; `--model` adds a classifier of sentences from a folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_winopt.analysis.memory import keep_freed_memory
from hf_winopt.analysis.products import HessianProduct
from hf_winopt.analysis.tasks import own_loss
from hf_winopt.analysis.twice import twice_differentiable
from hf_winopt.bench.table import markdown
from hf_winopt.files import write_json
from hf_winopt.integrations.results import environment

ROUNDS = 7
KINDS = ("pass", "plain", "product", "kept")
SIZES = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 768}

Batch = dict[str, Tensor]


def sentences(model: Callable[[], nn.Module], words: int) -> tuple[nn.Module, Batch]:
    return model(), {"input_ids": torch.randint(words, (32, 32)), "labels": torch.randint(2, (32,))}


def images(model: Callable[[], nn.Module]) -> tuple[nn.Module, Batch]:
    return model(), {"pixel_values": torch.randn(32, 3, 32, 32), "labels": torch.randint(10, (32,))}


def text() -> tuple[nn.Module, Batch]:
    tokens = torch.randint(1000, (8, 128))
    model = GPT2LMHeadModel(GPT2Config(vocab_size=1000, n_positions=128, n_embd=192, n_layer=6, n_head=3))
    return model, {"input_ids": tokens, "labels": tokens}


PROBLEMS: dict[str, Callable[[], tuple[nn.Module, Batch]]] = {
    "BERT": lambda: sentences(lambda: BertForSequenceClassification(BertConfig(vocab_size=1000, **SIZES)), 1000),
    "ViT": lambda: images(
        lambda: ViTForImageClassification(ViTConfig(image_size=32, patch_size=4, num_labels=10, **SIZES))
    ),
    "ResNet": lambda: images(
        lambda: ResNetForImageClassification(
            ResNetConfig(
                embedding_size=32, hidden_sizes=[32, 64, 128], depths=[2, 2, 2], layer_type="basic", num_labels=10
            )
        )
    ),
    "GPT-2": text,
}


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(name: str, model: nn.Module, batch: Batch) -> dict[str, Any]:
    """Medians of each, one after the other in each round."""
    model.eval()
    anew, kept = (HessianProduct(model, [batch], own_loss, held) for held in (0, 1))
    v = torch.randn(anew.dim)
    directions = [part.view_as(p) for part, p in zip(v.split([p.numel() for p in anew.params]), anew.params)]

    def gradient() -> None:
        model.zero_grad()
        own_loss(model, batch).backward()

    def double_backward() -> None:
        with twice_differentiable(model):
            grads = torch.autograd.grad(own_loss(model, batch), anew.params, create_graph=True)
            torch.autograd.grad(grads, anew.params, directions)

    times: list[list[float]] = []
    for _ in range(ROUNDS + 1):  # the first warms up
        times.append([seconds(each) for each in (gradient, double_backward, lambda: anew(v), lambda: kept(v))])
    row: dict[str, Any] = {"name": name, "parameters": anew.dim}
    for place, kind in enumerate(KINDS):
        row[kind] = statistics.median(each[place] for each in times[1:])
        row[f"{kind}_ratios"] = sorted(each[place] / each[0] for each in times[1:])
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For the documentation."""

    def ratio(row: dict[str, Any], kind: str) -> str:
        low, *_, high = ratios = row[f"{kind}_ratios"]
        return f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"

    return markdown(
        ("model", "parameters", "forward and backward, ms", "torch alone", "a product", "on a kept graph"),
        [
            (
                row["name"],
                f"{row['parameters'] / 1e6:.1f} M",
                f"{1e3 * row['pass']:.0f}",
                ratio(row, "plain"),
                ratio(row, "product"),
                ratio(row, "kept"),
            )
            for row in rows
        ],
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="measure this classifier of sentences too")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--report", type=Path, help="only print the table of figures written before")
    arguments = parser.parse_args(argv)
    if arguments.report:
        print(table(json.loads(arguments.report.read_text(encoding="utf-8"))["rows"]))
        return
    keep_freed_memory()
    torch.manual_seed(0)
    problems = dict(PROBLEMS)
    if arguments.model:
        folder = arguments.model
        problems[folder.name] = lambda: sentences(
            lambda: AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32), 1000
        )
    rows = [measure(name, *make()) for name, make in problems.items()]
    if arguments.json:
        write_json(arguments.json, {"rows": rows, **environment()})
    print(table(rows))


if __name__ == "__main__":
    main()
