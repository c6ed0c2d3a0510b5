"""The spectrum of a model's loss Hessian."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .one_batch import Loss
from .products import HessianProduct
from .quadrature import observe
from .spectrum import Spectrum


def hessian_spectrum(
    model: nn.Module,
    dataloader: Iterable[Any],
    loss: Loss,
    *,
    probes: int = 10,
    steps: int = 80,
    top: int = 10,
    seed: int = 0,
    storage: str | torch.device | None = None,
    held: int = 1,
    progress: bool = True,
) -> Spectrum:
    """The spectral density of the Hessian of the mean loss, by stochastic Lanczos quadrature.

    A product with the Hessian walks the data once, and takes about three times as long as a forward and backward pass
    of it. The first probe takes `steps` products, each other one at least half as many. Beside the model, and what a
    product works with, `steps` vectors of its size are held. Under `accelerate launch` the processes share the data,
    and all return the same.

    Args:
        model: float32 or float64; evaluated without dropout, and left as it was.
        dataloader: the batches, the same at every walk (no shuffling, no random augmentation).
        loss: `loss(model, batch)`, the mean over a batch's examples; differentiable twice.
        probes: random vectors to begin with; the quadrature's error falls with their root.
        steps: of Lanczos for each: how fine the density is resolved.
        top: how many of the largest eigenvalues are reported.
        seed: draws the probes; the same seed gives the same spectrum.
        storage: where the vectors of Lanczos are held; None is beside the model, "cpu" spares a GPU's memory.
        held: of so many batches (of each process) the graph is kept from product to product, which spares a third
            of the time for the memory of a training step of each.
        progress: show a bar.

    Raises:
        ValueError: an argument out of range, an empty loader, a model in half precision, a loss that is no finite
            scalar or has no second derivative.
    """
    for name, value in (("probes", probes), ("steps", steps), ("top", top)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1; got {value!r}")
    if not isinstance(held, int) or isinstance(held, bool) or held < 0:
        raise ValueError(f"held must be a whole number >= 0; got {held!r}")
    product = HessianProduct(model, dataloader, loss, held)
    place = product.device if storage is None else torch.device(storage)
    with tqdm(desc="Hessian", unit="ex", disable=not progress) as bar:
        seen = observe(lambda v: product(v, bar.update), _starts(product, probes, seed), product.dim, steps, place)
    form = {"top": top, "probes": probes, "steps": steps, "seed": seed}
    return Spectrum.of(seen, product.dim, product.examples, product.dtype, **form)


def _starts(product: HessianProduct, probes: int, seed: int) -> Iterator[Tensor]:
    """Drawn on the CPU: the same on every device and in every process."""
    for probe in range(probes):
        draw = torch.Generator().manual_seed(seed * 1_000_003 + probe)
        yield torch.randn(product.dim, generator=draw, dtype=product.dtype).to(product.device)
