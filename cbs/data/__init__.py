"""Calibration data: the forms that users have it in, and the data sets that come with the package."""

from cbs.data.collect import gather
from cbs.data.nested import Nested, Shared
from cbs.data.samples import BATCH, Ragged, Samples, Split
from cbs.data.sets import MNIST_FILES, MNIST_MEAN, MNIST_STD, MNIST_URL, MONKS_VALUES, digits, mnist, monks
from cbs.data.words import first_line

__all__ = [
    "BATCH", "MNIST_FILES", "MNIST_MEAN", "MNIST_STD", "MNIST_URL", "MONKS_VALUES", "Nested", "Ragged",
    "Samples", "Shared", "Split", "digits", "first_line", "gather", "mnist", "monks",
]  # fmt: skip
