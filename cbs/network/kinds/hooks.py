"""What masks in `torch.nn.utils.prune` form need beyond torch's own hooks, where a module's parts do not run.

`nn.MultiheadAttention` uses the weight of its `out_proj` without running that, so that the hook which makes
the weight from `weight_orig` and its mask never fires. `nn.TransformerEncoder` packs padded batches for a
fused path that its layers do not take once they have hooks.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import prune as torch_prune

from cbs.network.eligible import masked


class Refresh:
    """A forward pre-hook of an attention: makes the weight of its `out_proj` anew under its mask."""

    def __call__(self, module: Any, args: Any) -> None:
        """Called before the attention runs."""
        for hook in module.out_proj._forward_pre_hooks.values():
            if isinstance(hook, torch_prune.BasePruningMethod):
                hook(module.out_proj, args)


def settle(model: nn.Module) -> nn.Module:
    """Put in, or take out, in place, what the masks of a network need to be kept when it runs and trains."""
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            ours = [key for key, hook in module._forward_pre_hooks.items() if isinstance(hook, Refresh)]
            needed = bool(masked(module.out_proj))
            if needed and not ours:
                module.register_forward_pre_hook(Refresh())
            for key in ours if not needed else ():
                del module._forward_pre_hooks[key]
        elif isinstance(module, nn.TransformerEncoder):
            hooked = any(masked(part) for part in module.modules())
            before = vars(module).get("_nested_before_masks")
            if hooked and before is None and getattr(module, "use_nested_tensor", False):
                vars(module).update(_nested_before_masks=True, use_nested_tensor=False)
            elif not hooked and before is not None:
                del module._nested_before_masks
                vars(module).update(use_nested_tensor=True)
    return model
