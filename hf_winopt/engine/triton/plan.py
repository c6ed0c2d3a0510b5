"""A step prepared: its batches, and what is sent to the device each time.

What stays from step to step (addresses of parameters and state, chunks, scratch) is made once. What changes (the
addresses of the gradients, the hyper-parameters) goes to each device in one small copy that nobody waits for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from itertools import chain
from operator import itemgetter, or_
from typing import Any

import torch
from torch import Tensor

from ...rules import Rule
from . import table
from .batch import Batch, Entry, Sent

PROBES = 8
"""Parameters whose state is asked where it lies."""


def addresses(tensors: Any) -> list[int]:
    """Where each tensor's data is."""
    return list(map(Tensor.data_ptr, tensors))


def home(param: Tensor) -> torch.device:
    """The device that steps a parameter."""
    return param.device


def _whereabouts(state: Mapping[Tensor, dict[str, Tensor]]) -> list[int]:
    """Which tensors the state is made of."""
    return list(map(id, chain.from_iterable(map(dict.values, state.values()))))


class Plan:
    """The steps of an optimizer for as long as its parameters, their gradients' form and its state stay where they are.

    Args:
        params, grads: all parameters of the optimizer, and their gradients or None.
        rules: the rule of each group.
        state: the optimizer's whole state.
        entries: the parameters that are to be stepped here, by their place among those that have a gradient.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        rules: Sequence[Rule],
        state: Mapping[Tensor, dict[str, Tensor]],
        entries: Mapping[int, Entry],
    ) -> None:
        live = [g for g in grads if g is not None]
        self._present = None if len(live) == len(grads) else [g is not None for g in grads]
        self._contiguous = all(map(Tensor.is_contiguous, live))
        self._strides = list(map(Tensor.stride, live))
        self._places = addresses(params)
        self._state = _whereabouts(state)
        # All tensors of the state may be given other memory (`tensor.data = ...`), and stay the same tensors. That is
        # seen in a few of them: asking for an address takes longer than all else here.
        self._probed = list(state.values())[:: max(1, len(state) // PROBES)]
        self._probes = addresses(chain.from_iterable(map(dict.values, self._probed)))
        self._rules = list(rules)
        self.stepped = list(entries)
        by_device: defaultdict[torch.device, dict[int, Entry]] = defaultdict(dict)
        for place, entry in entries.items():
            by_device[home(entry.param)][place] = entry
        self._devices = [_DevicePlan(device, mine, len(rules), len(live)) for device, mine in by_device.items()]

    def fits(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        live: Sequence[Tensor],
        rules: Sequence[Rule],
        state: Mapping[Tensor, dict[str, Tensor]],
    ) -> bool:
        """Whether nothing has moved since the plan was made; `live` are the gradients that there are.

        Asked at every step, and so every loop here runs in C.
        """
        try:
            return (
                (len(live) == len(grads) if self._present is None else [g is not None for g in grads] == self._present)
                and addresses(params) == self._places
                and _whereabouts(state) == self._state
                and addresses(chain.from_iterable(map(dict.values, self._probed))) == self._probes
                # of the parameter's type a gradient always is; torch refuses another
                and (all(map(Tensor.is_contiguous, live)) if self._contiguous else self._have_strides(live))
                and list(rules) == self._rules
            )
        except (TypeError, RuntimeError):  # something in the state that is no tensor, a gradient that is not dense
            return False

    def _have_strides(self, live: Sequence[Tensor]) -> bool:
        return list(map(Tensor.stride, live)) == self._strides

    @property
    def finds_norm(self) -> bool:
        """Whether the norm of its gradients can be found in the step itself: all of them are on one device."""
        return len(self._devices) == 1

    def capturing(self) -> bool:
        """Whether the step is being captured in a graph."""
        return any(device.capturing() for device in self._devices)

    def step(
        self,
        groups: Sequence[Mapping[str, Any]],
        grads: Sequence[Tensor],
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
        clips: bool = False,
        norm: Tensor | None = None,
    ) -> Tensor | None:
        """Step every entry.

        Args:
            groups: the parameter groups, in the order of `rules`.
            grads: the gradients of all parameters that have one.
            grad_scale, found_inf: one element each, on any device; None without AMP.
            clips: whether a group has `max_grad_norm`.
            norm: the norm of all gradients, where it is known already; else it is found here.

        Returns:
            The norm of all gradients, unscaled and before clipping, float64 with 0 dimensions; None without clipping.
        """
        where = addresses(grads)
        for device in self._devices:
            found = device.step(groups, where, grad_scale, found_inf, clips, norm)
        return norm if norm is not None or not clips else found


class _DevicePlan:
    """The part of a plan that lies on one device."""

    def __init__(self, device: torch.device, entries: Mapping[int, Entry], groups: int, places: int) -> None:
        self._device = device
        kinds: defaultdict[tuple[Any, ...], dict[int, Entry]] = defaultdict(dict)
        for place, e in entries.items():
            rule = e.rule
            kind = (rule.transform, rule.moments, rule.acceleration, rule.decay, e.param.dtype, e.grad_dtype)
            kinds[kind][place] = e
        order = list(chain.from_iterable(kinds.values()))
        self._mine = (
            itemgetter(slice(None)) if order == [*range(places)] else itemgetter(*order, order[0])
        )  # of two at least: a tuple
        self._batches, first = [], 0
        for mine in kinds.values():
            self._batches.append(Batch(list(mine.values()), first))
            first += len(mine)
        self._count = first
        self._upload = torch.zeros(first + groups * table.HYPER_ROW, dtype=torch.int64, device=device)
        self._sent: bytearray | None = None
        self._squares = sum(len(batch.spans) for batch in self._batches)
        # a graph that is captured reads this memory at every replay; pinned memory cannot be had during the capture
        self._pinned = torch.empty_like(self._upload, device="cpu", pin_memory=True) if device.type == "cuda" else None

    def step(
        self,
        groups: Sequence[Mapping[str, Any]],
        where: Sequence[int],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        clips: bool,
        norm: Tensor | None,
    ) -> Tensor | None:
        mine = self._mine(where)[: self._count]
        with self._current():
            self._send(mine, groups)
            sent = Sent(
                self._upload, len(mine), not reduce(or_, mine, 0) & 15,
                self._here(grad_scale), self._here(found_inf),
            )  # fmt: skip
            if clips:
                sent = self._with_squares(sent, norm)
            for batch in self._batches:
                batch.step(sent, any(groups[i]["weight_decay"] > 0 for i in batch.groups))
        return sent.norm

    def _here(self, value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(self._device, torch.float32, non_blocking=True)

    def _with_squares(self, sent: Sent, norm: Tensor | None) -> Sent:
        """With the sums of squares from which the norm of all gradients is found."""
        if norm is not None:
            squares = norm.to(self._device, torch.float64, non_blocking=True).square().reshape(1)
        else:
            squares = torch.empty(self._squares, dtype=torch.float64, device=self._device)
            parts = squares.split([len(batch.spans) for batch in self._batches])
            for batch, mine in zip(self._batches, parts):
                batch.add_squares(sent, mine)
        norm = torch.empty((), dtype=torch.float64, device=self._device)
        return Sent(sent.upload, sent.hyper_at, sent.aligned, sent.grad_scale, sent.found_inf, squares, norm)

    def _send(self, mine: Sequence[int], groups: Sequence[Mapping[str, Any]]) -> None:
        packed = table.upload(mine, [table.hyper_row(group, *self._lr(group["lr"])) for group in groups])
        if packed == self._sent:
            return
        self._sent = packed
        host = torch.frombuffer(packed, dtype=torch.int64)
        if self.capturing():
            assert self._pinned is not None
            host = self._pinned.copy_(host)
        self._upload.copy_(host, non_blocking=True)

    def _lr(self, lr: float | Tensor) -> tuple[float, int]:
        """A learning rate on the host as it is; for one on the device its address, so that a graph sees it change."""
        if not isinstance(lr, Tensor):
            return lr, 0
        if lr.device.type == "cpu" and self._device.type != "cpu":
            return lr.item(), 0
        self._device_lr = lr.to(self._device, torch.float32, non_blocking=True)
        return 0.0, self._device_lr.data_ptr()

    def capturing(self) -> bool:
        asks = getattr(torch.get_device_module(self._device), "is_current_stream_capturing", None)
        return bool(asks and asks())

    def _current(self) -> AbstractContextManager[Any]:
        """Launches go to the device that is current."""
        if self._device.type == "cpu":
            return nullcontext()
        module = torch.get_device_module(self._device)
        return nullcontext() if module.current_device() == self._device.index else module.device(self._device)
