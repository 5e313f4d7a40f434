"""All that tells at once where a pruned network loses: its damage by layer, its error trace, and an audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from cbs.data import gather
from cbs.diagnosis.audit import Audit, audit
from cbs.diagnosis.damage import Damage, damage
from cbs.diagnosis.pair import pair_of
from cbs.diagnosis.trace import Trace, trace
from cbs.watch import Callback

if TYPE_CHECKING:
    from cbs.network.answers import Output
    from cbs.network.losses import Loss
    from cbs.result import PruneResult


@dataclass(frozen=True)
class Diagnosis:
    """Where a pruned network loses.

    Attributes:
        damage: what each layer costs, see `cbs.damage`.
        trace: how the error grows, see `cbs.trace`.
        audit: what is zero, and what holds it there, see `cbs.audit`.
    """

    damage: Damage
    trace: Trace
    audit: Audit

    def __repr__(self) -> str:
        parts = {"damage by layer": self.damage, "error in running order": self.trace, "zeros": self.audit}
        return "\n\n".join(f"{name}\n{part!r}" for name, part in parts.items())

    @property
    def status(self) -> str:
        """`done`, or `interrupted`, and then of the samples that were run."""
        return "interrupted" if "interrupted" in (self.damage.status, self.trace.status) else "done"

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {name: getattr(self, name).to_dict() for name in ("damage", "trace", "audit")}


def diagnose(
    pruned: PruneResult | nn.Module,
    data: Any,
    *,
    dense: nn.Module | None = None,
    loss: str | Loss | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    output: Output | None = None,
    padding: str | None = None,
    callback: Callback | None = None,
) -> Diagnosis:
    """Tell where a pruned network loses.

    Args:
        pruned: a result of `cbs.prune`; or a network from anywhere, with masks or zeros, then with `dense`.
        data: samples to measure on, in any form that `cbs.prune` takes; held-out ones tell what users see.
        dense: the network before pruning, of the same modules.
        loss: as in `cbs.prune`; if absent the result's, or cross entropy.
        samples: how many samples to draw; if absent all of them.
        seed: of the draw.
        device: torch device.
        output: as in `cbs.prune`; if absent the result's.
        padding: as in `cbs.prune`; if absent the result's.
        callback: called with a `Step` for every batch; a true answer stops.

    Returns:
        Damage, trace and audit.

    Raises:
        ValueError: in one line, for networks that are no pair, equal ones, or data that they refuse.
    """
    pair = pair_of(pruned, dense, device)
    given = gather(data, samples, seed, pair.dense)
    shared: dict[str, Any] = {
        "dense": dense, "device": device, "output": output, "padding": padding, "callback": callback,
    }  # fmt: skip
    found = damage(pruned, given, loss=loss, **shared)
    rest = given if found.status == "done" else given.few(found.samples)
    return Diagnosis(found, trace(pruned, rest, **shared), audit(pruned))
