"""Rules with sums over whole parameters that lie in shards: in stages, the sums of all completed between them.

The stages are those of the eager engine, over the shards that are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap

import torch
from torch import Tensor

from ..rules import Rule, trust_ratio
from .eager import advance_for_norms, finish_segment
from .norms import abs_sums, needs_sum, spread, widest
from .shards import complete
from .work import Segment, Work, segments


def takes(rule: Rule, work: Work) -> bool:
    """Whether a parameter lies in shards, and a sum over the whole of it is yet to be found."""
    return work.sharing is not None and (rule.trust_ratio or needs_sum(rule, work.c))


def step(works: Mapping[Rule, list[Work]]) -> None:
    """Step parameters of any rules; all processes that share them step them at once, in the same order."""
    mine = [(rule, segment) for rule, of_rule in works.items() for segment in segments(rule, of_rule)]
    order = [(rule, work) for rule, of_rule in works.items() for work in of_rule]

    sums = _Sums([work for rule, work in order if needs_sum(rule, work.c)])
    summed = [segment for rule, segment in mine if needs_sum(rule, segment.c)]
    sums.find(summed, map(abs_sums, summed))
    for segment in summed:
        segment.c = {**segment.c, "abs_sum": spread(sums.of(segment), segment)}

    norms = _Sums([work for rule, work in order if rule.trust_ratio], 2)
    scaled = [(rule, segment) for rule, segment in mine if rule.trust_ratio]
    norms.find([segment for _, segment in scaled], starmap(advance_for_norms, scaled))
    for _, segment in scaled:
        w, r = norms.of(segment).sqrt().unbind(1)
        segment.c = {**segment.c, "ratio": spread(trust_ratio(w, r), segment)}

    for rule, segment in mine:
        finish_segment(rule, segment)


class _Sums:
    """Numbers of whole parameters, a row each in the order that all processes have in common.

    Args:
        works: the parameters; also a process whose shard of one is empty takes part in its sum.
        shape: of the numbers of one.
    """

    def __init__(self, works: list[Work], *shape: int) -> None:
        self._works, self._shape = works, shape
        self._place = {id(work): i for i, work in enumerate(works)}

    def find(self, mine: Sequence[Segment], found: Iterable[Tensor]) -> None:
        """Take what was found over the shards of each segment, and complete it."""
        if not self._works:
            return
        device = self._works[0].z.device
        self._rows = torch.zeros(len(self._works), *self._shape, dtype=widest(device), device=device)
        for segment, numbers in zip(mine, found):
            self._rows[self._places(segment)] = numbers.to(self._rows)
        self._rows = complete(self._rows, [work.sharing for work in self._works])

    def of(self, segment: Segment) -> Tensor:
        """The completed numbers of the parameters in a segment."""
        return self._rows[self._places(segment)].to(segment.z.device)

    def _places(self, segment: Segment) -> Tensor:
        places = torch.tensor([self._place[id(work)] for work in segment.works], device="cpu")
        return places.to(self._rows.device, non_blocking=True)
