"""What a proven optimum buys over heuristics on the digits MLP: see README.md."""

import copy
import time
import warnings
from functools import lru_cache

import cbs
from cbs.network.evaluate import evaluate
from cbs.network.losses import named_loss


def method(selection: cbs.Solve | cbs.Scores, name: str) -> cbs.Method:
    """A selection by layer Grams with the survivors refitted, as those of all the others are."""
    return cbs.Method(cbs.Gram(), selection, cbs.Survivors(), name=name)


METHODS = {
    "optimum": method(cbs.Solve("branch-and-bound"), "optimum"),
    "local-search": method(cbs.Solve("local-search"), "local-search"),
    **{name: name for name in ("obc", "alps", "sparsegpt", "cbs", "obs")},
    **{rule: method(cbs.Scores(rule), f"{rule}, refitted") for rule in ("wanda", "magnitude", "random")},
}
trained = lru_cache(maxsize=2)(cbs.trained_digits_mlp)
EPOCHS, LEARNING_RATE = 20, 1e-3
"""Of fine-tuning."""


def prune(method: str, sparsity: float, limit: float, seed: int):
    """One pruning of every row, measured before and after fine-tuning.

    Args:
        method: of `METHODS`; of the optimum every layer is proven within the limit.
        sparsity: of every row.
        limit: seconds of the pruning.
        seed: of the network's training.
    """
    model, split = trained(seed)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = cbs.prune(
            model, split.train, sparsity=sparsity, method=METHODS[method], test=split.test, certify=False,
            scope="row", damping=1e-2, gap=1e-4, seed=seed, time_limit=limit,
        )  # fmt: skip
    spent = time.process_time() - began
    if method == "optimum" and any(layer.status != "optimal" for layer in result.layers):
        raise ValueError(f"a layer of the optimum was not proven within {limit:g} s; give a larger limit")
    tuned = copy.deepcopy(result.model)
    cbs.train(tuned, split.train, epochs=EPOCHS, learning_rate=LEARNING_RATE, seed=seed)
    train, test = (evaluate(tuned, part, named_loss("cross_entropy")) for part in (split.train, split.test))
    after, held_out = result.measured.after, result.measured.test_after
    return {
        "value": result.value, "status": result.layers[0].status, "train_loss": after.loss,
        "train_accuracy": after.accuracy, "loss": held_out.loss, "accuracy": held_out.accuracy,
        "tuned_train_loss": train.loss, "tuned_loss": test.loss, "tuned_accuracy": test.accuracy,
        "cpu_seconds": spent,
    }  # fmt: skip
