"""How parameters of all sizes, types and layouts are walked: with the same results as by the eager engine."""

from __future__ import annotations

import warnings

import pytest
import torch

from hf_winopt import create_optimizer
from hf_winopt.engine.triton import kernels, table
from hf_winopt.engine.triton.batch import Batch, Entry, Sent
from hf_winopt.optim.restated import values
from hf_winopt.rules import Rule
from tests.problems import kept

PASSES = {  # the kinds of passes over memory: one; a sum before it; two; all of them
    "adamw_win": {},
    "adan_agr": {"weight_decay": 0.1},
    "lamb_win": {"weight_decay": 0.1},
    "adal_win2": {"weight_decay": 0.1, "max_grad_norm": 1.0},
}
ULP = {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


def gradient(tensor, t):
    """A gradient of the tensor's layout."""
    generator = torch.Generator().manual_seed(t)
    return torch.empty_like(tensor).copy_(torch.randn(tensor.shape, generator=generator))


def stepped(make, tensors, steps=3):
    """Copies of `tensors`, and the optimizer that has stepped them."""
    params = [torch.nn.Parameter(tensor.clone()) for tensor in tensors]
    optimizer = make(params)
    for t in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * t
        for p in params:
            p.grad = gradient(p, t)
        optimizer.step()
    return params, optimizer


def assert_near(ours, theirs, tolerance):
    assert ours.dtype == theirs.dtype
    largest = theirs.abs().max().item() if theirs.numel() else 0.0
    torch.testing.assert_close(ours.cpu(), theirs.cpu(), rtol=tolerance, atol=tolerance * largest)


def assert_as_eager(name, tensors, steps=3, **options):
    (ours, optimizer), (theirs, eager) = (
        stepped(lambda params, b=backend: create_optimizer(name, params, backend=b, **options), tensors, steps)
        for backend in ("triton", "eager")
    )
    assert optimizer._ready is not None
    for a, b in zip(ours, theirs):
        assert_near(a.detach(), b.detach(), ULP[a.dtype])
        for key in eager.state[b]:
            mine, their = values(optimizer.state[a], key), values(eager.state[b], key)
            if key.endswith("gap") or key == "rounding":  # a distance is as exact as what it lies between
                mine, their = a.detach() - mine, b.detach() - their
            assert_near(mine, their, 2e-6)


@pytest.fixture
def short_lengths(device, monkeypatch):
    """Chunks and spans of fewer blocks in the interpreter, to which every block is as dear as a launch."""
    if device.type == "cpu":
        monkeypatch.setattr(table, "CHUNK", 2 * table.BLOCK)
        monkeypatch.setattr(table, "SPAN", 4 * table.BLOCK)


@pytest.mark.usefixtures("short_lengths")
@pytest.mark.parametrize("many", [1024, 2], ids=["few spans", "many spans"])
@pytest.mark.parametrize("dtype", ULP, ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_odd_sizes_and_types(name, dtype, many, device, monkeypatch):
    """One element, none, just below, at and above the ends of blocks, chunks and spans.

    Of many spans the partial sums are added up once; of few, by every program that needs the whole.
    """
    monkeypatch.setattr(table, "MANY", many)
    sizes = (1, 0, 1023, 1025, table.CHUNK, table.CHUNK + 1, table.SPAN - 1, 2 * table.SPAN + 17)
    # a 16-bit parameter may round otherwise when it moves, at step 2; AdaL's l2 decay would carry that into later state
    steps = 2 if name.startswith("adal") and dtype != torch.float32 else 3
    assert_as_eager(name, [torch.randn(1, size).to(device, dtype) for size in sizes], steps, **PASSES[name])


def test_types_beside_each_other(device):
    tensors = [torch.randn(40, 30).to(device, dtype) for dtype in (*ULP, *ULP)]
    assert_as_eager("lamb_win", tensors, weight_decay=0.1, max_grad_norm=0.1)


@pytest.mark.parametrize(
    "lay_out",
    [lambda t: t.t(), lambda t: t.view(5, 4, 3, 2).to(memory_format=torch.channels_last)],
    ids=["transposed", "channels_last"],
)
def test_layouts(lay_out, device):
    tensors = [lay_out(torch.randn(10, 12).to(device)) for _ in range(2)]
    assert_as_eager("adamw_win2_agr", tensors)


def test_addresses_that_are_no_multiple_of_16(device):
    """They are read four bytes at a time; said to be multiples they would be read wrongly.

    That is seen on a GPU, and where its code is executed (tests/ptx). Whole chunks are read wide, others are not.
    """
    for misplaced in ("z", "g", "state"):
        p = torch.nn.Parameter(torch.randn(8300).to(device)[1 if misplaced == "z" else 0 :][:8200])
        g = torch.randn(8300).to(device)[1 if misplaced == "g" else 0 :][:8200]
        optimizer = create_optimizer("sgd_win", [p], backend="triton", lr=0.1)
        p.grad = g
        optimizer.step()
        if misplaced == "state":
            optimizer.state[p]["x_gap"] = torch.cat([torch.zeros(1).to(device), optimizer.state[p]["x_gap"]])[1:]
        before, m, x = (
            p.detach().clone(),
            optimizer.state[p]["momentum_buffer"].clone(),
            kept(optimizer, p, "x"),
        )
        optimizer.step()
        m = 0.9 * m + g
        x = x - 0.1 * m
        torch.testing.assert_close(kept(optimizer, p, "x"), x)
        torch.testing.assert_close(p.detach(), (before - 0.2 * m + 2 * x) / 3)


def test_elements_beyond_two_to_the_31(device):
    """A chunk far behind the start of its parameter, of which only that chunk exists."""
    count, start = 100, 2**31 // table.CHUNK * table.CHUNK + table.CHUNK
    z, g, m = (torch.randn(count).to(device) for _ in range(3))
    expected = z - 0.1 * (0.9 * m + g)
    rule = Rule(moments="momentum", decay="proximal")
    state = {"step": torch.ones(()).to(device), "momentum_buffer": m}
    batch = Batch([Entry(rule, z, g.dtype, state, 0)], 0)
    back = 4 * start
    z_at, state_at, numel = 0, 8, 2
    batch.table[0, z_at] -= back
    batch.table[0, state_at] -= back
    batch.table[0, numel] += start
    batch.chunks = table.pieces([start + count], table.CHUNK)[-1:].to(device)
    group = {
        "lr": 0.1,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "reckless_steps": (2, 8),
        "max_grad_norm": 0,
        "maximize": False,
    }
    upload = torch.frombuffer(table.upload([g.data_ptr() - back], [table.hyper_row(group, 0.1, 0)]), dtype=torch.int64)
    list(batch.stages(Sent(upload.to(device), hyper_at=1), aligned=False, decays=False))
    torch.testing.assert_close(z, expected)


def test_chunks():
    pieces = table.pieces([5, 0, 2**33 + 1], table.CHUNK)
    assert (pieces >> 32).tolist() == [0] + [2] * (2**33 // table.CHUNK + 1)
    assert (pieces & 0xFFFFFFFF)[-1] == 2**33 // table.CHUNK


@pytest.fixture
def launches(monkeypatch):
    """The names and grids of the kernels that are launched, in order."""
    found = []

    class Counted:
        def __init__(self, name, kernel):
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid):
            found.append((self.name, *grid))
            return self.kernel[grid]

    from hf_winopt.engine.triton import batch

    for name in ("squares", "abs_sums", "add_up", "step"):
        monkeypatch.setattr(kernels, name, Counted(name, getattr(kernels, name)))
    monkeypatch.setattr(batch, "coefficients", Counted("coefficients", batch.coefficients))
    return found


def test_partial_sums_are_added_up_once_where_they_are_many(device, launches, monkeypatch):
    """Otherwise every program of a huge parameter would add up as many numbers as there are programs."""
    params = [
        torch.nn.Parameter(torch.randn(3 * table.CHUNK).to(device)),
        torch.nn.Parameter(torch.randn(5).to(device)),
    ]
    steps = {"adamw_win": ["coefficients", "step"], "adal": ["coefficients", "abs_sums", "add_up", "step"],
             "lamb": ["coefficients", "step", "add_up", "step"]}  # fmt: skip
    for many in (3, 2):
        monkeypatch.setattr(table, "MANY", many)
        monkeypatch.setattr(table, "SPAN", table.CHUNK)
        for name, kinds in steps.items():
            for clip in (0.0, 1.0):
                optimizer = create_optimizer(name, params, weight_decay=0.1, max_grad_norm=clip, backend="triton")
                for p in params:
                    p.grad = torch.ones_like(p)
                launches.clear()
                optimizer.step()
                norm = ["squares", "add_up"] if clip else []
                expected = [kind for kind in (*norm, *kinds) if many == 2 or kind != "add_up"]
                if clip and many == 3:  # four spans of two parameters
                    expected = [*norm, *(kind for kind in kinds if kind != "add_up")]
                assert [kind for kind, *_ in launches] == expected
                assert all(grid[0] == 2 for kind, *grid in launches if kind == "add_up")


def test_small_models_are_cut_finely_enough_for_all_of_a_gpu():
    assert table.span(1_000_000) == table.CHUNK and 1_000_000 // table.CHUNK > 2 * 108
    assert table.span(table.MANY * table.SPAN - 1) == table.CHUNK
    assert table.span(table.MANY * table.SPAN) == table.SPAN


def test_many_parameters_are_one_launch(device, launches):
    for name, expected in (("adamw_win", 2), ("lamb_win", 3), ("adan_win_agr", 3)):
        params = [torch.nn.Parameter(torch.randn(3 + i, 2).to(device)) for i in range(60)]
        groups = [
            {"params": params[:40], "weight_decay": 0.1},
            {"params": params[40:], "weight_decay": 0.0, "lr": 1e-2},
        ]
        optimizer = create_optimizer(name, groups, backend="triton")
        for p in params:
            p.grad = torch.randn_like(p)
        launches.clear()
        optimizer.step()
        assert len(launches) == expected, name


@pytest.mark.parametrize("name", PASSES)
def test_the_same_inputs_give_the_same_bits(name, device):
    tensors = [torch.randn(150, 200).to(device), torch.randn(7).to(device)]
    runs = []
    for _ in range(3):
        params, optimizer = stepped(lambda p: create_optimizer(name, p, backend="triton", **PASSES[name]), tensors, 2)
        runs.append([*params, *(t for state in optimizer.state.values() for t in state.values())])
    for again in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], again))


