"""The papers that the optimizers come from, by short names."""

from __future__ import annotations

from collections.abc import Iterable

PAPERS = {
    "Win": "Win: Weight-Decay-Integrated Nesterov Acceleration for Adaptive Gradient Algorithms (ICLR 2023)",
    "Win2": "Win: Weight-Decay-Integrated Nesterov Acceleration for Faster Network Training (JMLR 2024)",
    "Adan": "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models (2022)",
    "AGR": "An Adaptive Gradient Regularization Method (2024)",
    "AdaL": "AdaL: Adaptive Gradient Transformation Contributes to Convergences and Generalizations (2021)",
    "AdamW-D": "Towards Understanding Convergence and Generalization of AdamW (2024)",
    "Muon": "Muon: An optimizer for hidden layers in neural networks (2024)",
    "Lion": "Symbolic Discovery of Optimization Algorithms (2023)",
    "Adafactor": "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost (2018)",
    "8bit": "8-bit Optimizers via Block-wise Quantization (2021)",
    "RMSprop": "Neural Networks for Machine Learning, lecture 6e (2012)",
    "AdEMAMix": "The AdEMAMix Optimizer: Better, Faster, Older (2024)",
    "NAdam": "Incorporating Nesterov Momentum into Adam (ICLR Workshop 2016)",
    "LAMB": "Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes (ICLR 2020)",
}


def titles(sources: Iterable[str]) -> str:
    """The titles, in order."""
    return "; ".join(PAPERS[source] for source in sources)
