"""How what is pruned is chosen: by scores, or by a solver."""

from cbs.selection.base import Choice, Job, NeuronChoice, Selection
from cbs.selection.scores import Scores
from cbs.selection.solver import Solve

__all__ = ["Choice", "Job", "NeuronChoice", "Scores", "Selection", "Solve"]
