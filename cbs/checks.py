"""What a request must be, held against what it is, before any work is done."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from cbs.memory import check_memory
from cbs.names import check_name, place
from cbs.schedule.growth import Schedule

if TYPE_CHECKING:
    from cbs.request import Request

SCOPES = ("row", "layer", "network")
GRANULARITIES = ("weights", "neurons")
PIPELINES = ("one-shot", "sequential")
REFITS = ("layer", "network")
MATCHES = ("probabilities", "outputs")
TRAINING = ("epochs", "batch", "learning_rate", "weight_decay", "validation", "patience")
"""Options of `cbs.train` that fine-tuning takes."""


def check_request(request: Request) -> None:
    """Raise ValueError, in one line, for a value outside its range, or two that don't go together."""
    from solvers.control import check_limits, is_number  # imports SciPy: `--help` need not wait
    from solvers.executors.door import check_kind

    check_name("scope", request.scope, SCOPES)
    check_name("pipeline", request.pipeline, PIPELINES)
    if request.granularity is not None:
        check_name("granularity", request.granularity, GRANULARITIES)
    if request.neurons and request.budget != "unstructured":
        raise ValueError(
            f"budget {request.budget!r} is one of weights; granularity 'neurons' takes 'unstructured'"
        )
    if request.neurons and request.pipeline != "one-shot":
        raise ValueError(
            f"pipeline {request.pipeline!r} prunes weights; granularity 'neurons' takes 'one-shot'"
        )
    _check_refit(request)
    if request.pattern is None:
        check_name("budget", request.budget, ("unstructured", "columns", "2:4"))
    _check_limits_of_loss(request)
    if request.sparsity is None:
        if request.pattern is None and not request.limited:
            raise ValueError(f"sparsity must be given for budget {request.budget!r}, a number in [0, 1)")
    elif not is_number(request.sparsity) or not 0 <= request.sparsity < 1:
        percent = is_number(request.sparsity) and 1 < request.sparsity < 100
        meant = f"; {request.sparsity:g}% is {request.sparsity / 100:g}" if percent else ""
        raise ValueError(f"sparsity must lie in [0, 1), got {request.sparsity!r}{meant}")
    elif request.pattern is not None and abs(request.sparsity - request.fraction) > 1e-9:
        raise ValueError(
            f"sparsity {request.sparsity:g} disagrees with budget {request.budget!r}, which prunes "
            f"{request.fraction:g}; give that, or no sparsity"
        )
    check_name("along", request.along, ("channels", "kernel"))
    check_limits(request.time_limit, request.gap, request.seed)
    check_memory(request.memory)
    if isinstance(request.stages, Mapping):  # as a report has it
        object.__setattr__(request, "stages", Schedule(**request.stages))
    if request.schedule.count > 1 and request.pattern is not None:
        raise ValueError(
            f"stages must be 1 for budget {request.budget!r}, which is a pattern, met whole or not at all, "
            f"got {request.schedule.count}"
        )
    if request.sparsity is not None or not request.limited:
        request.schedule.sparsities(0.0, request.fraction)
    _check_finetune(request)
    if request.patience is not None and not (is_number(request.patience) and request.patience > 0):
        raise ValueError(f"patience must be positive seconds or None, got {request.patience!r}")
    if not is_number(request.damping) or not 0 <= request.damping < float("inf"):
        raise ValueError(f"damping must be a finite number >= 0, got {request.damping!r}")
    if request.reselect is not None and not _is_flag(request.reselect):
        raise ValueError(f"reselect must be True, False or None, got {request.reselect!r}")
    if request.norms is not None and not _is_flag(request.norms):
        raise ValueError(f"norms must be True, False or None, got {request.norms!r}")
    able = isinstance(request.output, Integral | str) or callable(request.output) or request.output is None
    if isinstance(request.output, bool) or not able:
        raise ValueError(
            "output must be a place, a name, a function of the model's outputs or None, "
            f"got {request.output!r}"
        )
    if request.padding is not None and not isinstance(request.padding, str):
        raise ValueError(f"padding must be the name of an entry of a batch or None, got {request.padding!r}")
    check_kind(request.executor)
    for name in ("certify", "labels"):
        if not _is_flag(value := getattr(request, name)):
            raise ValueError(f"{name} must be True or False, got {value!r}")
    if isinstance(request.device, bool) or not (
        isinstance(request.device, str | Integral) or type(request.device).__module__ == "torch"
    ):
        raise ValueError(f"device must be a name, such as 'cpu' or 'cuda', got {request.device!r}")
    whole = isinstance(request.samples, Integral) and not isinstance(request.samples, bool)
    if request.samples is not None and not (whole and request.samples >= 1):
        raise ValueError(f"samples must be at least 1 or None, and whole, got {request.samples!r}")


