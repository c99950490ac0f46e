"""Runs the measurements, reference and ours alternately, and keeps every figure.

Knows nothing of labs. A row is one line of the results. A series measures one or several rows that
come out of the same work: each side of it is a function that yields a row's name and a figure as
soon as it has one. Figures that were yielded before a failure count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from lab.durations import format_duration

C = TypeVar("C")
Figure = tuple[str, float]
Log = Callable[[str], None]
SideName = Literal["reference", "ours"]
SIDES: tuple[SideName, ...] = ("reference", "ours")

#: A side that has failed this often is not tried again: it would cost the others their time.
MOST_FAILURES = 2


@dataclass(frozen=True)
class Aim:
    """The most that a figure may be: the ratio to the reference, or ours by itself."""

    at_most: float
    of: Literal["ratio", "ours"] = "ratio"


@dataclass(frozen=True)
class Row:
    """A line of the results. ``note`` says what the figures are, if the name does not."""

    name: str
    unit: str
    aim: Aim | None = None
    note: str = ""


@dataclass(frozen=True)
class Series(Generic[C]):
    """Work that gives figures for ``rows``. A missing side is ``None``.

    A side is a generator function over the context: it yields figures and, in its ``finally``,
    removes what it made; it may be closed early, once all wanted rows have a figure.
    """

    name: str
    rows: tuple[Row, ...]
    ours: Callable[[C], Iterator[Figure]] | None
    reference: Callable[[C], Iterator[Figure]] | None = None
    runs: int = 3
    quick_runs: int = 1

    def side(self, name: SideName) -> Callable[[C], Iterator[Figure]] | None:
        """The function of one side."""
        return self.ours if name == "ours" else self.reference


def single(
    row: Row,
    ours: Callable[[C], float] | None,
    reference: Callable[[C], float] | None = None,
    **options: Any,
) -> Series[C]:
    """A series of one row whose sides return one figure."""

    def of(function: Callable[[C], float] | None) -> Callable[[C], Iterator[Figure]] | None:
        if function is None:
            return None

        def measure(context: C) -> Iterator[Figure]:
            yield row.name, function(context)

        return measure

    return Series(row.name, (row,), of(ours), of(reference), **options)


@dataclass(frozen=True)
class Failure:
    """A side that ended before it had given all its figures."""

    series: str
    side: SideName
    run: int
    said: str


@dataclass
class Measured:
    """Everything that was measured: each run's figures, in the order in which they came."""

    figures: dict[str, dict[SideName, list[float]]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, row: str, side: SideName, value: float) -> None:
        """Keep one figure."""
        self.figures.setdefault(row, {}).setdefault(side, []).append(value)

    def median(self, row: str, side: SideName) -> float | None:
        """The median of a row's figures of one side; ``None`` where there is none."""
        values = self.figures.get(row, {}).get(side)
        return statistics.median(values) if values else None


def choose(
    series: Sequence[Series[C]], wanted: Sequence[str]
) -> list[tuple[Series[C], frozenset[str]]]:
    """Each series with a wanted row, and the names of its wanted rows.

    ``wanted`` names rows or series; an empty one means all. Raises KeyError for an unknown name.
    """
    names = {s.name for s in series} | {row.name for s in series for row in s.rows}
    for name in wanted:
        if name not in names:
            raise KeyError(name)
    chosen = []
    for one in series:
        rows = frozenset(
            row.name for row in one.rows if not wanted or one.name in wanted or row.name in wanted
        )
        if rows:
            chosen.append((one, rows))
    return chosen


def run(
    series: Sequence[tuple[Series[C], frozenset[str]]],
    context: C,
    log: Log,
    *,
    quick: bool = False,
    budget: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
    measured: Measured | None = None,
) -> Measured:
    """Measure every series and return the results; a failure is logged and stops no other series.

    After ``budget`` seconds each remaining series runs only once.
    """
    measured = measured or Measured()
    began = clock()
    for one, wanted in series:
        began_series = clock()
        sides = [name for name in SIDES if one.side(name) is not None]
        failed = dict.fromkeys(sides, 0)
        for number in range(1, (one.quick_runs if quick else one.runs) + 1):
            if number > 1 and clock() - began > budget:
                log(f"{one.name}: no further run, {format_duration(budget)} have gone")
                break
            for name in sides:
                if failed[name] >= MOST_FAILURES:
                    continue
                log(f"{one.name}, run {number}, {name}")
                try:
                    _run_side(one, name, wanted, context, measured, log)
                except Exception as error:
                    failed[name] += 1
                    said = str(error) or type(error).__name__
                    measured.failures.append(Failure(one.name, name, number, said))
                    log(f"{one.name}, run {number}, {name} FAILED: {said}")
        measured.seconds[one.name] = round(clock() - began_series, 1)
    return measured


def _run_side(
    series: Series[C],
    side: SideName,
    wanted: frozenset[str],
    context: C,
    measured: Measured,
    log: Log,
) -> None:
    function = series.side(side)
    assert function is not None
    units = {row.name: row.unit for row in series.rows}
    left = set(wanted)
    figures: Any = function(context)
    with closing(figures):
        for name, value in figures:
            if name not in units:
                raise KeyError(f"{series.name} has no row {name!r}")
            if name in wanted:
                measured.add(name, side, value)
                log(f"  {name}: {value:.4g} {units[name]} ({side})")
            left.discard(name)
            # A series that is wanted as a whole runs to its end: a row may get several figures.
            if not left and len(wanted) < len(series.rows):
                return


def result_rows(series: Iterable[Series[Any]], measured: Measured) -> list[dict[str, Any]]:
    """The results, one mapping for each row: medians, their ratio, and whether the aim is met.

    ``met`` is ``None`` for a row without an aim, and false if a figure is missing.
    """
    rows = []
    for row in (row for one in series for row in one.rows):
        reference, ours = (measured.median(row.name, side) for side in SIDES)
        ratio = None
        # A ratio of two percentages, which may be below zero, says nothing.
        if ours is not None and reference and row.unit != "%":
            ratio = ours / reference
        judged = ratio if row.aim and row.aim.of == "ratio" else ours
        rows.append(
            {
                "name": row.name,
                "unit": row.unit,
                "reference": _rounded(reference),
                "ours": _rounded(ours),
                "ratio": _rounded(ratio),
                "aim": row.aim.at_most if row.aim else None,
                "met": None
                if row.aim is None
                else judged is not None and judged <= row.aim.at_most,
            }
        )
    return rows


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
