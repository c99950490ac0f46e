"""A lab's life, from nothing to nothing: first up, up again, rebuild, down. And its image's size.

Both sides begin on a new local cloud with no image built. All steps of a side share one run,
because each needs what those before it made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from bench.context import Bench
from bench.harness import Aim, Figure, Row, Series
from bench.images import SEED, compressed_megabytes
from bench.seed_sequence import SeedSequence
from bench.stack import FlowRun
from lab import names
from lab.errors import PermanentError

LAB = "bench"

FIRST_UP = Row(
    "first up", "s", Aim(0.5), "Nothing built or pushed; base image and wheels on the machine."
)
IMAGE = Row("image, compressed", "MB", Aim(0.35), "What the registry holds and Fargate pulls.")
LIVE_UP = Row("up on a live lab", "s", Aim(0.1), "Nothing is to be changed.")
REBUILD = Row("rebuild", "s", Aim(0.25), "Down and up, the image unchanged.")
DOWN = Row("down", "s", Aim(0.6))
TO_FIRST_TASK = Row(
    "Prefect, scheduled to first task",
    "s",
    Aim(5, "ours"),
    "Of every up of this series: the worker's poll, a process, Prefect's import.",
)
AFTER_FIRST_TASK = Row(
    "Prefect, after the first task",
    "%",
    Aim(2, "ours"),
    "Of an up that makes a lab, from its first task to its end: what no stage on the critical path "
    "accounts for. On a live lab hardly any tool works, so nearly all of the up is such time.",
)


def ours(bench: Bench) -> Iterator[Figure]:
    """The lab's life, through Prefect's deployments."""
    stack = bench.stack
    stack.start_over()
    with ExitStack() as exits:
        exits.callback(stack.down, LAB)
        first = stack.up(LAB)
        yield from _up(bench, FIRST_UP, first)
        yield IMAGE.name, compressed_megabytes(stack.cloud, names.repository_name(), _tag(first))
        yield from _up(bench, LIVE_UP, stack.up(LAB))
        rebuilt = stack.rebuild(LAB)
        yield from _up(bench, REBUILD, rebuilt)
        for made in (first, rebuilt):
            yield AFTER_FIRST_TASK.name, made.overhead_percent
        yield DOWN.name, stack.down(LAB).seconds
        exits.pop_all()


def reference(bench: Bench) -> Iterator[Figure]:
    """The seed's life, in its own order. Its down removes the repository, so it pushes again."""
    bench.stack.start_over()
    seed = bench.reference()
    with ExitStack() as exits:
        exits.callback(seed.down)
        yield FIRST_UP.name, _seed_up(bench, FIRST_UP, seed)
        yield IMAGE.name, compressed_megabytes(bench.stack.cloud, SEED, "latest")
        yield LIVE_UP.name, _seed_up(bench, LIVE_UP, seed)
        down = seed.down()
        yield DOWN.name, down
        yield REBUILD.name, down + _seed_up(bench, REBUILD, seed)
        yield DOWN.name, seed.down()
        exits.pop_all()


def _seed_up(bench: Bench, row: Row, seed: SeedSequence) -> float:
    seconds = seed.up()
    bench.keep(row.name, "reference", [s.model_dump(mode="json") for s in seed.stages])
    return seconds


def _up(bench: Bench, row: Row, run: FlowRun) -> Iterator[Figure]:
    assert run.report is not None
    bench.keep(row.name, "ours", [s.model_dump(mode="json") for s in run.report.stages])
    yield row.name, run.seconds
    yield TO_FIRST_TASK.name, run.until_first_task


def _tag(run: FlowRun) -> str:
    if run.report is None or run.report.image is None:
        raise PermanentError("the up's report names no image")
    return run.report.image.tag


SERIES = Series(
    "life",
    (FIRST_UP, IMAGE, LIVE_UP, REBUILD, DOWN, TO_FIRST_TASK, AFTER_FIRST_TASK),
    ours,
    reference,
    # The longest series by far: a third run would take a quarter of an hour.
    runs=2,
)
