"""What is asked of a pruning, as arguments of functions: `Request` is where all of them are described."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from cbs.names import unknown
from cbs.request import Finetune, Request

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from cbs.network.losses import Loss
    from cbs.schedule.growth import Schedule
    from solvers import Solver

F = TypeVar("F", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """The fields of `Request` that `prune` and `compare` share, for type checkers."""

    scope: str
    budget: str
    granularity: str | None
    solver: str | Solver
    gap: float
    time_limit: float | None
    patience: float | None
    damping: float
    samples: int | None
    layers: Sequence[str] | None
    exclude: Sequence[str] | None
    along: str
    loss: str | Loss
    output: int | str | Callable[[Any], Any] | None
    padding: str | None
    certify: bool
    pipeline: str
    refit: str | None
    match: str | None
    labels: bool
    norms: bool | None
    reselect: bool | None
    stages: int | str | Schedule
    finetune: int | Mapping[str, Any] | Finetune | None
    max_loss_increase: float | None
    max_accuracy_drop: float | None
    seed: int
    memory: float | None
    device: str
    executor: str | Executor | None


def helps() -> dict[str, str]:
    """For every field of `Request` what its docstring says of it, in one line."""
    text = inspect.cleandoc(Request.__doc__ or "")  # none under `python -OO`
    found = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE))
    return {field.name: " ".join(found.get(field.name, "").split()) for field in fields(Request)}


def takes_a_request(function: F) -> F:
    """Show the fields of `Request` in a function's signature and docstring, instead of its `**options`.

    Args:
        function: that takes `Options`; a line `**options` of its docstring gives place to theirs.
    """
    own = dict(inspect.signature(function).parameters)
    (rest,) = (name for name, parameter in own.items() if parameter.kind is parameter.VAR_KEYWORD)
    del own[rest]
    kind = inspect.Parameter.KEYWORD_ONLY
    asked = {
        field.name: own.get(field.name)
        or inspect.Parameter(field.name, kind, default=field.default, annotation=field.type)
        for field in fields(Request)
        if field.name in own or field.name in Options.__annotations__
    }
    first = {name: p for name, p in own.items() if p.kind is not kind or p.default is p.empty}
    parameters = first | asked | own
    function.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    lines = [
        textwrap.fill(
            f"{name}: {text}", 108, initial_indent=" " * 8, subsequent_indent=" " * 12, break_on_hyphens=False
        )
        for name, text in helps().items()
        if name in asked
    ]
    if function.__doc__ is not None:
        function.__doc__ = re.sub(r" *\*\*options.*", lambda _: "\n".join(lines), function.__doc__)
    return function


def check_options(function: Callable[..., Any], options: Iterable[str]) -> None:
    """Refuse options that a function does not show.

    Raises:
        TypeError: in one line, with the nearest name.
    """
    known = list(inspect.signature(function).parameters)
    for name in options:
        if name not in known:
            raise TypeError(f"{function.__name__}: {unknown('option', name, known)}")
