"""Iterative pruning: several prunings of one network, each followed by a network refit and fine-tuning.

A schedule wraps what prunes once and does not enter it: every stage is a pruning of its own, of the network
that the stage before left, with curvatures computed anew. What was pruned before comes as masks, which stay.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from cbs.assemble import Run
from cbs.certify import certify_result
from cbs.history import Stage
from cbs.methods import get_method
from cbs.network.network import Network
from cbs.network.surgery import clone
from cbs.references import References
from cbs.refit.network import require_refit
from cbs.schedule.between import freed, sparsity_before, stage_network
from cbs.schedule.masks import refresh
from cbs.schedule.refitting import refitted
from cbs.schedule.reselecting import reselected, wanted, widened
from cbs.schedule.tuning import tuned
from cbs.watch import Callback
from solvers.control import interruptible

if TYPE_CHECKING:
    from cbs.data import Samples
    from cbs.request import Request

Once = Callable[[Network, "Request", References, Callback | None], Run]
"""Prunes once: a network, as asked, with the bounds known of it, telling a callback."""
RESELECTED = 0.8
"""Of the time for re-selection and refit together, what the former may take."""
SEARCHED = 0.5
"""Of a stage's share of the time limit, what its pruning may take where a refit or fine-tuning follows."""
EARLY = 2
"""Most steps of the refit of a stage that others follow."""
LEAST = 1e-3
"""Seconds that a stage's pruning has when the time is up: the sparsity is reached all the same."""


def prune_in_stages(
    network: Network,
    request: Request,
    references: References,
    callback: Callback | None,
    once: Once,
    training: Samples,
) -> Run:
    """Prune as the request's schedule says, refit to the dense network's outputs, and fine-tune.

    Ctrl-C ends it with the stage that was pruned last, refitted as far as whole steps go and fine-tuned as
    far as whole epochs go; a second one ends what is at work at once, and leaves nothing of it. A time limit
    is shared out among the stages left, stage s by s parts, for what counts most comes last; the last stage
    is reached all the same. Stages that others follow are cheap: no proofs, and few steps of the refit.

    Args:
        network: the dense network.
        request: what is asked.
        references: the bounds known of the dense network; the networks of later stages have others.
        callback: told of every step.
        once: prunes once.
        training: what to fine-tune on.

    Returns:
        The last stage's run, with the whole history. Its bounds are settled, unless it is the only stage and
        its bounds are the dense network's.

    Raises:
        ValueError: in one line, for what a stage refuses, or for a function that does not train in place.
    """
    before = sparsity_before(network, request)
    if request.refit == "network":
        require_refit(network, request.match, request.labels)
    fractions = request.schedule.sparsities(before, request.fraction)
    here, bounds, known, left = network, references, references, request.time_limit
    run: Run | None = None
    model: nn.Module | None = None
    history: list[Stage] = []
    try:
        for number, fraction in enumerate(fractions, 1):
            if model is not None:
                here = stage_network(model, network, request)
                bounds = References(here)
            last, told = number == len(fractions), _telling(callback, request, number, len(fractions))
            share = (
                None if left is None else max(left, LEAST) * number / sum(range(number, len(fractions) + 1))
            )
            asked = _part(request, fraction, share, last)
            again, reason = wanted(here, request, asked)
            run = once(here, widened(asked, here) if again else asked, bounds, told)
            known = bounds
            history.append(run.result.history[-1])
            spent = 0.0 if run.watch.left is None else (asked.time_limit or 0.0) - run.watch.left
            if again:
                began = time.perf_counter()
                until = began + (math.inf if request.patience is None else request.patience)
                if run.watch.interrupted:
                    until = -math.inf
                elif share is not None:
                    until = began + RESELECTED * _share(request, share - spent)
                with interruptible(run.watch.control), _unless_ended(run.result.model):
                    run = reselected(run, here, network, asked, request, last, until, told)
                history[-1] = run.result.history[-1]
                spent += time.perf_counter() - began
            if reason is not None:
                history[-1] = replace(history[-1], reselection={"left_out": reason})
            if run.watch.interrupted:
                break
            if request.refit == "network":
                began = time.perf_counter()
                until = math.inf if share is None else began + _share(request, share - spent)
                with interruptible(run.watch.control), _unless_ended(run.result.model):
                    history[-1] = refitted(
                        run.result.model, history[-1], network, request, until, run.watch, told,
                        steps=None if last else EARLY,
                    )  # fmt: skip
                spent += time.perf_counter() - began
                if run.watch.interrupted:
                    break
            model = run.result.model
            if not _stays(request, number):
                model = freed(model, here, network, request)
            if request.finetune is not None:
                began = time.perf_counter()
                until = math.inf if share is None else began + share - spent
                with _unless_ended(model):
                    history[-1] = tuned(
                        model, history[-1], network, request, training, number, until, run.watch, told
                    )
                spent += time.perf_counter() - began
            left = None if left is None else max(0.0, left - spent)
            if run.watch.interrupted:
                break
            if request.schedule.deleted == "return" and not last:
                model = freed(run.result.model, here, network, request)
    except KeyboardInterrupt:
        if run is None:
            raise
        run.watch.control.interrupted = True
    assert run is not None
    return _concluded(run, history, network, request, known, left)


