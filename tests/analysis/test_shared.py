"""Processes share the data, and each has the whole result."""

import torch

from hf_winopt.analysis import hessian_spectrum
from tests.analysis.problems import classifier, cross_entropy
from tests.distributed.processes import together


def shared(folder):
    net, batches = classifier(torch.float64, (4, 6, 3))
    seen = []

    def loss(model, batch):
        seen.append(len(batch[1]))
        return cross_entropy(model, batch)

    spectrum = hessian_spectrum(net, batches, loss, probes=2, steps=8, held=0, progress=False)
    rank = torch.distributed.get_rank()
    assert set(seen) == ({32, 26} if rank == 0 else {32})  # the first and third batch, or the second
    torch.save(spectrum, f"{folder}/{rank}.pt")


def test_two_processes_see_what_one_sees(tmp_path):
    together(2, shared, tmp_path, str(tmp_path))
    net, batches = classifier(torch.float64, (4, 6, 3))
    alone = hessian_spectrum(net, batches, cross_entropy, probes=2, steps=8, progress=False)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    assert torch.equal(first.eigenvalues, second.eigenvalues)
    torch.testing.assert_close(first.eigenvalues, alone.eigenvalues, rtol=1e-8, atol=1e-12)
    assert first.examples == alone.examples == 90
