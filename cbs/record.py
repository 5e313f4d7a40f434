"""Results as JSON: dataclasses to plain records, and parts of records back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from cbs.network.evaluate import Evaluation

T = TypeVar("T")


def as_record(item: Any, skip: tuple[str, ...] = ()) -> Any:
    """A dataclass as a mapping of plain values, with its gap where it has one; what is not finite is None.

    Args:
        item: a dataclass, or what its fields hold.
        skip: fields of it to leave out.
    """
    if is_dataclass(item):
        record = {f.name: as_record(getattr(item, f.name)) for f in fields(item) if f.name not in skip}
        if hasattr(item, "gap"):
            record["gap"] = item.gap
        return record
    if isinstance(item, Mapping):
        return {str(key): as_record(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [as_record(value) for value in item]
    if hasattr(item, "tolist"):
        return as_record(item.tolist())
    return item if not isinstance(item, float) or math.isfinite(item) else None


def made(kind: type[T], record: Mapping[str, Any], **other: Any) -> T:
    """A part from its record, which holds its gap as well."""
    return kind(**{name: value for name, value in record.items() if name != "gap"} | other)


def evaluated(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A record whose entries of these names are evaluations, or None."""
    return {
        name: Evaluation(**value) if name in names and value is not None else value
        for name, value in record.items()
    }
