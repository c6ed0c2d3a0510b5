"""Muon and AdamW as one optimizer of a model: each does what it does alone, and together they are one."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from hf_winopt import AdamW, Win, create_optimizer
from hf_winopt.optim import Parts

NAMES = pytest.mark.parametrize("name", ["muon", "muon_win"])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 16)
        self.first, self.second, self.norm = nn.Linear(16, 24), nn.Linear(24, 16), nn.LayerNorm(16)
        self.lm_head = nn.Linear(16, 20)

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.lm_head(self.norm(x + self.second(torch.relu(self.first(x)))))


TOKENS = torch.arange(20).repeat(2, 1)


def loss_of(net):
    return nn.functional.cross_entropy(net(TOKENS).flatten(0, 1), TOKENS.roll(1).flatten())


def train(net, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        optimizer.step()
    return loss.item()


def made(name, net, **options):
    return create_optimizer(name, net.parameters(), model=net, **{"lr": 1e-2, **options})


@NAMES
def test_each_part_does_what_it_does_alone(name):
    net, alone = Net(), Net()
    optimizer = made(name, net, weight_decay=0.1)
    matrices = [alone.first.weight, alone.second.weight]
    rest = [p for p in alone.parameters() if all(p is not matrix for matrix in matrices)]
    by_muon = torch.optim.Muon(matrices, 1e-2, 0.1, 0.95, adjust_lr_fn="match_rms_adamw")
    acceleration = "win" if name == "muon_win" else "none"
    parts = [
        by_muon if acceleration == "none" else Win(by_muon),
        AdamW(rest, 1e-2, weight_decay=0.1, acceleration=acceleration),
    ]
    for _ in range(5):
        train(net, optimizer, 1)
        alone.zero_grad()
        loss_of(alone).backward()
        for part in parts:
            part.step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), alone.parameters()))


@NAMES
def test_learns_and_is_one_optimizer(name):
    net = Net()
    optimizer = made(name, net)
    assert isinstance(optimizer, torch.optim.Optimizer)
    schedule = LambdaLR(optimizer, lambda t: 1 / (t + 1))
    before = loss_of(net).item()
    assert train(net, optimizer, 1) == before
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3, 5e-3]
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    assert train(net, optimizer, 30) < 0.5 * before
    assert set(optimizer.state) == set(net.parameters())
    assert len(optimizer.state) == len(list(net.parameters()))


def test_groups_are_split_as_trainer_makes_them_and_say_whose_they_are():
    net = Net()
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
    optimizer = create_optimizer("muon", groups, lr=1e-2, model=net)
    assert [(group["part"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [
        ("muon", 0.3, 2),
        ("adamw", 0.3, 2),
        ("adamw", 0.0, 5),
    ]


def test_the_split_is_printed_once(capsys):
    optimizer = made("muon", Net())
    train(optimizer and Net(), optimizer, 1)
    assert capsys.readouterr().out.count("muon: 2 tensors") == 1


def check_same(mine, yours):
    torch.testing.assert_close(mine["state"], yours["state"], rtol=0, atol=0)
    assert mine["param_groups"] == yours["param_groups"]


def as_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@NAMES
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "file"])
def test_goes_on_to_the_same_bits(how, name):
    net = Net()
    optimizer = made(name, net)
    train(net, optimizer, 4)
    if how == "file":
        other = copy.deepcopy(net)
        again = made(name, other, lr=0.5)
        again.load_state_dict(as_file(optimizer.state_dict()))
    else:
        both = {"net": net, "optimizer": optimizer}
        copied = copy.deepcopy(both) if how == "deepcopy" else pickle.loads(pickle.dumps(both))
        other, again = copied["net"], copied["optimizer"]
    train(net, optimizer, 4)
    train(other, again, 4)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters()))
    assert [group["lr"] for group in again.param_groups] == [1e-2, 1e-2]
    check_same(again.state_dict(), optimizer.state_dict())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d["param_groups"].pop(), "groups of the parts"),
        (lambda d: d["param_groups"][0].pop("part"), "groups of the parts"),
        (lambda d: d["state"][2].update(exp_avg=torch.zeros(1)), "exp_avg of parameter"),
        (lambda d: d.pop("state"), "must have 'state'"),
    ],
)
def test_a_malformed_state_dict_leaves_all_parts_as_they_were(spoil, message):
    net = Net()
    optimizer = made("muon_win", net)
    train(net, optimizer, 2)
    before = copy.deepcopy(optimizer.state_dict())
    spoiled = copy.deepcopy(before)
    spoil(spoiled)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(spoiled)
    check_same(optimizer.state_dict(), before)
    train(net, optimizer, 1)


def test_a_checkpoint_of_another_split_is_refused():
    net = Net()
    optimizer = made("muon", net, muon_exclude="second")
    train(net, optimizer, 1)
    other = made("muon", net, muon_exclude="first", muon_include="second")
    with pytest.raises(ValueError, match="must be of the same split; its group of muon has other parameters"):
        other.load_state_dict(optimizer.state_dict())


def test_hooks_run_once_and_state_can_be_cleared():
    net, called = Net(), []
    Parts({"all": torch.optim.SGD(Net().parameters())})
    optimizer = made("muon", net)
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    train(net, optimizer, 1)
    assert called == ["before"]
    assert optimizer.state.get(torch.zeros(1)) is None
    optimizer.state = {}
    assert len(optimizer.state) == 0
    assert optimizer.state.get(net.first.weight) is None
    train(net, optimizer, 1)


def test_what_is_printed_is_of_the_parameters_given(capsys):
    net = Net()
    create_optimizer("muon", net.first.parameters(), lr=1e-2, model=net)
    assert capsys.readouterr().out.startswith("muon: 1 tensors, 0.00 M parameters: first.weight\n")


def test_a_group_is_added_to_the_part_that_it_names():
    net, more = Net(), nn.Linear(16, 4)
    optimizer = made("muon", net)
    optimizer.add_param_group({"params": [more.bias], "part": "adamw", "lr": 0.5})
    assert [group["part"] for group in optimizer.param_groups] == ["muon", "adamw", "adamw"]
    with pytest.raises(ValueError, match=r"part is one of \['muon', 'adamw'\]; got 'None'"):
        optimizer.add_param_group({"params": [more.weight]})
    train(net, optimizer, 1)
    again = Parts(optimizer.parts)
    assert len(again.param_groups) == 3


@pytest.mark.parametrize("spoiled", [False, True])
def test_grad_scaler(spoiled):
    net = Net()
    optimizer, scaler = made("muon_win", net), torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(loss_of(net)).backward()
    if spoiled:
        net.first.weight.grad[0, 0] = torch.inf
    before = copy.deepcopy(net.state_dict())
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, before[name]) == spoiled for name, p in net.named_parameters() if p.grad.any())


def test_what_is_wrong_is_named(monkeypatch):
    net = Net()
    with pytest.raises(ValueError, match="model must be a module"):
        create_optimizer("muon", net.parameters(), lr=1e-2)
    with pytest.raises(ValueError, match="params must be parameters of the model; group 0 has one of shape"):
        create_optimizer("muon", nn.Linear(3, 4).parameters(), lr=1e-2, model=net)
    with pytest.raises(ValueError, match="muon must have matrices of hidden layers"):
        create_optimizer("muon", net.parameters(), lr=1e-2, model=net, muon_exclude="first|second")
    with pytest.raises(ValueError, match="params must have parameters"):
        create_optimizer("muon", [], lr=1e-2, model=net)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(RuntimeError, match=r"of torch 2\.9 or later"):
        made("muon", net)


def test_flat_pieces_are_refused():
    net = Net()
    optimizer = made("muon", net)
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(torch.zeros(7))]
    with pytest.raises(
        ValueError, match=r"muon orthogonalizes whole matrices, and was given flat pieces.*FSDP2 or DDP; one is"
    ):
        optimizer.step()
