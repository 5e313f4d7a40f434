"""Networks that come with the package, or whose weights it finds: a zoo of trained models by name."""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from cbs.zoo.catalogue import Trained, names, trained
    from cbs.zoo.perceptrons import digits_mlp, perceptron, trained_digits_mlp
    from cbs.zoo.published import MLPNet, ResNet20, mlpnet

__all__ = [
    "MLPNet",
    "ResNet20",
    "Trained",
    "digits_mlp",
    "mlpnet",
    "names",
    "perceptron",
    "trained",
    "trained_digits_mlp",
]

_export(
    __name__,
    {
        "catalogue": ["Trained", "names", "trained"],
        "perceptrons": ["digits_mlp", "perceptron", "trained_digits_mlp"],
        "published": ["MLPNet", "ResNet20", "mlpnet"],
    },
)
