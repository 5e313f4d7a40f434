"""How what is pruned is chosen: by scores, or by a solver."""

from cbs.selection.base import Choice, Job, NeuronChoice, NeuronSelection, Selection, WeightSelection
from cbs.selection.neuron_dropout import NeuronDropout
from cbs.selection.neuron_joint import NeuronSolve
from cbs.selection.neuron_merge import NeuronMerge
from cbs.selection.scores import Scores
from cbs.selection.solver import Solve

__all__ = [
    "Choice", "Job", "NeuronChoice", "NeuronDropout", "NeuronMerge", "NeuronSelection", "NeuronSolve",
    "Scores", "Selection", "Solve", "WeightSelection",
]  # fmt: skip
