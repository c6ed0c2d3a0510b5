"""Muon as one optimizer of a whole model: hidden matrices by torch's Muon, all else by AdamW, plain or under Win."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from .adam import AdamW
from .parts import SPLIT, Parts
from .pieces import OF_FSDP1
from .split import described, hidden_matrices
from .win import Win

_WRAPPERS = re.compile(r"(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|module)\.")

_OF_PIECES = (
    "muon orthogonalizes whole matrices, and was given flat pieces, as DeepSpeed and FSDP1 make them: use FSDP2 or DDP"
)


class _Matrices(Parts):
    """Muon's and AdamW's parts; Muon needs whole matrices at every step."""

    def _check(self) -> None:
        _refuse_pieces(p for group in self.parts["muon"].param_groups for p in group["params"])


def muon(
    params: ParamsT,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    *,
    adjust_lr_fn: str = "match_rms_adamw",
    acceleration: str = "none",
    reckless_steps: tuple[float, float] = (2, 8),
    muon_include: str | None = None,
    muon_exclude: str | None = None,
    state: str = "float32",
    backend: str = "auto",
    model: nn.Module | None = None,
) -> Parts:
    """One optimizer: `torch.optim.Muon` for the matrices of hidden layers, AdamW for all other parameters.

    The split is made from the model and printed once. By `adjust_lr_fn="match_rms_adamw"` an orthogonalized update is
    as large as AdamW's, so that AdamW's learning rate and weight decay hold for both.

    Args:
        params: parameters or parameter groups, all of `model`; each group is split in two.
        lr, weight_decay: of both.
        momentum, nesterov, ns_steps, adjust_lr_fn: Muon's, as `torch.optim.Muon` has them.
        betas, eps: AdamW's.
        acceleration: "none", "win" or "win2", of both: `Win` around Muon, and AdamW-Win.
        reckless_steps: those of Win.
        muon_include, muon_exclude: regular expressions for names of parameters that Muon is to train or to leave to
            AdamW, whatever the split is otherwise; the second is the stronger.
        state: "float32", "compact" or (without acceleration) "8bit": how AdamW's state and Win's distances are stored;
            Muon's own momentum is float32 always.
        backend: of AdamW-Win and Win.
        model: whose parameters they are.

    Raises:
        ValueError: no model, or parameters that are not its own; pieces of parameters, as DeepSpeed and FSDP1 make.
        RuntimeError: a torch without Muon (before 2.9).

    Source: Muon (Jordan et al., 2024); Muon is Scalable for LLM Training (2025) for the learning rate; Win.
    """
    if not hasattr(torch.optim, "Muon"):
        raise RuntimeError(f"muon needs torch.optim.Muon, of torch 2.9 or later; this is torch {torch.__version__}")
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"muon splits the parameters by what they are in the model: model must be a module; got {model!r}"
        )
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        model = model.module
    groups = _groups(params)
    if any(map(_is_marked_piece, model.parameters())):
        raise ValueError(_OF_PIECES)
    _check_known(groups, model)
    matrices = hidden_matrices(model, muon_include, muon_exclude)
    chosen = set(map(id, matrices.values()))
    by_part: dict[str, list[dict[str, Any]]] = {"muon": [], "adamw": []}
    for group in groups:
        for part, mine in (("muon", True), ("adamw", False)):
            if its := [p for p in group["params"] if (id(p) in chosen) == mine]:
                options = {name: value for name, value in group.items() if name != "param_names"}
                by_part[part].append({**options, "params": its, SPLIT: _number_of(its, model)})
    parts = {
        "muon": _muon_of(by_part["muon"], lr, weight_decay, momentum, nesterov, ns_steps, adjust_lr_fn),
        "adamw": AdamW(
            by_part["adamw"] or [{"params": []}],
            lr,
            betas,
            eps,
            weight_decay,
            acceleration=acceleration,
            reckless_steps=reckless_steps,
            state=state,
            backend=backend,
        ),
    }
    if acceleration != "none":
        parts["muon"] = Win(parts["muon"], acceleration, reckless_steps, state=state, backend=backend)
    if _is_first_process():
        print(described(model, matrices, [p for group in groups for p in group["params"]]), flush=True)
    return _Matrices(parts)


def _is_first_process() -> bool:
    """Accelerate's launcher says so before there is a process group."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def _muon_of(groups: list[dict[str, Any]], lr: Any, weight_decay: float, momentum: float, *others: Any) -> Optimizer:
    nesterov, ns_steps, adjust_lr_fn = others
    _refuse_pieces(p for group in groups for p in group["params"])
    if not groups:
        raise ValueError("muon must have matrices of hidden layers; the model has none. muon_include names some")
    return torch.optim.Muon(groups, lr, weight_decay, momentum, nesterov, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn)


def _groups(params: ParamsT) -> list[dict[str, Any]]:
    given: list[Any] = list(params)
    if not given:
        raise ValueError("params must have parameters; got none")
    if not isinstance(given[0], Mapping):
        given = [{"params": given}]
    return [{**group, "params": [_param(each) for each in _listed(group["params"])]} for group in given]


def _listed(params: Any) -> list[Any]:
    return [params] if isinstance(params, Tensor) else list(params)


def _param(given: Any) -> Tensor:
    """A parameter that may come with its name."""
    return given[1] if isinstance(given, tuple) else given


def _number_of(params: list[Tensor], model: nn.Module) -> int:
    """Of the names of these parameters, without what wrappers add to them."""
    names = {id(param): name for name, param in model.named_parameters()}
    text = "\n".join(_WRAPPERS.sub("", names[id(p)]) for p in params if id(p) in names)
    return zlib.crc32(text.encode())


def _check_known(groups: list[dict[str, Any]], model: nn.Module) -> None:
    known = set(map(id, model.parameters()))
    for i, group in enumerate(groups):
        for p in group["params"]:
            if id(p) not in known:
                raise ValueError(
                    f"params must be parameters of the model; group {i} has one of shape {tuple(p.shape)} that is none"
                )


def _refuse_pieces(params: Iterable[Tensor]) -> None:
    """
    Raises:
        ValueError: pieces of matrices, which cannot be orthogonalized.
    """
    for p in params:
        if p.ndim != 2 or _is_marked_piece(p):
            raise ValueError(f"{_OF_PIECES}; one is of shape {tuple(p.shape)}")


def _is_marked_piece(p: Tensor) -> bool:
    """Whether DeepSpeed's ZeRO-3 or FSDP1 has the rest of it."""
    return hasattr(p, "ds_id") or any(getattr(p, mark, False) for mark in OF_FSDP1)
