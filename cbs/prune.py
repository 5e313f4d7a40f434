"""`prune()` and `compare()`: from a trained network to a pruned one with a bound on its quality."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import torch
from torch import nn

from cbs.arguments import Options, check_options, takes_a_request
from cbs.assemble import Run, assemble
from cbs.certify import certify_result, take_up
from cbs.checks import SCOPES
from cbs.data import Samples, gather
from cbs.earlier import check_earlier
from cbs.handing import Handing
from cbs.history import Stage
from cbs.limit import search
from cbs.memory import memory_stats, within_memory
from cbs.method import Method
from cbs.methods import get_method, table
from cbs.names import check_name
from cbs.network.eligible import LeftOut
from cbs.network.losses import named_loss
from cbs.network.network import Network
from cbs.references import References
from cbs.request import Request
from cbs.result import PruneResult
from cbs.schedule.stages import prune_in_stages
from cbs.schedule.training import check_options as check_training
from cbs.watch import Callback, Step, Watch
from solvers import get_solver
from solvers.control import interruptible, is_number
from solvers.executors.door import borrowed, spec_of


class ScopeIgnored(UserWarning):
    """A scope was given with a budget that says itself where it holds, such as `2:4`."""


@takes_a_request
def prune(  # noqa: D417
    model: nn.Module,
    data: Any,
    *,
    sparsity: float | None = None,
    method: str | Method = Request.method,
    test: Any = None,
    callback: Callback | None = None,
    **options: Unpack[Options],
) -> PruneResult:
    """Prune a trained network.

    Args:
        model: the network; it is not changed.
        data: calibration data: a pair (inputs, targets), a `Dataset`, a `DataLoader`, or an iterable
            of batches.
        test: held-out data to evaluate on too, in any form of `data`.
        callback: called with every `Step`; a true answer stops the search, and what was found is kept.
        **options: the fields of `cbs.request.Request`, all of which are listed by `help(cbs.prune)`.

    Returns:
        The pruned copy, and values, bounds and gaps for network, layers and rows. After Ctrl-C, or
        past the time limit, the best found, which `status` tells. With a limit on what is lost, the largest
        sparsity that was found within it, see `search`; the dense network, with a warning of class
        `LimitWarning`, if there is none. Of several stages Ctrl-C leaves the last
        one that was pruned, whose `sparsity` is then less than what was `asked`; past the time limit all
        stages are gone through, if only just.

    Raises:
        TypeError: for an unknown option, in one line.
        ValueError: for bad input, in one line.
    """
    check_options(prune, options)
    options = _applying(options, stacklevel=3)
    (result,) = compare(
        model, data, sparsities=[sparsity], methods=[method], test=test, callback=callback, **options
    )
    return result


@takes_a_request
@within_memory
@torch.inference_mode(False)
def compare(
    model: nn.Module,
    data: Any,
    *,
    sparsities: Sequence[float | None],
    methods: Sequence[str | Method] | None = None,
    on_result: Callable[[PruneResult], Any] | None = None,
    finished: Sequence[PruneResult] = (),
    test: Any = None,
    callback: Callback | None = None,
    **options: Unpack[Options],
) -> list[PruneResult]:
    """Prune one network by several methods to several sparsities, and hold all against the best bounds.

    Curvatures are computed once; every result is charged for those it uses. All results of one
    sparsity get the best lower bound that any of them, or the relaxation, has proven.

    Args:
        model: the network; it is not changed.
        data: as in `prune`.
        sparsities: every sparsity to prune to; `[None]` with a budget `N:M` or a limit on what is lost.
        methods: names of `cbs.methods()` and `cbs.Method`s, each of a name of its own; by default all named
            ones that can do what is asked. Those that prove bounds run first.
        on_result: called with every result as soon as it is there, with the bounds known by then, and
            again with those that are found later. What it raises ends the comparison.
        finished: results of an earlier call with the same arguments, which are taken as they are but for
            bounds that they lack. Interrupted ones are left out, and computed again.
        test: held-out data to evaluate on too, in any form of `data`.
        callback: called with every `Step`; a true answer stops the search, and what was found is kept.
        **options: the fields of `cbs.request.Request` that `prune` takes; the time limit is that of a result.

    Returns:
        A result for every sparsity and method, in the order given. After an interruption those that
        were finished, and the one that was interrupted. A method that can't prune this network is left
        out, with a warning of class `LeftOut`.

    Raises:
        TypeError: for an unknown option, in one line.
        ValueError: for bad input, in one line, or if no method can prune this network.
    """
    check_options(compare, options)
    for name, told in (("callback", callback), ("on_result", on_result)):
        if told is not None and not callable(told):
            raise TypeError(f"{name} must be a function, got {told!r}")
    asked = requests(sparsities, methods, **_applying(options, stacklevel=5))
    first = asked[0][0]
    if first.executor is not None:
        asked = [[replace(each, executor=spec_of(each.executor)) for each in row] for row in asked]
    with borrowed(first.executor) as workers:
        if callback is not None:
            callback(Step(first.name, "measure", asked=first.fraction))
        training = None if first.finetune is None else gather(data, seed=first.seed, model=model)
        if training is not None and training.labelled:
            training = training.with_padding(first.padding)
        data, training = (
            (data, None) if training is None else (training, training if training.labelled else None)
        )
        network = Network(
            model, data, loss=named_loss(first.loss), layers=first.layers, exclude=first.exclude,
            damping=first.damping, samples=first.samples, seed=first.seed, device=first.device,
            output=first.output, padding=first.padding, across=first.across, unfit=first.unfit,
        )  # fmt: skip
        if test is not None:
            network.hold_out(gather(test, seed=first.seed, model=model))
        network.executor = workers
        asked = [[request.of(network.layers) for request in row] for row in asked]
        failures: dict[str, ValueError] = {}
        if not network.labelled:
            for request in (request for row in asked for request in row):
                if lack := get_method(request.method).lacks_labels(request):
                    failures[request.name] = ValueError(lack)
        for request in (request for row in asked for request in row):
            if request.neurons:
                try:
                    groups = network.neurons
                except ValueError as error:
                    failures.setdefault(request.name, error)
                else:
                    request.neuron_counts(groups, network.gone)
                continue
            for layer in network.layers:
                request.layer_budget(layer)
            check_earlier(request, network.layers, network.earlier)
        lone = isinstance(finished, PruneResult)
        if lone or not all(isinstance(result, PruneResult) for result in finished):
            raise ValueError(f"finished must be a list of results, got {'one' if lone else finished!r}")
        references, handed = References(network), Handing(network)
        hand_out = on_result or (lambda result: None)
        there = {_place(done.request): done for done in finished if done.status != "interrupted"}
        results: list[PruneResult] = []
        for row in asked:
            runs: dict[str, Run] = {}
            for request in row:
                if (done := there.get(_place(request))) is not None:
                    if done.history[-1].method != _in_words(get_method(request.method)):
                        raise ValueError(
                            f"finished: the result of {request.name!r} is by another method of that name"
                        )
                    request = replace(request, sparsity=done.request.sparsity) if request.limited else request
                    watch = Watch(request.name, request, len(network.layers), callback)
                    runs[request.name] = take_up(done, request, watch, references)
            left = [request for request in row if request.name not in {**runs, **failures}]
            for request in sorted(left, key=lambda request: not get_method(request.method).proves(request)):
                once = partial(_once, network, references, network.samples if training is None else training)
                try:
                    if request.limited:
                        runs[request.name] = search(network, request, callback, once)
                    else:
                        runs[request.name] = once(request, callback)
                except ValueError as error:
                    failures.setdefault(request.name, error)
                    continue
                hand_out(handed(certify_result(runs[request.name], references, compute=False)))
                if runs[request.name].watch.interrupted:
                    break
            ordered = [runs[request.name] for request in row if request.name in runs]
            stopped = any(run.watch.interrupted for run in ordered)
            for run in ordered:
                results.append(handed(certify_result(run, references, compute=not stopped)))
                hand_out(results[-1])
                stopped = stopped or run.watch.interrupted
            if stopped:
                break
        if failures and not results:
            raise next(iter(failures.values()))
        for name, failure in failures.items():
            warnings.warn(f"method {name!r} is left out: {failure}", LeftOut, stacklevel=4)
    return results


def requests(
    sparsities: Sequence[float | None], methods: Sequence[str | Method] | None, **options: Unpack[Options]
) -> list[list[Request]]:
    """For every sparsity a request to every method, checked as far as can be without the network.

    Args:
        sparsities: as in `compare`.
        methods: as in `compare`.
        **options: as in `compare`.

    Raises:
        ValueError: in one line, for what can't be asked.
    """
    lone = sparsities is None or isinstance(sparsities, str) or is_number(sparsities)
    if lone or isinstance(methods, str | Method):
        what, one = ("sparsities", sparsities) if lone else ("methods", methods)
        raise ValueError(f"{what} must be a list, such as [{one!r}]")
    chosen: dict[str, str | Method] = {}
    for method in table() if methods is None else methods:
        name = get_method(method).name
        if chosen.setdefault(name, method) != method:
            raise ValueError(f"methods: two are named {name!r}; give each a name of its own")
    asked = [
        [_of_its_kind(Request(sparsity, method=method, **options)) for method in chosen.values()]
        for sparsity in sparsities
    ]
    if not any(asked):
        raise ValueError("sparsities and methods must hold at least one each")
    for request in (request for row in asked for request in row):
        if request.limited and request.sparsity is not None:
            raise ValueError(
                f"sparsity {request.sparsity:g} says how much to prune, max_loss_increase and "
                "max_accuracy_drop have that found out; give one of the two"
            )
    refused: dict[str, ValueError] = {}
    for request in (request for row in asked for request in row):
        if request.solver != "auto":
            get_solver(request.solver)
        named_loss(request.loss)
        if isinstance(request.finetune, str):
            raise ValueError(f"finetune must be a number of epochs or a function, got {request.finetune!r}")
        if isinstance(request.finetune, Mapping):
            check_training(request.finetune)
        try:
            get_method(request.method).check(request)
        except ValueError as error:
            if methods is not None:
                raise
            refused.setdefault(request.name, error)
    if len(refused) == len(chosen):
        raise next(iter(refused.values()))
    for reason in refused.values():
        warnings.warn(str(reason), LeftOut, stacklevel=5)
    return [[request for request in row if request.name not in refused] for row in asked]


def _of_its_kind(request: Request) -> Request:
    """The request, with what its method prunes where nobody asked and that is not weights."""
    first, *_ = get_method(request.method).granularities
    of_weights = request.budget != "unstructured" or request.pipeline != "one-shot"  # the method says why
    if request.granularity or first == "weights" or of_weights:
        return request
    return replace(request, granularity=first)


def _in_words(method: Method) -> dict[str, str]:
    return {name: str(value) for name, value in method.describe().items()}


def _applying(options: Options, stacklevel: int) -> Options:
    """The options but for a scope that the budget leaves nothing to say, of which the caller is told."""
    budget = options.get("budget", Request.budget)
    if "scope" not in options or budget == Request.budget:
        return options
    check_name("scope", options["scope"], SCOPES)
    where = "prunes the same share of every layer's inputs" if budget == "columns" else "holds in every row"
    warnings.warn(
        f"scope {options['scope']!r} is ignored: budget {budget!r} {where}",
        ScopeIgnored,
        stacklevel=stacklevel,
    )
    options = options.copy()
    del options["scope"]
    return options


def _place(request: Request) -> tuple[str, float | None]:
    """What tells a result of a comparison from the others."""
    return request.name, None if request.limited else request.fraction


def _once(
    network: Network, references: References, training: Samples, request: Request, callback: Callback | None
) -> Run:
    """Prune to a sparsity, in as many stages as asked for."""
    if request.staged:
        return prune_in_stages(network, request, references, callback, _run, training)
    return _run(network, request, references, callback)


def _run(network: Network, request: Request, references: References, callback: Callback | None) -> Run:
    method = get_method(request.method)
    watch = Watch(method.name, request, len(network.layers), callback)
    watch.control.executor = network.executor
    network.memo.reset()
    start, spent = time.perf_counter(), network.memo.spent
    with interruptible(watch.control):
        network.memo.tell = watch.computing
        watch.prepare(method.searches, method.selection.searcher(request))
        start = time.perf_counter()
        plan = method.run(network, request, watch, references)
        watch.pause()
        shared, computing = network.memo.charge, network.memo.spent - spent
        seconds = time.perf_counter() - start - computing - watch.compiling + shared
        watch.tell("evaluate")
        stage = Stage(
            method=_in_words(method),
            sparsity=math.nan,
            seconds=seconds,
            shared_seconds=shared,
            stats={**plan.stats, "memory": memory_stats(network.samples.batch)},
        )
        return assemble(network, request, watch, plan, stage)
