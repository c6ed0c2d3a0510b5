"""Which parameters of a model are matrices of hidden layers: what Muon is for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

_HEADS = re.compile(
    r"(^|\.)(lm_head|head|heads|classifier|classification_head|score|output_projection|qa_outputs|cls|predictions|"
    r"proj_out|embed_out|logits?|output_layer)(\.|$)"
)
"""Modules that make logits, by their names."""

_EMBEDDINGS = re.compile(
    r"(^|\.)((\w+_)?embed(ding)?s?(_(tokens?|positions?|proj|project|projection))?|wte|wpe|shared)(\.|$)"
)
"""Tables of vectors, and what turns input into the first of them, by their names."""

_WEIGHT = re.compile(r"weight\w*$")
"""What a layer multiplies by; other tensors of two dimensions are stacked vectors."""


def hidden_matrices(model: nn.Module, include: str | None = None, exclude: str | None = None) -> dict[str, Tensor]:
    """Name -> parameter of what Muon is to train; all others are for AdamW.

    Those are the trained weights of two dimensions, both greater than 1, but for embeddings, what shares its weights
    with one, and output heads: what a transformers model calls its output embeddings or has outside of its base model,
    and what is called like one (`lm_head`, `classifier`, `score` ...). LoRA's matrices go where the layer would that
    they adapt; torch's Muon takes no convolutions and no stacked matrices.

    Args:
        model: any module; of transformers' models more is known.
        include, exclude: regular expressions for names of matrices (`re.search`), which overrule the above; `exclude`
            is the stronger.

    Raises:
        ValueError: a malformed expression, or one that matches no trained parameter of two dimensions.
    """
    names = {param: every for param, every in _names(model).items() if param.ndim == 2}
    chosen, left = _matched("muon_include", include, names), _matched("muon_exclude", exclude, names)
    outside = _outside_of_base(model)
    embeddings = {id(p) for p in _of_embeddings(model)}
    found = {}
    for param, every in names.items():
        by_itself = (
            min(param.shape) > 1
            and id(param) not in embeddings
            and all(_WEIGHT.search(name) for name in every)
            and not any(_EMBEDDINGS.search(name) or _HEADS.search(name) or name in outside for name in every)
        )
        if param not in left and (param in chosen or by_itself):
            found[every[0]] = param
    return found


def _matched(option: str, pattern: str | None, names: dict[Tensor, list[str]]) -> set[Tensor]:
    """The parameters of which a name matches."""
    if not pattern:
        return set()
    try:
        found = {param for param, every in names.items() if any(re.search(pattern, name) for name in every)}
    except re.error as error:
        raise ValueError(f"{option} must be a regular expression; got {pattern!r}: {error}") from None
    if not found:
        raise ValueError(f"{option} must match a trained matrix; {pattern!r} matches none")
    return found


def _names(model: nn.Module) -> dict[Tensor, list[str]]:
    """Trained parameter -> its names: one that is shared has several."""
    names: dict[Tensor, list[str]] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        if param.requires_grad:
            names.setdefault(param, []).append(name)
    return names


def _of_embeddings(model: nn.Module) -> Iterator[Tensor]:
    """Parameters of embeddings and of what a transformers model calls its output embeddings."""
    modules: list[Any] = [each for each in model.modules() if isinstance(each, (nn.Embedding, nn.EmbeddingBag))]
    if callable(ask := getattr(model, "get_output_embeddings", None)):
        modules.append(ask())
    for module in modules:
        yield from module.parameters() if isinstance(module, nn.Module) else ()


def _outside_of_base(model: nn.Module) -> frozenset[str]:
    """Names of parameters outside of a transformers model's base model; none of a model that has no such thing."""
    of_peft: Any = getattr(model, "get_base_model", None)
    inner = of_peft() if callable(of_peft) else model
    base = getattr(inner, getattr(inner, "base_model_prefix", "") or " ", None)
    if not isinstance(base, nn.Module) or base is inner:
        return frozenset()
    mine = {id(param) for param in base.parameters()}
    return frozenset(name for name, param in model.named_parameters(remove_duplicate=False) if id(param) not in mine)


def described(model: nn.Module, chosen: Iterable[str], given: Iterable[Tensor] | None = None) -> str:
    """The split in a few lines: how many parameters go to whom, and which; of all of them or of those given."""
    chosen, every = set(chosen), {names[0]: param for param, names in _names(model).items()}
    known = set(map(id, every.values() if given is None else given))
    lines = []
    for part, mine in (("muon", True), ("adamw", False)):
        named = {name: p for name, p in every.items() if (name in chosen) == mine and id(p) in known}
        size = sum(param.numel() for param in named.values())
        matrices = [name for name, param in named.items() if param.ndim > 1]
        kinds = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in matrices))
        if others := len(named) - len(matrices):
            kinds.append(f"{'and ' if kinds else ''}{others} of one dimension")
        lines.append(f"{part}: {len(named)} tensors, {size / 1e6:.2f} M parameters: {', '.join(kinds)}")
    return "\n".join(lines)
