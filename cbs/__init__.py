"""Prune trained PyTorch networks by combinatorial optimization, with a bound on what was lost.

Masks are True where pruned, the reverse of `torch.nn.utils.prune`.
"""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from cbs.compensation import Merged, Nothing, OwnBias, Scaled, Singles, Survivors
    from cbs.curvature import (
        GGN,
        Fisher,
        FisherDiagonal,
        GaussNewton,
        GaussNewtonDiagonal,
        GaussNewtonSpread,
        Gram,
        Hessian,
        HessianDiagonal,
        Hutchinson,
        Identity,
        Kronecker,
        MonteCarloFisher,
        OutputDiagonal,
        OutputGram,
        RecursionDiagonal,
        RowGram,
    )
    from cbs.data import Samples, Shared, Split, digits, mnist, monks
    from cbs.deploy.bench import Bench, bench
    from cbs.deploy.export import Exported, export, load
    from cbs.deploy.sparse import sparse
    from cbs.diagnosis.audit import Audit, audit
    from cbs.diagnosis.damage import Damage, damage
    from cbs.diagnosis.diagnose import Diagnosis, diagnose
    from cbs.diagnosis.sensitivity import Sensitivity, sensitivity
    from cbs.diagnosis.stability import Stability, stability
    from cbs.diagnosis.trace import Trace, trace
    from cbs.figures import LayerResult, RowResult
    from cbs.limit import LimitWarning
    from cbs.method import Method
    from cbs.methods import methods
    from cbs.network.answers import OutputChosen
    from cbs.network.eligible import LeftOut
    from cbs.network.kinds.registry import Slot, register_layer
    from cbs.network.shrink import shrink
    from cbs.prune import ScopeIgnored, compare, prune
    from cbs.quantization.quantize import QuantizeResult, quantize
    from cbs.quantization.stored import load_quantized
    from cbs.refit.network import Refitted, RefitWarning, refit_network
    from cbs.request import Request
    from cbs.result import PruneResult
    from cbs.schedule.growth import Schedule
    from cbs.schedule.masks import keep_masks
    from cbs.schedule.scratch import from_scratch
    from cbs.schedule.training import train
    from cbs.selection import NeuronDropout, NeuronMerge, NeuronSolve, Scores, Solve
    from cbs.unlabelled import unlabelled
    from cbs.watch import Step
    from cbs.zoo import digits_mlp, mlpnet, trained_digits_mlp

__all__ = [
    "GGN",
    "Audit",
    "Bench",
    "Damage",
    "Diagnosis",
    "Exported",
    "Fisher",
    "FisherDiagonal",
    "GaussNewton",
    "GaussNewtonDiagonal",
    "GaussNewtonSpread",
    "Gram",
    "Hessian",
    "HessianDiagonal",
    "Hutchinson",
    "Identity",
    "Kronecker",
    "LayerResult",
    "LeftOut",
    "LimitWarning",
    "Merged",
    "Method",
    "MonteCarloFisher",
    "NeuronDropout",
    "NeuronMerge",
    "NeuronSolve",
    "Nothing",
    "OutputChosen",
    "OutputDiagonal",
    "OutputGram",
    "OwnBias",
    "PruneResult",
    "QuantizeResult",
    "RecursionDiagonal",
    "RefitWarning",
    "Refitted",
    "Request",
    "RowGram",
    "RowResult",
    "Samples",
    "Scaled",
    "Schedule",
    "ScopeIgnored",
    "Scores",
    "Sensitivity",
    "Shared",
    "Singles",
    "Slot",
    "Solve",
    "Split",
    "Stability",
    "Step",
    "Survivors",
    "Trace",
    "audit",
    "bench",
    "compare",
    "damage",
    "diagnose",
    "digits",
    "digits_mlp",
    "export",
    "from_scratch",
    "keep_masks",
    "load",
    "load_quantized",
    "methods",
    "mlpnet",
    "mnist",
    "monks",
    "prune",
    "quantize",
    "refit_network",
    "register_layer",
    "sensitivity",
    "shrink",
    "sparse",
    "stability",
    "trace",
    "train",
    "trained_digits_mlp",
    "unlabelled",
]  # fmt: skip

_export(
    __name__,
    {
        "compensation": ["Merged", "Nothing", "OwnBias", "Scaled", "Singles", "Survivors"],
        "curvature": [
            "Fisher",
            "FisherDiagonal",
            "GGN",
            "GaussNewton",
            "GaussNewtonDiagonal",
            "GaussNewtonSpread",
            "Gram",
            "Hessian",
            "HessianDiagonal",
            "Hutchinson",
            "Identity",
            "Kronecker",
            "MonteCarloFisher",
            "OutputDiagonal",
            "OutputGram",
            "RecursionDiagonal",
            "RowGram",
        ],
        "data": ["Samples", "Shared", "Split", "digits", "mnist", "monks"],
        "deploy.bench": ["Bench", "bench"],
        "deploy.export": ["Exported", "export", "load"],
        "deploy.sparse": ["sparse"],
        "diagnosis.audit": ["Audit", "audit"],
        "diagnosis.damage": ["Damage", "damage"],
        "diagnosis.diagnose": ["Diagnosis", "diagnose"],
        "diagnosis.sensitivity": ["Sensitivity", "sensitivity"],
        "diagnosis.stability": ["Stability", "stability"],
        "diagnosis.trace": ["Trace", "trace"],
        "figures": ["LayerResult", "RowResult"],
        "limit": ["LimitWarning"],
        "method": ["Method"],
        "methods": ["methods"],
        "network.answers": ["OutputChosen"],
        "network.eligible": ["LeftOut"],
        "network.kinds.registry": ["Slot", "register_layer"],
        "network.shrink": ["shrink"],
        "prune": ["ScopeIgnored", "compare", "prune"],
        "quantization.quantize": ["QuantizeResult", "quantize"],
        "quantization.stored": ["load_quantized"],
        "refit.network": ["RefitWarning", "Refitted", "refit_network"],
        "request": ["Request"],
        "result": ["PruneResult"],
        "schedule.growth": ["Schedule"],
        "schedule.masks": ["keep_masks"],
        "schedule.scratch": ["from_scratch"],
        "schedule.training": ["train"],
        "selection": ["NeuronDropout", "NeuronMerge", "NeuronSolve", "Scores", "Solve"],
        "unlabelled": ["unlabelled"],
        "watch": ["Step"],
        "zoo": ["digits_mlp", "mlpnet", "trained_digits_mlp"],
    },
)
