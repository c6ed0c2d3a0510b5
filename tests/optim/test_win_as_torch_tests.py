"""What torch's tests ask of every optimizer of its own, asked of Win around two of them, as far as those do it."""

from __future__ import annotations

import types

import pytest
import torch

from hf_winopt import Win
from tests.optim import test_as_torch_tests as asked

pytestmark = asked.pytestmark

LEFT_OUT = {
    "test_it_can_be_printed": "another text",
    "test_an_older_state_dict_lacks_newer_options": "options of ours",
    "test_a_deep_copy_has_all_that_is_public": "attributes of ours",
    "test_what_is_loaded_steps_as_what_was_saved": "torch's own share what they load with what it was loaded from",
    "test_a_state_dict_is_the_optimizers_own_and_what_was_loaded_is_not": "the same",
    "test_hooks_of_steps_run_in_order_everybodys_too": "everybody's hooks see the base's step, too",
    "test_parameters_may_come_in_many_ways": "torch's own take a parameter twice",
}


def around_adamw(params, lr=1e-3, weight_decay=0.01, backend="auto", max_grad_norm=0, **options):
    return Win(torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, **options), backend=backend)


def around_rmsprop(params, lr=1e-3, weight_decay=0.0, backend="auto", max_grad_norm=0, **options):
    return Win(torch.optim.RMSprop(params, lr=lr, weight_decay=weight_decay, **options), backend=backend)


def _asked_of_win(test):
    """The same test with other optimizers; all else that it is asked with stays."""
    mine = types.FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)
    others = [mark for mark in test.pytestmark if mark.args[0] != "cls"]
    mine.pytestmark = [*others, pytest.mark.parametrize("cls", [around_adamw, around_rmsprop]).mark]
    return mine


for _name, _test in vars(asked).items():
    if _name.startswith("test_") and _name not in LEFT_OUT:
        globals()[_name] = _asked_of_win(_test)


def test_nothing_is_left_out_that_is_not_there():
    assert all(hasattr(asked, name) for name in LEFT_OUT)
