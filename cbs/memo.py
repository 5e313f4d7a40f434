"""Values that are computed once and charged to everyone who uses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Memo:
    """A store of computed values that knows what each of them cost, itself and all it needed.

    Methods that share a store can so be compared by their seconds: one that finds a value ready is
    charged as much as the one that had to compute it.
    """

    def __init__(self) -> None:
        self.spent = 0.0
        """Seconds spent computing, in all."""
        self.tell: Callable[[Hashable], object] = lambda key: None
        """Told the key of a value that is about to be computed."""
        self._values: dict[Hashable, Any] = {}
        self._own: dict[Hashable, float] = {}
        self._needs: dict[Hashable, set[Hashable]] = {}
        self._used: set[Hashable] = set()
        self._nested: list[float] = []

    def __call__(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of `key`, from `compute()` the first time."""
        if key not in self._values:
            self.tell(key)
            outside, self._used = self._used, set()
            self._nested.append(0.0)
            start = time.perf_counter()
            try:
                self._values[key] = compute()
                self._needs[key] = self._used | {key}
            finally:
                elapsed = time.perf_counter() - start
                self._own[key] = elapsed - self._nested.pop()
                self._used = outside
                if self._nested:
                    self._nested[-1] += elapsed
                else:
                    self.spent += elapsed
        self._used |= self._needs[key]
        return self._values[key]  # type: ignore[no-any-return]

    def __contains__(self, key: Hashable) -> bool:
        """Whether the value of `key` is there already."""
        return key in self._values

    def reset(self) -> None:
        """Forget what was used; the values stay."""
        self._used = set()

    @property
    def charge(self) -> float:
        """Seconds that the values used since `reset` took to compute, whenever that was."""
        return sum(self._own[key] for key in self._used)
