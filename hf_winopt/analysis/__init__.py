"""What the AdamW paper explains generalization with: the Hessian's spectrum, and the term of its bound.

"Towards Understanding Convergence and Generalization of AdamW" (2024). `hessian_spectrum` takes any model, loader and
loss that can be differentiated twice; `hf-winopt hessian` is the same for a model of the Hub and a data set.
"""

from .generalization import GeneralizationTerm, generalization_term
from .hessian import hessian_spectrum
from .memory import keep_freed_memory
from .spectrum import Spectrum

__all__ = ["GeneralizationTerm", "Spectrum", "generalization_term", "hessian_spectrum", "keep_freed_memory"]
