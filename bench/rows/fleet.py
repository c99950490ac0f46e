"""Several labs that are brought up at one moment. The seed's names are fixed: it has only one lab.

Therefore the reference is one of our labs by itself: with several at once, the time for each falls
below that until the machine's processors are full.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapters.aws.registry import Registry
from bench.context import Bench
from bench.harness import Aim, Figure, Row, Series

SIZES = (3, 6)
ROWS = {
    size: Row(
        f"{size} labs at once, each",
        "s",
        Aim(1.0),
        "The time until the last is up, by their number. Reference: one of our labs by itself.",
    )
    for size in SIZES
}


def alone(bench: Bench) -> Iterator[Figure]:
    """One lab, its image in the registry."""
    _ensure_image(bench)
    seconds, _ = _up_and_down(bench, 1)
    for row in ROWS.values():
        yield row.name, seconds


def at_once(bench: Bench) -> Iterator[Figure]:
    """Some labs, then more."""
    _ensure_image(bench)
    for size in SIZES[:1] if bench.quick else SIZES:
        seconds, stages = _up_and_down(bench, size)
        bench.keep(ROWS[size].name, "ours", stages)
        yield ROWS[size].name, seconds / size


def _ensure_image(bench: Bench) -> None:
    """On return the registry holds the image: it is pushed once, however many labs there are."""
    repository, tag = bench.builder.ours().rpartition(":")[::2]
    if not Registry(bench.stack.cloud, repository.partition("/")[2]).digest(tag):
        _up_and_down(bench, 1)


def _up_and_down(bench: Bench, size: int) -> tuple[float, list[object]]:
    labs = [f"bench-{number}" for number in range(size)]
    try:
        seconds, runs = bench.stack.up_at_once(labs)
        stages = [
            [s.model_dump(mode="json") for s in run.report.stages] for run in runs if run.report
        ]
    finally:
        bench.stack.down_at_once(labs)
    return seconds, list(stages)


SERIES = Series("labs at once", tuple(ROWS.values()), at_once, alone, runs=1)
