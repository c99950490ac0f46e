"""How every task of the project is made: retried only for what passes, timed, and told of.

A flow opens a :class:`StageLog` with :func:`record_stages`; each task made by :func:`stage` writes
itself into the log of the flow it runs in, and the progress artifact follows.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from prefect import Task, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from lab import names
from lab.adapters.agent import acting_for
from lab.errors import is_transient
from lab.stages import StageTime

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 3


class StageLog:
    """Which stages of a run began and ended when. Tasks of several threads write to it at once."""

    def __init__(self, planned: list[str], progress: UUID | None = None) -> None:
        """``planned`` names every stage of a full run, in order; ``progress`` is an artifact."""
        self._planned, self._progress = planned, progress
        self._began: dict[str, tuple[datetime, float]] = {}
        self._ended: dict[str, float] = {}
        self._failed: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as (a part of) the stage ``name``."""
        with self._lock:
            self._began.setdefault(name, (datetime.now(UTC), time.monotonic()))
        try:
            yield
        except BaseException:
            self._end(name, failed=True)
            raise
        self._end(name, failed=False)

    def _end(self, name: str, *, failed: bool) -> None:
        with self._lock:
            self._ended[name] = time.monotonic()
            (self._failed.add if failed else self._failed.discard)(name)
            done = len(self._ended.keys() & set(self._planned) - self._failed)
        if self._progress:
            update_progress_artifact(self._progress, progress=100 * done / len(self._planned))

    def times(self) -> list[StageTime]:
        """The stages that ended, in the order in which they began."""
        with self._lock:
            return [
                StageTime(
                    name=name,
                    started_at=at,
                    seconds=round(self._ended[name] - began, 3),
                    failed=name in self._failed,
                )
                for name, (at, began) in sorted(self._began.items(), key=lambda item: item[1][1])
                if name in self._ended
            ]

    def failed_stage(self) -> str | None:
        """The stage that failed first, if one did."""
        return next((s.name for s in self.times() if s.failed), None)


_current: ContextVar[StageLog | None] = ContextVar("stage_log", default=None)


@contextmanager
def record_stages(lab: str, planned: list[str]) -> Iterator[StageLog]:
    """A StageLog for the run of this flow, with its progress artifact in the UI."""
    progress = create_progress_artifact(
        0.0,
        key=names.artifact_key(lab, "progress"),
        description=f"How far lab {lab} is: {', '.join(planned)}.",
    )
    log = StageLog(planned, progress if isinstance(progress, UUID) else None)
    token = _current.set(log)
    try:
        yield log
    finally:
        _current.reset(token)


def _worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Prefect's question, answered by the one function that decides what is retried."""
    data = state.data
    return is_transient(data if isinstance(data, BaseException) else _raised_by(state))


def _raised_by(state: State[Any]) -> BaseException | None:
    try:
        result = state.result(raise_on_failure=False)
    except Exception as error:
        return error
    return result if isinstance(result, BaseException) else None


def stage(
    name: str, *, run_name: str, retries: int = RETRIES
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a task of the stage ``name``.

    ``run_name`` is Prefect's template over the function's parameters. What is transient is tried
    ``retries`` times more after 2, 4, 8 seconds and some jitter; nothing else is tried again.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            log = _current.get()
            with acting_for(name), log.stage(name) if log else nullcontext():
                return function(*args, **kwargs)

        return task(
            name=name,
            task_run_name=run_name,
            retries=retries,
            retry_delay_seconds=exponential_backoff(2),
            retry_jitter_factor=0.5,
            retry_condition_fn=_worth_retrying,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(timed)

    return decorate


def run_log() -> Callable[[str], None]:
    """A function that writes a line to the log of the current run, from any thread."""
    return get_run_logger().info
