"""`nn.MultiheadAttention` as four matrices: projections of queries, keys, values, and of what comes out.

Also inside `nn.TransformerEncoderLayer` and the other `nn.Transformer` modules, which the rewritten module
keeps from taking their fused path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.network.kinds.registry import STAYS, Slot


class _NoFusedPath:
    """Stands where torch's encoders look for a weight, so that they run their modules."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return NotImplemented


class OpenAttention(nn.Module):
    """Scaled dot-product attention of several heads (Vaswani et al. 2017, section 3.2), by plain products.

    Samples come first in the inputs of all four matrices, whatever `batch_first` is.

    Args:
        module: `nn.MultiheadAttention`, whose sizes and settings are taken.
    """

    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__()
        E, bias = module.embed_dim, module.in_proj_bias is not None
        self.embed_dim, self.num_heads, self.dropout = E, module.num_heads, module.dropout
        self.kdim, self.vdim, self.head_dim = module.kdim, module.vdim, module.head_dim
        self.batch_first, self.add_zero_attn = module.batch_first, module.add_zero_attn
        self._qkv_same_embed_dim = module._qkv_same_embed_dim
        self.q = nn.Linear(E, E, bias=bias)
        self.k = nn.Linear(module.kdim, E, bias=bias)
        self.v = nn.Linear(module.vdim, E, bias=bias)
        self.out_proj = nn.Linear(E, E, bias=module.out_proj.bias is not None)
        if not (module.add_zero_attn or module.bias_k is not None):
            vars(self.k)[STAYS] = True  # it adds the same to the scores of all keys, and so nothing
        self.in_proj_bias = None
        object.__setattr__(self, "in_proj_weight", _NoFusedPath())
        own = module.bias_k is not None
        self.bias_k = nn.Parameter(torch.empty(1, 1, E)) if own else None
        self.bias_v = nn.Parameter(torch.empty(1, 1, E)) if own else None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`."""
        if is_causal and attn_mask is None:
            raise RuntimeError("need attn_mask if specifying the is_causal hint")
        batched = query.dim() == 3
        if not batched:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        N, L, S = query.shape[0], query.shape[1], key.shape[1]
        q, k, v = self.q(query), self.k(key), self.v(value)
        more = 0
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(N, 1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(N, 1, -1)], dim=1)
            more += 1
        if self.add_zero_attn:
            k, v = (torch.cat([x, torch.zeros_like(x[:, :1])], dim=1) for x in (k, v))
            more += 1
        q, k, v = (x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        scores = (q / math.sqrt(self.head_dim)) @ k.transpose(2, 3)
        if (
            is_causal and key_padding_mask is None and not need_weights
        ):  # torch then takes the hint for the mask
            ahead = torch.ones(L, S + more, dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(ahead, -math.inf)
        elif attn_mask is not None:
            mask = _added(attn_mask, scores)
            mask = mask.reshape(N, self.num_heads, L, S) if mask.dim() == 3 else mask
            scores = scores + F.pad(mask, (0, more))
        if key_padding_mask is not None:
            scores = scores + F.pad(_added(key_padding_mask, scores), (0, more))[:, None, None]
        weights = F.dropout(scores.softmax(dim=3), self.dropout, self.training)
        out = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        told: Tensor | None = None
        if need_weights:
            told = weights.mean(dim=1) if average_attn_weights else weights
        if not batched:
            return out[0], None if told is None else told[0]
        return out if self.batch_first else out.transpose(0, 1), told


def _added(mask: Tensor, scores: Tensor) -> Tensor:
    """A mask as what is added to scores: minus infinity where a bool mask is True."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=scores.dtype, device=mask.device).masked_fill(mask, -math.inf)
    return mask.to(scores.dtype)


def open_attention(module: nn.Module) -> tuple[nn.Module, Sequence[Slot]]:
    """An attention rewritten, and where its parameters are."""
    assert isinstance(module, nn.MultiheadAttention)
    E = module.embed_dim
    slots = [Slot("out_proj.weight", "out_proj.weight")]
    if module.out_proj.bias is not None:
        slots.append(Slot("out_proj.bias", "out_proj.bias"))
    for i, name in enumerate("qkv"):

        def take(values: Tensor, i: int = i) -> Tensor:
            return values[i * E : (i + 1) * E]

        if module.in_proj_weight is None:
            slots.append(Slot(f"{name}.weight", f"{name}_proj_weight"))
        else:
            slots.append(Slot(f"{name}.weight", "in_proj_weight", take))
        if module.in_proj_bias is not None:
            slots.append(Slot(f"{name}.bias", "in_proj_bias", take))
    slots += [Slot(name, name) for name in ("bias_k", "bias_v") if getattr(module, name) is not None]
    return OpenAttention(module), slots