def _check_limits_of_loss(request: Request) -> None:
    from solvers.control import is_number

    for name, most in (("max_loss_increase", math.inf), ("max_accuracy_drop", 1.0)):
        limit = getattr(request, name)
        if limit is None:
            continue
        if not is_number(limit) or not 0 <= limit < most:
            kind = "a finite number >= 0" if most == math.inf else "a fraction in [0, 1)"
            points = most == 1.0 and is_number(limit) and 1 <= limit < 100
            meant = f"; {limit:g} percentage points are {limit / 100:g}" if points else ""
            raise ValueError(f"{name} must be {kind} or None, got {limit!r}{meant}")
        if request.pattern is not None:
            raise ValueError(
                f"{name} is for a sparsity that is looked for, but budget {request.budget!r} prunes "
                f"{request.fraction:g}; drop one of the two"
            )
        given = request.stages.get("given") if isinstance(request.stages, Mapping) else request.schedule.given
        if given is not None and request.sparsity is None:
            raise ValueError(
                f"{name} looks for the last sparsity, but stages give it, {given[-1]:g}; give a number of "
                "stages"
            )


def _check_refit(request: Request) -> None:
    if request.refit is not None:
        check_name("refit", request.refit, REFITS)
    if request.match is not None:
        check_name("match", request.match, MATCHES)
    if request.refit == "layer" and request.pipeline == "sequential":
        raise ValueError(
            "refit 'layer' is for what pipeline 'one-shot' pruned; 'sequential' refits as it goes"
        )
    for name, given in (("match", request.match), ("labels", request.labels)):
        if given and request.refit != "network":
            raise ValueError(f"{name} says what refit 'network' does; give that too, or drop {name}")
    if request.reselect and request.refit != "network":
        raise ValueError("reselect comes before refit 'network'; give that too, or drop reselect")
    if request.reselect and (request.neurons or request.budget == "columns"):
        what = "granularity 'neurons'" if request.neurons else "budget 'columns'"
        raise ValueError(f"reselect chooses single weights, in budgets 'unstructured' and N:M, not {what}")
    if request.match and request.labels:
        raise ValueError(
            f"match {request.match!r} is about the dense network's outputs, labels about the loss: drop one"
        )


def _check_finetune(request: Request) -> None:
    epochs = isinstance(request.finetune, Integral) and not isinstance(request.finetune, bool)
    if epochs and request.finetune < 1:  # type: ignore[operator]
        raise ValueError(f"finetune must be at least 1 epoch or None, got {request.finetune!r}")
    if isinstance(request.finetune, Mapping):
        for name in request.finetune:
            check_name("option of finetune", name, TRAINING)
    elif not epochs and not (
        request.finetune is None or callable(request.finetune) or _names(request.finetune)
    ):
        raise ValueError(
            "finetune must be a number of epochs, options of cbs.train, a function of (model, stage) "
            f"that trains in place, or None, got {request.finetune!r}"
        )
    if callable(request.finetune) and not _takes(request.finetune, 2):
        raise ValueError(
            f"finetune must take two arguments, the model and the stage, got {place(request.finetune)!r}"
        )


def _names(what: object) -> bool:
    """Whether it is a function as a report has it, `module:name`."""
    return isinstance(what, str) and ":" in what


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments, as far as it tells."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # it does not tell
        return True
    return True


def _is_flag(value: object) -> bool:
    """Whether a value is True or False, be it NumPy's, or 1 or 0."""
    return type(value).__name__ in ("bool", "bool_") or (isinstance(value, Integral) and value in (0, 1))
