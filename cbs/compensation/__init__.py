"""What moves to make up for what is pruned: in closed form, or refitted to what pruning leaves."""

from cbs.compensation.closed_form import Compensation, Nothing, OwnBias, Singles, Survivors
from cbs.compensation.merging import Merged
from cbs.compensation.scaled import Scaled

__all__ = ["Compensation", "Merged", "Nothing", "OwnBias", "Scaled", "Singles", "Survivors"]
