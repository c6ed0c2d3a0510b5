"""A layer of Transformer-XL: attention by content and relative position, and a feed-forward part.

Symbols are those of the paper, Section 3.3: R relative positions, u and v the content and position biases, W_q, W_k,E,
W_k,R and W_v the projections. B sequences, Q tokens of the segment, M of the memory, K = M + Q.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_transfo_xl import TransfoXLConfig


class Dropout(nn.Dropout):
    """As PyTorch's, with 16 random bits an element on a CPU, where PyTorch draws 64 and spends a fifth of a step on it.

    So p is rounded to a multiple of 1 / 65536, and what is kept is scaled by that.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * 2**16)
        if not self.training or x.device.type != "cpu" or not 0 < dropped < 2**16:
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - dropped))


class RelativeAttention(nn.Module):
    """Attention whose scores are content and relative position, (a) to (d) of the paper's equation."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.n_head, self.d_head, self.dropatt = config.n_head, config.d_head, config.dropatt
        width = config.n_head * config.d_head
        self.q = nn.Linear(config.d_model, width, bias=False)
        self.kv = nn.Linear(config.d_model, 2 * width, bias=False)
        self.r = nn.Linear(config.d_model, width, bias=False)
        self.out = nn.Linear(width, config.d_model, bias=False)
        self.u = nn.Parameter(torch.zeros(config.n_head, config.d_head))
        self.v = nn.Parameter(torch.zeros(config.n_head, config.d_head))

    def forward(self, x: Tensor, context: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """From x [B, Q, d_model], the memory and x [B, K, d_model], positions [K, d_model] and a mask [Q, K].

        The mask is added to the scores: 0 where a token sees another, -inf where not.
        """
        q = self._heads(self.q(x))
        k, value = (self._heads(part) for part in self.kv(context).chunk(2, dim=-1))
        r = self.r(positions).view(-1, self.n_head, self.d_head).permute(1, 2, 0)  # [n_head, d_head, K]
        scale = self.d_head**-0.5
        distance = RelativeShift.apply(((q + self.v[:, None]) * scale) @ r) + mask  # (b) and (d)
        dropout = self.dropatt if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q + self.u[:, None], k, value, attn_mask=distance, dropout_p=dropout, scale=scale
        )
        return self.out(y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.n_head, self.d_head).transpose(1, 2)


class RelativeShift(torch.autograd.Function):
    """From scores by distance, [B, n_head, Q, K] with the largest distance first, to scores by the place of the key.

    Row i is moved left by Q - 1 - i; what enters at the right, of the row below, is seen by nobody and must be masked.
    A view: in place of a row's stride K it has K - 1. PyTorch's own gradient of such a view would count how often each
    element is seen; here it is once, but for what is masked.
    """

    @staticmethod
    def forward(scores: Tensor) -> Tensor:
        *_, q, k = scores.shape
        scores = scores.contiguous()
        return scores.as_strided(scores.shape, (*scores.stride()[:-2], k - 1, 1), scores.storage_offset() + q - 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        *batch, q, k = gradient.shape
        return F.pad(gradient.flatten(-2), (q, 0)).view(*batch, q, k + 1)[..., 1:]


class Layer(nn.Module):
    """Attention and a feed-forward part, each added to its input and normed after."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.attention = RelativeAttention(config)
        self.attention_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.up = nn.Linear(config.d_model, config.d_inner)
        self.down = nn.Linear(config.d_inner, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, context, positions, mask)))
        return self.norm(x + self.dropout(self.down(self.dropout(F.relu(self.up(x))))))
