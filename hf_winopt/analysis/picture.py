"""A picture of a spectrum."""

from __future__ import annotations

from pathlib import Path

import torch

from hf_winopt.drawing import colour, picture

from .spectrum import Spectrum


def draw_spectrum(spectrum: Spectrum, path: Path, title: str) -> None:
    """The density over the eigenvalues, by the logarithm since nearly all are next to 0, and the largest marked."""
    low, high = spectrum.eigenvalues[0].item(), spectrum.eigenvalues[-1].item()
    span = max(high - low, 10 * spectrum.resolution, 1e-30)
    points = torch.linspace(low - 0.05 * span, high + 0.05 * span, 2000, dtype=torch.float64)
    density = spectrum.density(points, span / 200).clamp_min(0.1 / spectrum.dim / span)
    with picture(path, title, (8, 4)) as figure:
        axes = figure.subplots()
        axes.semilogy(points, density, color=colour(0), label="density")
        axes.plot(
            spectrum.top_eigenvalues, [density.min()] * len(spectrum.top_eigenvalues), "|", color=colour(1),
            markersize=14, label="largest eigenvalues",
        )  # fmt: skip
        axes.set_xlabel("eigenvalue of the loss Hessian")
        axes.set_ylabel("density")
        axes.legend()
