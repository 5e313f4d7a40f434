"""Networks of a study by name: those of the package, and `FILE.py:NAME` of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from cbs.data import Samples, Split, gather
from cbs.study.calls import check_parameters, function, told


def network(
    name: str, seed: int, data_dir: Path | None
) -> tuple[nn.Module, Samples, Samples | None, list[str] | None]:
    """A trained network, its calibration data, its test data or None, and the layers to prune, None for all.

    Args:
        name: of `cbs.zoo`, or a function that gives `(model, data)` or `(model, data, test)`, in any form
            that `cbs.prune` takes; a `Split` is data and test data.
        seed: of its training, or of the data's order.
        data_dir: folder of data sets.

    Raises:
        ValueError: in one line, for what can't be found or is something else.
    """
    if ":" not in name:
        from cbs.zoo import trained

        found = trained(name, data_dir, seed)
        return found.model, found.train, found.test, found.layers
    if data_dir is not None:
        os.environ["CBS_DATA"] = str(data_dir)
    make = function(name)
    check_parameters(name, make, {})
    try:
        made: Any = make()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"model {name!r} can't be made ({told(error)})") from None
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not isinstance(made[0], nn.Module):
        raise ValueError(f"model {name!r} must give (model, data) or (model, data, test)")
    model, data, *rest = made
    if isinstance(data, Split):
        return model, data.train, data.test, None
    test = gather(rest[0], seed=seed, model=model) if rest and rest[0] is not None else None
    return model, gather(data, seed=seed, model=model), test, None
