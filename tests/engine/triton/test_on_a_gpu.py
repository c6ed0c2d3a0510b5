"""What only a real device can show: graphs, synchronization, launches, AMP, very large tensors."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import SGD, create_optimizer

from .conftest import GPU

pytestmark = pytest.mark.skipif(not GPU, reason="needs a CUDA device")

FEW = {
    "adamw_win": {},
    "adan_win_agr": {"weight_decay": 0.1, "agr_steps": 4},
    "lamb_win2": {"weight_decay": 0.1, "max_grad_norm": 0.5},
    "sgd_win": {},
    "adal": {"max_grad_norm": 1.0},
    "adan": {"skip_nonfinite": True},
}


def make(name, lr=1e-2, backend="triton", dtype=torch.float32, **options):
    torch.manual_seed(4)
    params = [torch.nn.Parameter(torch.randn(shape, dtype=dtype).cuda()) for shape in ((33, 65), (7,), (4096,))]
    return params, create_optimizer(name, params, lr=lr, backend=backend, **options)


def new_gradients(params, t):
    """In the memory of the gradients that are there already, as a captured step needs it."""
    for i, p in enumerate(params):
        g = torch.randn(p.shape, generator=torch.Generator().manual_seed(97 * t + i)).to(p)
        if p.grad is None:
            p.grad = g
        else:
            p.grad.copy_(g)


@pytest.mark.parametrize("name", FEW)
def test_a_captured_step_replays_with_another_rate(name):
    rate = torch.tensor(1e-2, device="cuda")
    ours, optimizer = make(name, rate, **FEW[name])
    theirs, eager = make(name, backend="eager", **FEW[name])
    new_gradients(ours, 0)
    new_gradients(theirs, 0)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    eager.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for t in range(1, 8):
        rate.fill_(1e-2 / t)
        eager.param_groups[0]["lr"] = 1e-2 / t
        for params in (ours, theirs):
            new_gradients(params, t)
        graph.replay()
        eager.step()
        if optimizer.grad_norm is not None:
            torch.testing.assert_close(optimizer.grad_norm, eager.grad_norm, rtol=1e-6, atol=0)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert optimizer.state[a]["step"].item() == 8
    rate.fill_(1e-3)
    eager.param_groups[0]["lr"] = 1e-3
    for one, params in ((optimizer, ours), (eager, theirs)):  # and on without the graph
        new_gradients(params, 9)
        one.step()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_graph_still_replays_after_steps_without_it():
    ours, optimizer = make("adamw_win")
    theirs, eager = make("adamw_win", backend="eager")
    for params in (ours, theirs):
        new_gradients(params, 0)
    optimizer.step()
    eager.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for t in range(1, 4):
        new_gradients(ours, t)
        new_gradients(theirs, t)
        graph.replay()
        eager.step()
        for p, q in zip(ours, theirs):
            q.grad = torch.ones_like(q)
            kept, p.grad = p.grad, torch.ones_like(p)
            p.kept = kept
        optimizer.step()
        eager.step()
        for p in ours:
            p.grad = p.kept
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_graph_leaves_out_what_is_not_finite():
    ours, optimizer = make("adamw_win", skip_nonfinite=True)
    theirs, eager = make("adamw_win", backend="eager", skip_nonfinite=True)
    for params, one in ((ours, optimizer), (theirs, eager)):
        new_gradients(params, 0)
        one.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for t in range(1, 5):
        for params in (ours, theirs):
            new_gradients(params, t)
            if t in (2, 3):
                params[1].grad[3] = float("inf")
        graph.replay()
        eager.step()
        assert optimizer.step_was_skipped is eager.step_was_skipped is (t in (2, 3))
    assert optimizer.skipped_steps == eager.skipped_steps == 2
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert optimizer.state[a]["step"].item() == 3


def test_a_norm_of_no_gradients_is_beside_the_parameters():
    params, optimizer = make("adamw_win", backend="eager", skip_nonfinite=True)
    optimizer.step()
    assert optimizer.grad_norm.device == params[0].device and optimizer.grad_norm.item() == 0
    assert not optimizer.step_was_skipped


def test_a_first_step_cannot_be_captured_and_says_why():
    params, optimizer = make("adamw_win")
    new_gradients(params, 0)
    with pytest.raises(RuntimeError, match="cannot be captured"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()


@pytest.mark.parametrize("name", FEW)
def test_a_step_waits_for_nothing(name):
    params, optimizer = make(name, **FEW[name])
    new_gradients(params, 0)
    optimizer.step()
    optimizer.grad_scale = torch.full((), 4.0, device="cuda")
    optimizer.found_inf = torch.zeros(1, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for t in range(3):
            optimizer.param_groups[0]["lr"] = 1e-3 * t
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("name", "launches"), [("adamw_win", 2), ("adan", 2), ("lamb_win", 3), ("adan_agr", 3)])
def test_launches(name, launches):
    params = [torch.nn.Parameter(torch.randn(100 + i, 20, device="cuda")) for i in range(200)]
    optimizer = create_optimizer(name, params, weight_decay=0.1)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        optimizer.step()
        torch.cuda.synchronize()
    kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA and "Mem" not in e.name]
    kernels = [e for e in kernels if not getattr(e, "is_user_annotation", False)]
    assert len(kernels) == launches, [e.name for e in kernels]


@pytest.mark.parametrize("backend", ["triton", "eager"])
def test_a_grad_scaler_with_overflows(backend):
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    params, optimizer = make("adan_win", backend=backend)
    theirs, plain = make("adan_win", backend="eager")
    for t in range(6):
        factors = [torch.randn(p.shape, generator=torch.Generator().manual_seed(t)).cuda() for p in params]
        optimizer.zero_grad()
        scaler.scale(sum((p * f).sum() for p, f in zip(params, factors))).backward()
        if t in (0, 3):
            params[0].grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        if t not in (0, 3):
            for p, f in zip(theirs, factors):
                p.grad = f
            plain.step()
    for a, b in zip(params, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert optimizer.state[a]["step"].item() == 4


@pytest.fixture
def _fresh_accelerate():
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.usefixtures("_fresh_accelerate")
def test_accelerate_in_fp16_with_overflows():
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="fp16")
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 1))
    optimizer = create_optimizer("adamw_win", model.parameters(), lr=1e-2, max_grad_norm=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (t + 1))
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    scale = accelerator.scaler.get_scale()
    reported = []
    for t in range(6):
        x = torch.randn(8, 16, device="cuda")
        accelerator.backward(model(x).float().square().mean())
        before = model[0].weight.detach().clone()
        if t in (2, 4):
            model[0].weight.grad[0, 0] = float("inf")
        optimizer.step()
        scheduler.step()
        reported.append(accelerator.optimizer_step_was_skipped)
        assert torch.equal(before, model[0].weight) is reported[-1]
        optimizer.zero_grad()
    assert reported == [False, False, True, False, True, False]
    assert scheduler.scheduler.last_epoch == 4
    assert accelerator.scaler.get_scale() == scale / 4


def test_parameters_on_a_gpu_and_on_the_cpu_in_one_optimizer():
    torch.manual_seed(6)
    values = [torch.randn(40, 3), torch.randn(5)]
    mixed = [torch.nn.Parameter(values[0].cuda()), torch.nn.Parameter(values[1].clone())]
    plain = [torch.nn.Parameter(value.clone()) for value in values]
    pairs = [(params, create_optimizer("adamw_win", params, lr=0.1, max_grad_norm=0.5)) for params in (mixed, plain)]
    for t in range(3):
        for params, optimizer in pairs:
            for i, p in enumerate(params):
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(2 * t + i)).to(p)
            optimizer.step()
    for a, b in zip(mixed, plain):
        torch.testing.assert_close(a.cpu(), b)
    torch.testing.assert_close(pairs[0][1].grad_norm.cpu(), pairs[1][1].grad_norm, rtol=1e-6, atol=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_two_devices_in_one_optimizer():
    torch.manual_seed(6)
    values = [torch.randn(40, 3), torch.randn(5)]
    spread = [torch.nn.Parameter(value.to(f"cuda:{i}")) for i, value in enumerate(values)]
    plain = [torch.nn.Parameter(value.clone()) for value in values]
    for params in (spread, plain):
        optimizer = create_optimizer("lamb_win", params, lr=0.1, max_grad_norm=0.5, weight_decay=0.1)
        for t in range(3):
            for i, p in enumerate(params):
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(2 * t + i)).to(p)
            optimizer.step()
    for a, b in zip(spread, plain):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-5, atol=1e-6)


def test_a_tensor_of_more_than_two_to_the_31_elements():
    count = 2**31 + 4097
    if torch.cuda.mem_get_info()[0] < 12 * count:
        pytest.skip("needs 26 GB of memory")
    p = torch.nn.Parameter(torch.ones(count, dtype=torch.bfloat16, device="cuda"))
    p.grad = torch.zeros_like(p)
    p.grad[-5000:] = 1
    p.grad[0] = 1
    SGD([p], lr=0.5).step()
    assert p.data[-5000:].eq(0.5).all()
    assert p.data[0].item() == 0.5
    assert p.data[1 : count - 5000].eq(1).all()
