import inspect
from dataclasses import fields
from typing import get_args

import pytest
import typer

import cbs
from cbs.arguments import Options, check_options, helps
from cbs.cli import prune as command
from cbs.request import Request

NAMES = [field.name for field in fields(Request)]


@pytest.mark.parametrize("name", NAMES)
def test_python_and_the_command_line_ask_for_the_same(name):
    """A field's default and help are the same in `prune`, in `compare` and in `cbs prune`."""
    field = Request.__dataclass_fields__[name]
    assert inspect.signature(cbs.prune).parameters[name].default == field.default
    assert helps()[name] in " ".join(cbs.prune.__doc__.split())
    option = inspect.signature(command.prune).parameters[name]
    hint, told = get_args(option.annotation)
    assert isinstance(told, typer.models.OptionInfo)
    assert 15 < len(told.help) < 130
    if name in ("sparsity", "method"):  # the command line takes several
        assert name not in Options.__annotations__
    else:
        assert inspect.signature(cbs.compare).parameters[name].default == field.default
        assert Options.__annotations__[name].__forward_arg__ == field.type
        assert option.default == (str(field.default) if name == "stages" else field.default)
    if name == "method":
        assert f"[default: {field.default}" in told.help
    if name not in ("sparsity", "method", "layers", "stages"):  # stages are typed as text
        assert field.default is None or isinstance(field.default, hint)


def test_every_field_has_a_help():
    assert list(helps()) == NAMES
    assert all(len(text) > 15 and text.endswith(".") for text in helps().values())
    for function in (cbs.prune, cbs.compare):
        assert "**options" not in function.__doc__
        assert max(map(len, function.__doc__.splitlines())) <= 110
        for name in inspect.signature(function).parameters:
            assert f"\n        {name}: " in function.__doc__


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (cbs.prune, {"time_limt": 60}, "prune: unknown option 'time_limt'; did you mean 'time_limit'?"),
        (cbs.prune, {"sparsty": 60}, "did you mean 'sparsity'"),
        (cbs.prune, {"x": 60}, "prune: unknown option 'x'; known: model, data, sparsity, method, scope, "),
        (cbs.compare, {"time_limt": 60}, "compare: unknown option 'time_limt'; did you mean 'time_limit'?"),
        (cbs.compare, {"sparsity": 0.5}, "did you mean 'sparsities'"),
        (cbs.compare, {"method": "joint"}, "did you mean 'methods'"),
        (cbs.compare, {"on_results": print}, "did you mean 'on_result'"),
    ],
)
def test_unknown_options_are_refused_before_any_work(function, options, message):
    ask = {"sparsity": 0.5} if function is cbs.prune else {"sparsities": [0.5]}
    with pytest.raises(TypeError) as error:
        function("no network", None, **ask | options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    check_options(function, ask)
