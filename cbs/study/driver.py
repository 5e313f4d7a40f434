"""The driver of a study: claims planned cells, hands them to workers, and alone writes what comes back.

Whenever driver or worker is killed, the store holds every cell that was finished; those in flight are run
again. A cell is claimed by an update of the table that succeeds once, so that drivers that share a store
never run one twice at the same time. A driver says every few seconds that it is alive; the cells of one that
fell silent, or whose process on this machine is gone, are planned again.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cbs.study.cell import Answer, Cell
from cbs.study.database import Away, Full, Unfit
from cbs.study.frames import read
from cbs.study.grid import Grid, grid
from cbs.study.machine import machine, revision, version
from cbs.study.owner import gone, owner
from cbs.study.planning import keyed
from cbs.study.schema import DONE, FAILED, PLANNED, RUNNING
from cbs.study.store import Store
from cbs.study.studyfile import Study
from cbs.study.work import work
from solvers.executors import MemoryLimitExceeded, ProcessDied, TimeLimitExceeded, executor

if TYPE_CHECKING:
    import pandas as pd

    from solvers.executors import Measured
    from solvers.executors.base import Workers

BEAT = 5.0
"""Seconds between two signs of life."""
SILENCE = 60.0
"""Seconds without one, as this driver's clock has it, after which another machine's driver is taken for
dead.
"""
ROOM = 60.0
"""Seconds for which a full disk, a lock or a database that is away is waited for before the driver gives up.
"""
LONGEST = 2000
"""Letters of an error that are kept."""
POLL = 0.5
"""Seconds between two looks at what else there is to do."""


@dataclass
class Standing:
    """Where a run stands, for whoever shows it.

    Attributes:
        total: cells of the study.
        done: finished, in this run or before.
        failed: of them, those without a result.
        fresh: finished in this run.
        running: in work here.
        elsewhere: in work by other drivers.
        left: seconds that the rest may take, or None where nothing is known.
        last: the cell that ended last, in words.
        lost: attempts that ended with their worker and are made again.
        left_out: see `cbs.study.grid.Grid`.
    """

    total: int = 0
    done: int = 0
    failed: int = 0
    fresh: int = 0
    running: int = 0
    elsewhere: int = 0
    left: float | None = None
    last: str = ""
    lost: int = 0
    left_out: dict[str, int] = field(default_factory=dict)


Shown = Callable[[Standing], None]
Given = TypeVar("Given")
_drivers = count()


def run(
    study: Study | str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] | None = None,
    on: str | None = None,
    workers: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    retry: bool = False,
    only: str | None = None,
    known: str | os.PathLike[str] | None = None,
    shown: Shown = lambda standing: None,
    told: Callable[[str], None] = lambda what: None,
) -> Standing:
    """Run what is missing of a study.

    Args:
        study: it, or the path of its file.
        store: path or URL of the store; by default what the study says.
        on: where the work is done, see `solvers.executor`; by default what the study says, else processes of
            this machine.
        workers: how many cells at once; by default as many as there are cores for their threads.
        data_dir: folder of data sets; by default that of `CBS_DATA`.
        retry: whether failed cells are run again.
        only: of the study's cells those whose instance or solver has this text, or matches this pattern; the
            others stay what they are.
        known: a table that `cbs study export` wrote, perhaps elsewhere: what it has of the study's cells is
            taken, and not run again.
        shown: hears where the run stands, about twice a second.
        told: hears what is being read or made before the work.

    Returns:
        Where it stands at the end. After Ctrl-C it raises KeyboardInterrupt, with all that was finished in
        the store.

    Raises:
        ValueError: in one line, for bad input, a store or cluster that can't be reached, before any work.
        OSError: if the store's disk stays full, or the cluster is lost; everything that was taken is kept.
    """
    study = study if isinstance(study, Study) else Study.load(study)
    folder = data_dir or os.environ.get("CBS_DATA")
    top = study.top
    place, planned = store or study.store, False
    made = "://" not in os.fspath(place) and not Path(place).exists()
    with Store.open(place, create=True) as there:
        spec = on or top["executor"] or "processes"
        try:
            with executor(spec, workers=workers, threads=top["threads"], memory=top["memory"]) as pool:
                found = grid(study, Path(folder) if folder else None, told).only(only)
                results = None if known is None else read(known)
                driver = Driver(study, found, there, pool, shown)
                planned = True
                return driver.go(retry, results)
        finally:
            if made and not planned:
                there.close()
                Path(place).unlink(missing_ok=True)


class Driver:
    """One run of a study: see `run`.

    Args:
        study: for names and limits.
        found: its cells.
        store: where they are kept.
        pool: where they are run.
        shown: hears where the run stands.
    """

    def __init__(self, study: Study, found: Grid, store: Store, pool: Workers, shown: Shown) -> None:
        self.study, self.found, self.store, self.pool, self.shown = study, found, store, pool, shown
        self.owner = f"{owner()}#{next(_drivers)}"
        self.code, self.machine = study.top["version"] or version(), study.top["machine"] or machine()
        self.cells = keyed(found.cells, self.code, self.machine)
        self.standing = Standing(total=len(self.cells), left_out=found.left_out)
        self.waiting: deque[str] = deque()
        self.running: dict[Future[Measured[Answer]], str] = {}
        self.elsewhere: dict[str, tuple[float | None, float]] = {}
        self.kept: deque[tuple[str, Answer | str, str]] = deque()
        self.costs: dict[str, tuple[int, float]] = {}
        self._beaten = self._looked = self._told = -float("inf")

    def go(self, retry: bool, known: pd.DataFrame | None = None) -> Standing:
        """Run all planned cells but those whose results are known."""
        self.store.plan(
            self.found.cells, study=self.study.name, version=self.code, machine=self.machine,
            revision=revision(), whole=self.found.whole,
        )  # fmt: skip
        if known is not None:
            self.store.take_in(known)
        if retry:
            self.store.retry(list(self.cells))
        try:
            self._look()
            while self.waiting or self.running or self.elsewhere or self.kept:
                self._submit()
                self._beat()
                self._tell()
                if self.running:
                    ended, _ = wait(self.running, timeout=POLL, return_when=FIRST_COMPLETED)
                    for future in ended:
                        self._take(future)
                else:
                    time.sleep(POLL if self.elsewhere else 0.0)
                self._write()
                self._look()
        finally:
            self._abandon()
        self._tell(at_once=True)
        return self.standing

    def _submit(self) -> None:
        """Keep the workers busy, with one cell more than there are, so that none waits for the store."""
        while self.waiting and len(self.running) < self.pool.workers + 1:
            key = self.waiting.popleft()
            if not self._patiently(partial(self.store.claim, key, self.owner)):
                continue
            cell = self.cells[key]
            assert cell.payload is not None
            try:
                payload = cell.payload()
            except Exception as error:
                self.kept.append((key, _line(error), ""))
                continue
            try:
                future = self.pool.call(work, cell.kind, payload, seconds=self._limit(cell), key=key)
            except BrokenExecutor as error:
                self._patiently(partial(self.store.release, key, self.owner, _line(error)))
                raise ConnectionError(
                    f"{' '.join(str(error).split())}; what is finished is in the store, and the same command "
                    "goes on"
                ) from None
            except Exception as error:
                self.kept.append((key, _line(error), ""))
                continue
            self.running[future] = key

    def _limit(self, cell: Cell) -> float | None:
        """Seconds after which a worker is stopped from outside."""
        if cell.time_limit is None:
            return None
        return 1.5 * cell.time_limit + float(self.study.top["grace"])

    def _take(self, future: Future[Measured[Answer]]) -> None:
        """What a cell came to."""
        key = self.running.pop(future)
        cell = self.cells[key]
        try:
            measured = future.result()
        except (TimeLimitExceeded, MemoryLimitExceeded) as error:
            self.kept.append((key, _line(error), ""))
        except (ProcessDied, CancelledError) as error:
            attempts = self._patiently(partial(self.store.states, [key]))[key][3]
            if attempts < self.study.top["attempts"]:
                self.standing.lost += 1
                if self._patiently(partial(self.store.release, key, self.owner, _line(error))):
                    self.waiting.append(key)
            else:
                self.kept.append((key, f"{_line(error)}, {attempts} times", ""))
        except Exception as error:
            self.kept.append((key, _line(error), ""))
        else:
            answer = measured.value
            columns = {"cpu_seconds": measured.cpu_seconds, "memory": measured.memory, **answer.columns}
            cells, seconds = self.costs.get(cell.solver, (0, 0.0))
            self.costs[cell.solver] = (cells + 1, seconds + measured.seconds)
            self.kept.append((key, Answer(columns, answer.result, answer.arrays), measured.host))

    def _write(self, *, patient: bool = True) -> None:
        """Put what came back into the store."""
        while self.kept:
            key, found, host = self.kept[0]
            ended = self.store.fail if isinstance(found, str) else self.store.finish
            try:
                step = partial(ended, key, self.owner, found, host)  # type: ignore[arg-type]
                mine = self._patiently(step) if patient else step()
            except Unfit as error:
                self.kept[0] = (key, _line(error), host)
                continue
            self.kept.popleft()
            if mine:
                self.standing.done += 1
                self.standing.fresh += 1
                self.standing.failed += isinstance(found, str)
                self.standing.last = _words(self.cells[key], found)

    def _patiently(self, step: Callable[[], Given]) -> Given:
        """What a step of the store gives; room on its disk, the end of a lock and its server are waited for.

        Raises:
            OSError: if there is no room for `ROOM` seconds.
            ValueError: if it can't be used for as long.
        """
        late = time.monotonic() + ROOM
        while True:
            try:
                return step()
            except (Full, Away) as error:
                if time.monotonic() > late:
                    lost = f", {len(self.kept)} finished cells are not in it" if self.kept else ""
                    told = f"{error}; what is in it is whole{lost}; the same command goes on"
                    raise (OSError if isinstance(error, Full) else ValueError)(told) from None
                self.standing.last = f"{error}; waiting for {'room' if isinstance(error, Full) else 'it'}"
                self._tell(at_once=True)
                time.sleep(POLL)

    def _look(self) -> None:
        """Find out what there is to do, now and then, and whose drivers are gone."""
        now = time.monotonic()
        if self.waiting or (self.running and now < self._looked + 10 * POLL):
            return
        self._looked = now
        states = self._patiently(partial(self.store.states, list(self.cells)))
        mine = set(self.running.values()) | {key for key, *_ in self.kept}
        others: dict[str, tuple[float | None, float]] = {}
        for key, (state, who, heartbeat, _) in states.items():
            if state != RUNNING or key in mine:
                continue
            before, since = self.elsewhere.get(key, (heartbeat, now))
            since = since if before == heartbeat else now
            if who in (None, self.owner) or gone(str(who)) or now > since + SILENCE:
                self._patiently(partial(self.store.release, key, who, "its driver is gone"))
                states[key] = (PLANNED, None, None, 0)
            else:
                others[key] = (heartbeat, since)
        self.elsewhere = others
        self.waiting = deque(key for key in self.cells if states[key][0] == PLANNED)
        self.standing.done = sum(state in (DONE, FAILED) for state, *_ in states.values())
        self.standing.failed = sum(state == FAILED for state, *_ in states.values())

    def _beat(self) -> None:
        if self.running and time.monotonic() > self._beaten + BEAT:
            self._beaten = time.monotonic()
            try:
                self.store.beat(self.owner)
            except (Full, Away):  # what is finished says so, too
                pass

    def _tell(self, *, at_once: bool = False) -> None:
        """Show where it stands, now and then: what the rest may take is a sum over all that waits."""
        if not at_once and time.monotonic() < self._told + POLL:
            return
        self._told = time.monotonic()
        self.standing.running, self.standing.elsewhere = len(self.running), len(self.elsewhere)
        self.standing.left = self._left()
        self.shown(self.standing)

    def _left(self) -> float | None:
        """Seconds that the rest may take, by what cells of the same solver took."""
        if not self.costs:
            return None
        usual = sum(seconds for _, seconds in self.costs.values()) / sum(n for n, _ in self.costs.values())
        means = {solver: seconds / cells for solver, (cells, seconds) in self.costs.items()}
        rest = [*self.waiting, *self.running.values()]
        return sum(means.get(self.cells[key].solver, usual) for key in rest) / max(self.pool.workers, 1)

    def _abandon(self) -> None:
        """Keep what is finished, stop what runs, and plan that again."""
        if not (self.running or self.kept):
            return
        for future in [future for future in self.running if future.done()]:
            self._take(future)
        failed = [entry for entry in self.kept if isinstance(entry[1], str)]  # perhaps by what ends the run
        self.kept = deque(entry for entry in self.kept if not isinstance(entry[1], str))
        with suppress(Full, Away):  # then they are run again
            self._write(patient=False)
        self.pool.shutdown(wait=False, cancel_futures=True)
        for key in [*self.running.values(), *(key for key, *_ in (*self.kept, *failed))]:
            try:
                self.store.release(key, self.owner, "interrupted")
            except (OSError, ValueError):  # its silence says the same
                return


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    told = isinstance(error, ValueError | ProcessDied | TimeLimitExceeded | MemoryLimitExceeded)
    line = f"{name}: {text}" if text and not told else text or name
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _words(cell: Cell, found: Answer | str) -> str:
    head = f"{cell.instance}, {cell.solver}"
    if isinstance(found, str):
        return f"{head}: failed: {found}"
    columns: dict[str, Any] = dict(found.columns)
    parts = [str(columns["status"])] if columns.get("status") else []
    if isinstance(columns.get("gap"), float):
        parts.append(f"gap {columns['gap']:.2%}")
    if isinstance(columns.get("accuracy"), float):
        parts.append(f"accuracy {columns['accuracy']:.2%}")
    if isinstance(columns.get("seconds"), float):
        parts.append(f"{columns['seconds']:.2f} s")
    return f"{head}: {', '.join(parts) or 'done'}"
