"""A long life of an optimizer: saved, copied, regrouped and misused between its steps, it trains as one left alone."""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch.nn import Parameter

from hf_winopt import create_optimizer
from hf_winopt.optim import RuleOptimizer
from tests.fuzz.options import NAMES, bad, chosen, free, sane
from tests.fuzz.states import REFUSED
from tests.fuzz.tally import count
from tests.fuzz.training import all_finite, gradient, same, snapshot

SHAPES = st.sampled_from([(3, 4), (5,), (), (0,), (2, 3, 2)])
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


class Life(RuleBasedStateMachine):
    """Steps and options come to both optimizers, all else to the first alone."""

    optimizer: RuleOptimizer
    twin: RuleOptimizer

    @initialize(data=st.data(), name=NAMES, dtype=DTYPES)
    def born(self, data: st.DataObject, name: str, dtype: torch.dtype) -> None:
        self.name, self.dtype, self.t, self.refused = name, dtype, 0, 0
        options = data.draw(chosen(name))
        self.optimizer, self.twin = (create_optimizer(name, self._parameters((3, 2)), **options) for _ in range(2))

    def _parameters(self, shape: tuple[int, ...]) -> list[Parameter]:
        return [Parameter(gradient(torch.empty(shape, dtype=self.dtype), 1.0, 3))]

    def _both(self) -> tuple[RuleOptimizer, RuleOptimizer]:
        return self.optimizer, self.twin

    @staticmethod
    def _params(optimizer: RuleOptimizer) -> list[Parameter]:
        return [p for group in optimizer.param_groups for p in group["params"]]

    # what both meet with ---------------------------------------------------------------------------------------------

    @rule(scale=st.sampled_from([1e-3, 1.0, 100.0]), missing=st.sets(st.integers(0, 3), max_size=2))
    def step(self, scale: float, missing: set[int]) -> None:
        self.t += 1
        for optimizer in self._both():
            for i, p in enumerate(self._params(optimizer)):
                p.grad = None if i in missing else gradient(p, scale, 10 * self.t + i)
            optimizer.step()

    @rule(data=st.data())
    def change_an_option(self, data: st.DataObject) -> None:
        option = data.draw(st.sampled_from([each for each in free(self.name) if each not in ("backend", "nesterov")]))
        value = data.draw(sane(self.name, option))
        place = data.draw(st.integers(0, len(self.twin.param_groups) - 1))
        if option in ("momentum", "dampening") and self.twin.param_groups[place]["nesterov"]:
            return
        for optimizer in self._both():
            optimizer.param_groups[place][option] = value

    @rule(data=st.data(), shape=SHAPES)
    def add_a_group(self, data: st.DataObject, shape: tuple[int, ...]) -> None:
        if len(self.twin.param_groups) == 3:
            return
        options = data.draw(chosen(self.name, of_a_group=True))
        if {**self.twin.defaults, **options}.get("nesterov"):
            options |= {"momentum": 0.9, "dampening": 0.0}
        for optimizer in self._both():
            optimizer.add_param_group({"params": self._parameters(shape), **options})

    # what must make no difference ------------------------------------------------------------------------------------

    @rule(set_to_none=st.booleans())
    def zero_grad(self, set_to_none: bool) -> None:
        self.optimizer.zero_grad(set_to_none)

    @rule(saved=st.booleans())
    def load_its_own_state(self, saved: bool) -> None:
        state_dict: Any = self.optimizer.state_dict()
        if saved:
            buffer = io.BytesIO()
            torch.save(state_dict, buffer)
            buffer.seek(0)
            state_dict = torch.load(buffer, weights_only=True)
        self.optimizer.load_state_dict(state_dict)

    @rule()
    def move_to_another(self) -> None:
        """As a run goes on in another process: new parameters, a new optimizer, the state loaded."""
        groups = [{"params": [Parameter(p.detach().clone()) for p in group["params"]]} for group in
                  self.optimizer.param_groups]  # fmt: skip
        other = create_optimizer(self.name, groups)
        other.load_state_dict(self.optimizer.state_dict())
        other.defaults = self.optimizer.defaults
        self.optimizer = other

    @rule()
    def deepcopy(self) -> None:
        self.optimizer = copy.deepcopy(self.optimizer)

    @rule()
    def step_without_gradients(self) -> None:
        self.optimizer.zero_grad()
        self.optimizer.step()

    @rule(backend=st.sampled_from(["auto", "eager"]))
    def switch_the_backend(self, backend: str) -> None:
        self.optimizer.backend = backend

    @rule(data=st.data(), spoil=st.sampled_from(REFUSED))
    def load_what_is_malformed(self, data: st.DataObject, spoil: Any) -> None:
        good = copy.deepcopy(self.optimizer.state_dict())
        if any(not p.numel() for p in self._params(self.optimizer)) or len(good["state"]) == 0:
            return  # what is empty cannot be spoilt
        self._refused(self.optimizer.load_state_dict, spoil(data.draw, self.name, good))

    @rule(data=st.data())
    def add_a_bad_group(self, data: st.DataObject) -> None:
        option = data.draw(st.sampled_from([each for each in free(self.name) if each != "backend"]))
        group = {"params": self._parameters((2,)), option: data.draw(bad(self.name, option))}
        self._refused(self.optimizer.add_param_group, group)

    def _refused(self, call: Any, value: Any) -> None:
        before = snapshot(self.optimizer)
        try:
            call(value)
        except (ValueError, TypeError):
            self.refused += 1
            assert same(before, snapshot(self.optimizer))
        else:
            raise AssertionError("what is bad was taken")

    # what is true at all times ---------------------------------------------------------------------------------------

    @invariant()
    def it_is_as_its_twin(self) -> None:
        if not hasattr(self, "twin"):
            return
        one, other = ([p.detach() for p in self._params(optimizer)] for optimizer in self._both())
        assert same(one, other)
        states = ([dict(optimizer.state.get(p, {})) for p in self._params(optimizer)] for optimizer in self._both())
        assert same(*states)
        assert all_finite(self.optimizer)

    def teardown(self) -> None:
        if hasattr(self, "twin"):
            count("test_a_long_life", "trained")


Life.TestCase.settings = settings(stateful_step_count=12)
TestALongLife = Life.TestCase
