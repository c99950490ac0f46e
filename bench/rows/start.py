"""One container by itself: from its start to a gateway that is ready, and the memory it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from bench.containers import Size, Variant, gateway, ours, seed
from bench.context import Bench
from bench.harness import Aim, Figure, Row, Series, single
from bench.images import Builder
from bench.stubs import host_seen_by_containers, stub

SMALLEST = Size(0.25, 512)
DEFAULT = Size(1, 2048)
REQUESTS, QUICK_REQUESTS, AT_ONCE = 1000, 200, 8

Make = Callable[[Builder], Variant]

FIRST_ANSWER = Row(
    f"container start to first answer at {SMALLEST}",
    "s",
    Aim(0.6),
    "At the first question both sides import more.",
)


def _ready(size: Size) -> Row:
    return Row(f"container start to ready at {size}", "s", Aim(0.6), "Docker's own limits.")


def _start(make: Make, size: Size) -> Callable[[Bench], float]:
    def measure(bench: Bench) -> float:
        bench.quiet()
        with gateway(bench.engine, make(bench.builder), size) as running:
            return running.seconds

    return measure


def _smallest(make: Make) -> Callable[[Bench], Iterator[Figure]]:
    def measure(bench: Bench) -> Iterator[Figure]:
        bench.quiet()
        with (
            stub(delay=0.001, host=host_seen_by_containers(bench.engine)) as bedrock,
            gateway(bench.engine, make(bench.builder), SMALLEST, bedrock) as running,
        ):
            yield _ready(SMALLEST).name, running.seconds
            began = time.monotonic()
            running.ask(1, 1)
            yield FIRST_ANSWER.name, running.seconds + time.monotonic() - began

    return measure


AT_READY = Row("memory at ready", "MB", Aim(1.0), f"Of the container's processes, at {DEFAULT}.")
AFTER = Row("memory after 1,000 requests", "MB", Aim(1.0), f"{AT_ONCE} at a time.")
GROWTH = Row(
    "memory, growth over 1,000 requests",
    "%",
    Aim(5, "ours"),
    "Flat: the second 500 requests against the first 500.",
)


def _memory(make: Make) -> Callable[[Bench], Iterator[Figure]]:
    def measure(bench: Bench) -> Iterator[Figure]:
        bench.quiet()
        half = (QUICK_REQUESTS if bench.quick else REQUESTS) // 2
        with (
            stub(delay=0.001, host=host_seen_by_containers(bench.engine)) as bedrock,
            gateway(bench.engine, make(bench.builder), DEFAULT, bedrock) as running,
        ):
            yield AT_READY.name, running.memory_megabytes()
            running.ask(half, AT_ONCE)
            middle = running.memory_megabytes()
            running.ask(half, AT_ONCE)
            end = running.memory_megabytes()
            yield AFTER.name, end
            yield GROWTH.name, 100 * (end - middle) / middle

    return measure


SERIES: tuple[Series[Bench], ...] = (
    Series(
        f"start at {SMALLEST}",
        (_ready(SMALLEST), FIRST_ANSWER),
        _smallest(ours),
        _smallest(seed),
    ),
    single(_ready(DEFAULT), _start(ours, DEFAULT), _start(seed, DEFAULT), runs=5),
    Series("memory", (AT_READY, AFTER, GROWTH), _memory(ours), _memory(seed), runs=2),
)
