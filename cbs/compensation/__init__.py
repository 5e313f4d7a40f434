"""What moves to make up for the weights that are pruned: in closed form, or on the inputs that pruning leaves."""

from cbs.compensation.closed_form import Compensation, Nothing, Singles, Survivors

__all__ = ["Compensation", "Nothing", "Singles", "Survivors"]
