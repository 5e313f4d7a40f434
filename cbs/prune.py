"""`prune()` and `compare()`: from a trained network to a pruned one with a bound on its quality."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import torch
from torch import nn
from torch.nn import functional as F

from cbs.assemble import Run, assemble, certify_result, take_up
from cbs.data import gather
from cbs.earlier import check_earlier
from cbs.method import Method, get_method
from cbs.method import methods as all_methods
from cbs.network.eligible import LeftOut
from cbs.network.losses import Loss
from cbs.network.network import Network
from cbs.references import References
from cbs.request import PATIENCE, Request
from cbs.result import PruneResult
from cbs.watch import Callback, Step, Watch
from solvers import get_solver
from solvers.control import interruptible, is_number

NETWORK = ("loss", "layers", "damping", "samples", "seed", "device")
REQUEST = (
    "scope",
    "budget",
    "solver",
    "gap",
    "time_limit",
    "patience",
    "seed",
    "recalibrate",
    "certify",
    "device",
)


class Options(TypedDict, total=False):
    """The arguments that `prune` and `compare` share; `prune` documents them."""

    scope: str
    budget: str
    solver: str
    damping: float
    gap: float
    time_limit: float | None
    patience: float | None
    seed: int
    samples: int | None
    layers: Sequence[str] | None
    loss: Loss
    certify: bool
    recalibrate: bool
    callback: Callback | None
    device: str
    test: Any


def prune(
    model: nn.Module,
    data: Any,
    *,
    sparsity: float | None = None,
    method: str = "cbs",
    scope: str = "layer",
    budget: str = "unstructured",
    solver: str = "auto",
    damping: float = 1e-2,
    gap: float = 1e-4,
    time_limit: float | None = None,
    patience: float | None = PATIENCE,
    seed: int = 0,
    samples: int | None = None,
    layers: Sequence[str] | None = None,
    loss: Loss = F.cross_entropy,
    certify: bool = True,
    recalibrate: bool = False,
    callback: Callback | None = None,
    device: str = "cpu",
    test: Any = None,
) -> PruneResult:
    """Prune a trained network.

    Args:
        model: the network; it is not changed.
        data: calibration data: a pair (inputs, targets), a `Dataset`, a `DataLoader`, or an iterable
            of batches.
        sparsity: fraction of the weights to prune, in [0, 1); may be None for an `N:M` budget.
        method: a name of `cbs.methods()`.
        scope: where the sparsity is met: every `row`, every `layer`, or the `network` as a whole.
        budget: `unstructured`, `columns`, or `N:M`: of every M neighbouring inputs of a row N stay, e.g.
            `2:4`. A convolution's inputs are its `in_channels * kh * kw` weights in that order, so that
            neighbours are places of a kernel, not channels as in hardware that wants 2:4.
        solver: a name of `solvers.available()`, for the methods that solve a selection problem.
        damping: added to the diagonal of every curvature, relative to its mean.
        gap: relative gap at which a search may stop.
        time_limit: seconds for all searches and bounds together, or None.
        patience: seconds that solver `auto` may try to prove one layer where there is no time limit, and past
            which a layer's status is `patience`; None for no end.
        seed: of every random choice.
        samples: how many samples to calibrate on. None: all of them, but 1000 for per-sample gradients.
        layers: names of the layers to prune; None for every `Linear` and ungrouped `Conv2d`.
        loss: of (outputs, targets), mean or sum over samples, or a value for each; refused if it is none of
            these, as with class weights in a mean: `reduction="sum"` is. Samples are seen one by one.
        certify: compute a lower bound for methods and solvers that give none.
        recalibrate: method `joint`: refit every layer to its dense outputs on the inputs that come
            out of the pruned layers before it.
        callback: called with every `Step`; a true answer stops the search, and what was found is kept.
        device: torch device for the network and for batched array work.
        test: held-out data to evaluate on too, in any form of `data`.

    Returns:
        The pruned copy, and values, bounds and gaps for network, layers and rows. After Ctrl-C, or
        past the time limit, the best found, which `status` tells.

    Raises:
        ValueError: for bad input, in one line.
    """
    return compare(
        model, data, sparsities=[sparsity], methods=[method], scope=scope, budget=budget, solver=solver,
        damping=damping, gap=gap, time_limit=time_limit, patience=patience, seed=seed, samples=samples,
        layers=layers, loss=loss, certify=certify, recalibrate=recalibrate, callback=callback,
        device=device, test=test,
    )[0]  # fmt: skip


@torch.inference_mode(False)
def compare(
    model: nn.Module,
    data: Any,
    *,
    sparsities: Sequence[float | None],
    methods: Sequence[str] | None = None,
    on_result: Callable[[PruneResult], Any] | None = None,
    finished: Sequence[PruneResult] = (),
    **options: Unpack[Options],
) -> list[PruneResult]:
    """Prune one network by several methods to several sparsities, and hold all against the best bounds.

    Curvatures are computed once; every result is charged for those it uses. All results of one
    sparsity get the best lower bound that any of them, or the relaxation, has proven.

    Args:
        model: the network; it is not changed.
        data: as in `prune`.
        sparsities: every sparsity to prune to.
        methods: names of `cbs.methods()`, all by default. `joint` runs first, for its bounds.
        on_result: called with every result as soon as it is there, with the bounds known by then, and
            again with those that are found later. What it raises ends the comparison.
        finished: results of an earlier call with the same arguments, which are taken as they are but for
            bounds that they lack. Interrupted ones are left out, and computed again.
        **options: any other argument of `prune`; the time limit is that of a single result.

    Returns:
        A result for every sparsity and method, in the order given. After an interruption those that
        were finished, and the one that was interrupted. A method that can't prune this network is left
        out, with a warning of class `LeftOut`.

    Raises:
        ValueError: for bad input, in one line, or if no method can prune this network.
    """
    if is_number(sparsities) or isinstance(methods, str):
        what, one = ("methods", methods) if isinstance(methods, str) else ("sparsities", sparsities)
        raise ValueError(f"{what} must be a list, such as [{one!r}]")
    chosen = [get_method(name) for name in (all_methods() if methods is None else methods)]
    asked: dict[str, Any] = {key: value for key, value in options.items() if key in REQUEST}
    requests = [Request(sparsity, **asked) for sparsity in sparsities]
    for request in requests:
        if request.solver != "auto":
            get_solver(request.solver)
        for method in chosen:
            method.check(request)
    given: dict[str, Any] = {key: value for key, value in options.items() if key in NETWORK}
    if (callback := options.get("callback")) is not None:
        callback(Step(chosen[0].name, "measure", asked=requests[0].fraction))
    network = Network(model, data, **given)
    if options.get("test") is not None:
        network.hold_out(gather(options["test"]))
    for request in requests:
        for layer in network.layers:
            request.layer_budget(layer)
        check_earlier(request, network.layers, network.earlier)
    references = References(network)
    hand_out = on_result or (lambda result: None)
    there = {(done.method, done.asked): done for done in finished if done.status != "interrupted"}
    results: list[PruneResult] = []
    failures: dict[str, ValueError] = {}
    for request in requests:
        runs: dict[str, Run] = {}
        for method in chosen:
            if (method.name, request.fraction) in there:
                watch = Watch(method.name, request, len(network.layers), options.get("callback"))
                done = there[method.name, request.fraction]
                runs[method.name] = take_up(done, request, watch, references)
        left = [method for method in chosen if method.name not in runs]
        for method in sorted(left, key=lambda method: method.name != "joint"):
            try:
                runs[method.name] = _run(network, method, request, references, options.get("callback"))
            except ValueError as error:
                failures.setdefault(method.name, error)
                continue
            hand_out(certify_result(runs[method.name], references, compute=False))
            if runs[method.name].watch.interrupted:
                break
        ordered = [runs[method.name] for method in chosen if method.name in runs]
        stopped = any(run.watch.interrupted for run in ordered)
        for run in ordered:
            results.append(certify_result(run, references, compute=not stopped))
            hand_out(results[-1])
            stopped = stopped or run.watch.interrupted
        if stopped:
            break
    if failures and not results:
        raise next(iter(failures.values()))
    for name, failure in failures.items():
        warnings.warn(f"method {name!r} is left out: {failure}", LeftOut, stacklevel=3)
    return results


def _run(
    network: Network, method: Method, request: Request, references: References, callback: Callback | None
) -> Run:
    watch = Watch(method.name, request, len(network.layers), callback)
    network.memo.reset()
    start, spent = time.perf_counter(), network.memo.spent
    with interruptible(watch.control):
        network.memo.tell = watch.computing
        watch.prepare(method.searches)
        start = time.perf_counter()
        plan = method.run(network, request, watch, references)
        watch.pause()
        computing = network.memo.spent - spent
        seconds = time.perf_counter() - start - computing + network.memo.charge
        watch.tell("evaluate")
        return assemble(network, request, watch, plan, seconds)
