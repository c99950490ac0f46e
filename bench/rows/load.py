"""One gateway under load: what it adds to a call of Bedrock, and what each task size carries.

Bedrock is a stub. The time of a direct call is also measured, with as many in flight, and
subtracted. The reference is stock LiteLLM with its defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.containers import Gateway, Size, Variant, gateway, ours, seed
from bench.context import Bench
from bench.harness import Aim, Figure, Row, Series
from bench.images import Builder
from bench.load import Question, load
from bench.stubs import host_seen_by_containers, stub
from lab.fargate import Architecture, Capacity
from lab.report.cost import load_prices
from lab.settings import Settings

SIZE = Size(1, 2048)
DELAY = 0.001
IN_FLIGHT = (1, 8, 32, 128)
STREAMS = (1, 8)
SECONDS, WARM_UP_SECONDS = 4.0, 2.0
#: With few in flight there are few answers, and the slowest hundredth of few is chance.
LONGER = {1: 12.0, 8: 8.0}
#: The number in flight for requests per second and for the processor's time of each.
FULL = 32
SIZES = (Size(0.25, 512), Size(0.5, 1024), Size(1, 2048), Size(2, 4096))

OWN = {
    (number, share): Row(
        f"gateway's own time, {number} in flight, {share}",
        "ms",
        Aim(1.0),
        f"Less the direct call, at {SIZE}." if number == 1 else "",
    )
    for number in IN_FLIGHT
    for share in ("p50", "p99")
}
FIRST = {
    (number, share): Row(
        f"first token of a stream, {number} in flight, {share}", "ms", Aim(1.0), "Less the direct."
    )
    for number in STREAMS
    for share in ("p50", "p99")
}
PROCESSOR = Row("processor's time per request", "ms", Aim(1.0), f"{FULL} in flight.")
PER_SECOND = Row("requests per second per vCPU", "1/s", None, f"{FULL} in flight; more is better.")

START = {size: Row(f"task of {size}: start to ready", "s") for size in SIZES}
RATE = {
    size: Row(f"task of {size}: requests per second", "1/s", None, f"{FULL} in flight.")
    for size in SIZES
}
PRICE = {
    size: Row(f"task of {size}: price", "USD/h", None, "On demand, x86_64, address and secrets.")
    for size in SIZES
}

Make = Callable[[Builder], Variant]


def _under_load(make: Make) -> Callable[[Bench], Iterator[Figure]]:
    def measure(bench: Bench) -> Iterator[Figure]:
        bench.quiet()
        with (
            stub(delay=DELAY, host=host_seen_by_containers(bench.engine)) as bedrock,
            gateway(bench.engine, make(bench.builder), SIZE, bedrock) as running,
        ):
            for stream in (False, True):
                load(running.question(stream=stream), FULL, WARM_UP_SECONDS)
            yield from _whole(running, bedrock)
            yield from _streamed(running, bedrock)

    return measure


def _whole(running: Gateway, bedrock: str) -> Iterator[Figure]:
    direct = Question(f"{bedrock}/model/any/converse", "{}")
    for number in IN_FLIGHT:
        seconds = LONGER.get(number, SECONDS)
        alone = load(direct, number, seconds / 2)
        before = running.cpu_seconds()
        through = load(running.question(), number, seconds)
        yield OWN[number, "p50"].name, through.p50 - alone.p50
        yield OWN[number, "p99"].name, through.p99 - alone.p99
        if number == FULL:
            took = running.cpu_seconds() - before
            yield PROCESSOR.name, 1000 * took / through.requests
            yield PER_SECOND.name, through.per_second / SIZE.vcpu


def _streamed(running: Gateway, bedrock: str) -> Iterator[Figure]:
    direct = Question(f"{bedrock}/model/any/converse-stream", "{}")
    for number in STREAMS:
        alone = load(direct, number, LONGER[number] / 2)
        through = load(running.question(stream=True), number, LONGER[number])
        yield FIRST[number, "p50"].name, through.first_p50 - alone.first_p50
        yield FIRST[number, "p99"].name, through.first_p99 - alone.first_p99


def _sizes(bench: Bench) -> Iterator[Figure]:
    bench.quiet()
    prices = load_prices(Settings().prices_path)
    with stub(delay=DELAY, host=host_seen_by_containers(bench.engine)) as bedrock:
        for size in SIZES:
            with gateway(bench.engine, ours(bench.builder), size, bedrock) as running:
                yield START[size].name, running.seconds
                load(running.question(), FULL, WARM_UP_SECONDS)
                yield RATE[size].name, load(running.question(), FULL, SECONDS).per_second
            units = round(1024 * size.vcpu)
            yield (
                PRICE[size].name,
                prices.hourly(units, size.memory, Architecture.X86_64, Capacity.ON_DEMAND),
            )


SERIES: tuple[Series[Bench], ...] = (
    Series(
        "load",
        (*OWN.values(), PROCESSOR, PER_SECOND, *FIRST.values()),
        _under_load(ours),
        _under_load(seed),
        runs=2,
    ),
    Series("task sizes", (*START.values(), *RATE.values(), *PRICE.values()), _sizes, runs=1),
)
