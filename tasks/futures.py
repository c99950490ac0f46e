"""Stages that run in parallel: their results, their first error, and collected failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prefect.futures import PrefectFuture, wait

from adapters.aws.lease import LabHeldError
from lab.errors import LabError, PermanentError
from tasks.stage import run_log

R = TypeVar("R")


@dataclass(frozen=True)
class Chain(Generic[R]):
    """Several stages that depend on each other, as one future: that of the ``last`` one."""

    last: PrefectFuture[R]
    before: Sequence[PrefectFuture[Any]] = ()


def gather(*futures: PrefectFuture[Any] | Chain[Any]) -> list[Any]:
    """Wait for all; return their results, or raise the first error that one of the stages raised.

    The result of a chain is that of its last stage; an error of any of its stages counts. A
    LabError comes before an unforeseen error.
    """
    chains = [future if isinstance(future, Chain) else Chain(future) for future in futures]
    lasts = [chain.last for chain in chains]
    every = [*(one for chain in chains for one in chain.before), *lasts]
    wait(every)
    # A stage that never ran, because one before it failed, has no final state and no error.
    ended = [future.state for future in every if future.state.is_final()]
    results = [state.result(raise_on_failure=False) for state in ended]
    errors = [result for result in results if isinstance(result, BaseException)]
    errors.sort(key=lambda error: not isinstance(error, LabError))
    if errors:
        raise errors[0]
    return [future.result() for future in lasts]


class Failures:
    """Collects the failures of single labs: one that fails does not stop the others."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    @contextmanager
    def of(self, lab: str) -> Iterator[None]:
        """Collect a LabError of this block, which works on ``lab``."""
        try:
            yield
        except LabHeldError as error:
            run_log()(f"left for the next time: {error.message}")
        except LabError as error:
            self.messages.append(f"{lab}: {error.message}")


@contextmanager
def collect_failures(
    what: str = "not reaped",
    hint: str = "The reaper tries again; see the labs' teardown artifacts.",
) -> Iterator[Failures]:
    """At the block's end, raise a PermanentError that begins with ``what`` if any lab failed."""
    failures = Failures()
    yield failures
    if failures.messages:
        raise PermanentError(f"{what}: {'; '.join(failures.messages)}", hint)
