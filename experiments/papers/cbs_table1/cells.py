"""Table 1 of the Combinatorial Brain Surgeon, a pruning of MLPNet a cell: see README.md."""

import time
import warnings
from functools import cache

import cbs
from cbs.methods import get_method
from cbs.zoo import trained

WEIGHTS = 32_360
KEPT = {0.5: 16_198, 0.6: 12_994, 0.7: 9_790, 0.8: 6_586, 0.9: 3_382, 0.95: 1_780, 0.98: 712}
"""What the released code keeps: min(floor(sqrt(N)), 1000) = 179 buckets of ceil(N / 179) = 181 weights, of
which it keeps ceil(181 (1 - s)) each and none of the 142 weights that are left for the last."""
COUNTS = {
    "named": lambda s: round((1 - s) * WEIGHTS),
    "floor": lambda s: int((1 - s) * WEIGHTS),  # as the published code computes it for magnitude
    "kept": KEPT.__getitem__,
}
FISHER = cbs.Fisher(damping=2e-3)
"""Damping of the inverse, relative to the mean diagonal, 5e-3: the 1e-5 of the published code."""
MORE = cbs.Fisher(damping=0.2)
"""The 1e-3 of the published script for MLPNet."""
OBS, SEARCH = cbs.Scores("obs"), get_method("cbs").selection
METHODS = {
    "MP": (cbs.Identity(), cbs.Scores("magnitude"), cbs.Nothing()),
    "WF-S": (FISHER, OBS, cbs.Nothing()),
    "RMP": (FISHER, get_method("rmp").selection, cbs.Nothing()),
    "CBS-S": (FISHER, SEARCH, cbs.Nothing()),
    "WF": (FISHER, OBS, cbs.Singles()),
    "CBS": (FISHER, SEARCH, cbs.Survivors()),
    "CBS scaled": (FISHER, SEARCH, cbs.Scaled()),
    "CBS 1e-3": (MORE, SEARCH, cbs.Survivors()),
    "CBS 1e-3 scaled": (MORE, SEARCH, cbs.Scaled()),
    "joint": (cbs.Gram(), cbs.Solve(), cbs.Survivors()),
    "joint, recalibrated": (cbs.Gram(), cbs.Solve(), cbs.Survivors()),
}
"""The columns of the table, and the project's own."""
OURS = {"damping": 1e-2, "solver": "local-search"}


@cache
def mlpnet():
    """Network, training and test images."""
    found = trained("mlpnet")
    return found.model, found.train, found.test


def prune(method: str, gradients: int, counts: str, sparsity: float, seed: int):
    """One pruning.

    Args:
        method: of `METHODS`.
        gradients: of single samples, for the Fisher; a thousand of the first 20,000 images, ten thousand of
            all. 0 for the project's own, on 10,000 images.
        counts: of weights that are kept, of `COUNTS`.
        sparsity: as the table names it.
        seed: of all draws.
    """
    model, train, test = mlpnet()
    few = {0: 10_000, 1_000: 20_000}.get(gradients)
    options = {} if gradients else dict(OURS)
    if few is None:
        options["samples"] = gradients
    if method == "joint, recalibrated":
        options["refit"] = "layer"
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cbs.ScopeIgnored)
        result = cbs.prune(
            model, cbs.Samples(train.inputs[:few], train.targets[:few]), test=test, certify=False, seed=seed,
            sparsity=1 - COUNTS[counts](sparsity) / WEIGHTS, method=cbs.Method(*METHODS[method], name=method),
            **options,
        )  # fmt: skip
    stats, found = result.history[0].stats, result.layers[0].stats
    return {
        "kept": sum(layer.kept for layer in result.layers), "accuracy": result.test_after.accuracy,
        "train_loss": result.after.loss, "prediction": result.measured.prediction, "step": stats.get("step"),
        "steps": found.get("steps"), "swaps": found.get("swaps"), "cpu_seconds": time.process_time() - began,
    }  # fmt: skip