@pytest.mark.parametrize("name", ["adamw_win", "adan_win2", "lamb_win2", "sgd_win2"])
def test_a_rate_of_zero_changes_no_bit_of_the_sequences(name, device):
    params = [torch.nn.Parameter(torch.randn(50, 3).to(device))]
    optimizer = create_optimizer(name, params, lr=0.0, weight_decay=0.1, backend="triton")
    before = params[0].detach().clone()
    for t in range(3):
        params[0].grad = gradient(params[0], t)
        optimizer.step()
    assert torch.equal(params[0], before)
    assert not any(optimizer.state[params[0]][gap].any() for gap in ("x_gap", "y_gap")[: 1 + name.endswith("2")])


def test_a_parameter_with_gaps_is_stepped_by_the_eager_engine_and_said_so_once(device):
    p, q = (torch.nn.Parameter(torch.ones(6, 4).to(device)[:, ::2]), torch.nn.Parameter(torch.ones(6, 2).to(device)))
    optimizer = create_optimizer("adamw_win", [p, q], backend="triton", lr=0.1, max_grad_norm=0.5)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            p.grad, q.grad = torch.ones(6, 2).to(device), torch.ones(6, 2).to(device)
            optimizer.step()
    (warning,) = [w for w in told if "slower eager engine" in str(w.message)]
    assert "gaps or overlaps" in str(warning.message)
    torch.testing.assert_close(p.detach(), q.detach())
    assert optimizer.grad_norm.item() == pytest.approx(24**0.5)


def test_without_a_gpu_the_eager_engine_steps_and_says_why(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = create_optimizer("adamw_win", [p], backend="triton")
    p.grad = torch.ones(3)
    with pytest.warns(UserWarning, match="Triton needs a GPU, and a parameter is on cpu"):
        optimizer.step()
    assert optimizer.state[p]["step"].item() == 1


def test_an_infinite_gradient_that_agr_leaves_alone_stays_infinite(device):
    p = torch.nn.Parameter(torch.ones(9, device=device))
    p.grad = torch.ones_like(p)
    p.grad[3] = torch.inf
    optimizer = create_optimizer("adamw_win_agr", [p], backend="triton")
    optimizer.step()
    assert optimizer.state[p]["exp_avg"].isinf().nonzero().tolist() == [[3]]
    assert not optimizer.state[p]["exp_avg"].isnan().any()