def _concluded(
    run: Run,
    history: list[Stage],
    network: Network,
    request: Request,
    known: References,
    left: float | None,
) -> Run:
    """The last stage's run as that of the whole request: from the dense network to the last one."""
    result = run.result
    after, test_after = result.after, result.test_after
    if history[-1].refitted is not None:
        after, test_after = history[-1].refitted, history[-1].test_refitted
    if history[-1].tuned is not None and _stays(request, len(history)):
        after, test_after = history[-1].tuned, history[-1].test_tuned
    run.watch.allow(left)
    if request.schedule.count > 1:
        result = certify_result(run, known, compute=not run.watch.interrupted)
    measured = replace(
        result.measured, before=network.before, test_before=network.test_before, after=after,
        test_after=test_after, seconds=sum(stage.seconds for stage in history),
    )  # fmt: skip
    moved = any(stage.moved for stage in history)
    result = replace(
        result, request=request, measured=measured, history=history, left_out=network.left_out,
        saved=network.saved, original=clone(network.model).state_dict() if moved else None,
    )  # fmt: skip
    return Run(result, request, run.watch, settled=request.schedule.count > 1)


def _part(request: Request, fraction: float, share: float | None, last: bool) -> Request:
    """What is asked of one stage that may take a share of the time; bounds, and proofs, are for the last."""
    alone = request.finetune is None and request.refit != "network"
    limit = share if share is None or alone else SEARCHED * share
    sparsity = request.sparsity if request.pattern is not None else fraction
    if not last:
        request = get_method(request.method).selection.in_passing(request)
    return replace(
        request, sparsity=sparsity, stages=1, finetune=None, time_limit=limit,
        certify=request.certify and last, match=None, labels=False, reselect=None,
        refit=None if request.refit == "network" else request.refit,
    )  # fmt: skip


@contextmanager
def _unless_ended(model: nn.Module) -> Iterator[None]:
    """Give a network its parameters, buffers and masks back if Ctrl-C ends what happens inside.

    So the record, which has what was finished, speaks of the network that there is.
    """
    kept = copy.deepcopy(model.state_dict())
    try:
        yield
    except KeyboardInterrupt:
        model.load_state_dict(kept)
        refresh(model)
        raise


def _stays(request: Request, number: int) -> bool:
    """Whether what a stage deleted stays so through its fine-tuning."""
    return number == request.schedule.count or request.schedule.deleted in ("stay", "return")


def _share(request: Request, seconds: float) -> float:
    """Of the seconds that are left of a stage's share what its refit may take."""
    return seconds if request.finetune is None else SEARCHED * seconds


def _telling(callback: Callback | None, request: Request, number: int, count: int) -> Callback | None:
    """The callback, told of a stage's steps as parts of the whole."""
    if callback is None:
        return None
    return lambda step: callback(replace(step, asked=request.fraction, part=number, parts=count))
