"""A step prepared: its batches, and what is sent to the device each time.

What stays from step to step (addresses of parameters and state, chunks, scratch) is made once. What changes (the
addresses of the gradients, the hyper-parameters) goes to each device in one small copy that nobody waits for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import reduce
from itertools import chain
from operator import or_
from typing import Any

import torch
from torch import Tensor

from . import table
from .batch import Batch, Entry, Sent
from .kinds import by_kind
from .sending import Upload
from .sharing import SharedSums


def home(param: Tensor) -> torch.device:
    """The device that steps a parameter."""
    return param.device


class Plan:
    """The steps of an optimizer for as long as its parameters and their state lie where they lie.

    Args:
        entries: the parameters that are to be stepped here, by their place among all of the optimizer.
        groups: how many parameter groups there are.
    """

    def __init__(self, entries: Mapping[int, Entry], groups: int) -> None:
        self.stepped = frozenset(entries)
        by_device: defaultdict[torch.device, dict[int, Entry]] = defaultdict(dict)
        for place, entry in entries.items():
            by_device[home(entry.param)][place] = entry
        self._devices = [_DevicePlan(device, mine, groups) for device, mine in by_device.items()]

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
        where: Sequence[int],
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
        norm: Tensor | None = None,
        finds_norm: bool = False,
        bears: float | None = None,
    ) -> Tensor | None:
        """Step every entry that has a gradient.

        Args:
            groups: the parameter groups.
            where: the addresses of the gradients of all parameters, 0 where there is none (`forms.places`).
            grad_scale, found_inf: one element each, on any device; None without AMP.
            norm: the norm of all gradients, where one is needed and known already.
            finds_norm: find it here.
            bears: leave everything as it is where the norm found here is not finite, or larger; None for never.

        Returns:
            The norm found here, unscaled and before clipping, float64 with 0 dimensions; else None.
        """
        for device in self._devices:
            found = device.step(groups, where, grad_scale, found_inf, norm, finds_norm, bears)
        return found if finds_norm else None


class _DevicePlan:
    """The part of a plan that lies on one device."""

    def __init__(self, device: torch.device, entries: Mapping[int, Entry], groups: int) -> None:
        self._device = device
        kinds = by_kind(entries)
        self._order = list(chain.from_iterable(kinds))
        self._batches, first = [], 0
        for mine in kinds:
            self._batches.append(Batch(list(mine.values()), first))
            first += len(mine)
        self._shared = SharedSums(self._batches, device)
        self._upload = Upload(first + groups * table.HYPER_ROW, device)
        self._rates: list[Tensor] = []
        self._streams = {self._stream()}  # the first is the one that the memory of all this belongs to

    def step(
        self,
        groups: Sequence[Mapping[str, Any]],
        where: Sequence[int],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        norm: Tensor | None,
        finds_norm: bool,
        bears: float | None,
    ) -> Tensor | None:
        mine = [where[place] for place in self._order]
        aligned = [not reduce(or_, mine[b.first : b.first + b.size], 0) & 15 for b in self._batches]
        with self._current():
            self._stay_for_stream()
            self._send(mine, groups, bears)
            sent = Sent(self._upload.tensor, len(mine), self._here(grad_scale), self._here(found_inf))
            if finds_norm or norm is not None:
                sent = replace(self._with_squares(sent, aligned, norm), skips=bears is not None)
            steps = [
                batch.stages(sent, wide, any(groups[i]["weight_decay"] > 0 for i in batch.groups))
                for batch, wide in zip(self._batches, aligned)
            ]
            for complete in (self._shared.complete_abs, self._shared.complete_norms):
                for each in steps:
                    next(each)
                complete()
            for each in steps:
                next(each, None)
        return sent.norm

    def _here(self, value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(self._device, torch.float32, non_blocking=True)

    def _with_squares(self, sent: Sent, aligned: Sequence[bool], norm: Tensor | None) -> Sent:
        """With the sums of squares from which the norm of all gradients is found."""
        if norm is not None:
            squares = norm.to(self._device, torch.float64, non_blocking=True).square().reshape(1)
        else:
            squares = self._squares_of_all(sent, aligned)
        return replace(sent, squares=squares, norm=torch.empty((), dtype=torch.float64, device=self._device))

    def _squares_of_all(self, sent: Sent, aligned: Sequence[bool]) -> Tensor:
        """Sums of squares, partial ones; of so many that every parameter's program had long to add, one a parameter."""
        spans, sizes = [len(batch.spans) for batch in self._batches], [batch.size for batch in self._batches]
        squares = torch.empty(sum(spans), dtype=torch.float64, device=self._device)
        for batch, wide, mine in zip(self._batches, aligned, squares.split(spans)):
            batch.add_squares(sent, wide, mine)
        if len(squares) <= table.MANY:
            return squares
        of_each = torch.empty(sum(sizes), dtype=torch.float64, device=self._device)
        for batch, mine, theirs in zip(self._batches, squares.split(spans), of_each.split(sizes)):
            batch.add_up(mine.view(1, -1), theirs.view(1, -1))
        return of_each

    def _send(self, mine: Sequence[int], groups: Sequence[Mapping[str, Any]], bears: float | None) -> None:
        before, self._rates = self._rates, []  # what the last step may still read is kept until this one has its own
        packed = table.upload(mine, [table.hyper_row(group, *self._lr(group["lr"]), bears) for group in groups])
        del before
        self._upload.send(packed, self.capturing())

    def _lr(self, lr: float | Tensor) -> tuple[float, int]:
        """A learning rate on the host as it is; for one on the device its address, so that a graph sees it change."""
        if not isinstance(lr, Tensor):
            return lr, 0
        if lr.device.type == "cpu" and self._device.type != "cpu":
            return lr.item(), 0
        self._rates.append(lr.to(self._device, torch.float32, non_blocking=True))
        return 0.0, self._rates[-1].data_ptr()

    def _stream(self) -> Any:
        """The stream that launches go to now; None where there are none."""
        asks = getattr(torch.get_device_module(self._device), "current_stream", None)
        return asks(self._device) if asks is not None and self._device.type != "cpu" else None

    def _stay_for_stream(self) -> None:
        """Keep this memory from being given to others before a stream is done with it that it does not belong to.

        A plan that is dropped is not waited for: its last step may still be running there.
        """
        stream = self._stream()
        if stream in self._streams or self.capturing():  # what a graph reads is kept with the graph
            return
        self._streams.add(stream)
        for tensor in (
            self._upload.tensor,
            *self._shared.tensors,
            *(t for batch in self._batches for t in batch.tensors),
        ):
            tensor.record_stream(stream)

    def capturing(self) -> bool:
        return capturing(self._device)

    def _current(self) -> AbstractContextManager[Any]:
        return current(self._device)


def capturing(device: torch.device) -> bool:
    """Whether what is launched on a device now is being captured in a graph."""
    asks = getattr(torch.get_device_module(device), "is_current_stream_capturing", None)
    return bool(asks and asks())


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Launches go to the device that is current."""
    if device.type == "cpu":
        return nullcontext()
    module = torch.get_device_module(device)
    return nullcontext() if module.current_device() == device.index else module.device(device)
