"""How every task of the project is made: timed, reported, and retried only after transient errors.

A flow opens a :class:`StageLog` with :func:`record_stages`; each task made by :func:`stage` writes
itself into the log of the flow that it runs in, which updates the progress artifact.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from prefect import Task, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from adapters.aws.user_agent import acting_for
from adapters.process import raise_if_interrupted
from lab import names
from lab.errors import is_transient
from lab.report.critical_path import StageTime

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 3


class StageLog:
    """When the stages of a run began and ended. Several threads may write to it at once."""

    def __init__(
        self, planned: list[str], on_progress: Callable[[float], object] = lambda _: None
    ) -> None:
        """``planned`` names every stage of a full run, in order.

        After each stage, ``on_progress`` gets the percentage of them that is done.
        """
        self._planned, self._on_progress = planned, on_progress
        self._began: dict[str, tuple[datetime, float]] = {}
        self._ended: dict[str, float] = {}
        self._errors: list[tuple[str, BaseException]] = []
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as (a part of) the stage ``name``."""
        with self._lock:
            self._began.setdefault(name, (datetime.now(UTC), time.monotonic()))
        try:
            yield
        except BaseException as error:
            self._end(name, error)
            raise
        self._end(name, None)

    def _end(self, name: str, error: BaseException | None) -> None:
        with self._lock:
            self._ended[name] = time.monotonic()
            if error is not None:
                self._errors.append((name, error))
            else:
                # A transient error was retried; any other is the error of another part.
                self._errors = [e for e in self._errors if e[0] != name or not is_transient(e[1])]
            done = len(self._ended.keys() & set(self._planned) - self._failed())
        self._on_progress(100 * done / len(self._planned))

    def times(self) -> list[StageTime]:
        """The stages that ended, in the order in which they began."""
        with self._lock:
            return [
                StageTime(
                    name=name,
                    started_at=at,
                    seconds=round(self._ended[name] - began, 3),
                    failed=name in self._failed(),
                )
                for name, (at, began) in sorted(self._began.items(), key=lambda item: item[1][1])
                if name in self._ended
            ]

    def _failed(self) -> set[str]:
        return {name for name, _ in self._errors}

    def failed_stage(self, error: BaseException) -> str | None:
        """The stage that raised ``error``; if none did, the stage that failed first."""
        with self._lock:
            raised = [name for name, one in self._errors if one is error]
        return next(iter(raised), None) or next((s.name for s in self.times() if s.failed), None)


class Progress:
    """Updates a run's progress artifact in a thread of its own: no stage waits for it.

    Only the latest value is shown. It must be closed at the end.
    """

    def __init__(self, artifact: UUID) -> None:
        """For the run of the calling thread."""
        self._artifact, self._log = artifact, run_log()
        self._latest = self._shown = 0.0
        self._closed = False
        self._changed = threading.Condition()
        run = partial(copy_context().run, self._follow)
        self._thread = threading.Thread(target=run, name="progress", daemon=True)
        self._thread.start()

    def show(self, percent: float) -> None:
        """Show ``percent``. Returns at once."""
        with self._changed:
            self._latest = percent
            self._changed.notify()

    def close(self) -> None:
        """On return the artifact shows the last value, or the log says why not."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _follow(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._latest != self._shown)
                latest = self._latest
            if latest == self._shown:
                return
            try:
                update_progress_artifact(self._artifact, progress=latest)
            except Exception as error:
                self._log(f"the progress could not be shown: {error}")
            self._shown = latest


_current: ContextVar[StageLog | None] = ContextVar("stage_log", default=None)


@contextmanager
def record_stages(lab: str, planned: list[str]) -> Iterator[StageLog]:
    """A StageLog for the run of this flow, with its progress artifact in the UI."""
    progress = create_progress_artifact(
        0.0,
        key=names.artifact_key(lab, "progress"),
        description=f"How far lab {lab} is: {', '.join(planned)}.",
    )
    assert isinstance(progress, UUID)
    with closing(Progress(progress)) as artifact:
        log = StageLog(planned, artifact.show)
        token = _current.set(log)
        try:
            yield log
        finally:
            _current.reset(token)


def _worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether Prefect retries the task: :func:`is_transient` alone decides that."""
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

    ``run_name`` is Prefect's template over the function's parameters. Only a transient error is
    retried, ``retries`` times, after 2, 4, 8 seconds and some jitter. No stage begins in a run that
    is ending because it was cancelled or has lost its lab.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            # Another run may already work on the lab.
            raise_if_interrupted(f"the stage {name!r}")
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


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Time the block as (a part of) the stage ``name`` that is no task of its own."""
    log = _current.get()
    with log.stage(name) if log else nullcontext():
        yield


def run_log() -> Callable[[str], None]:
    """A function that writes a line to the log of the current run, from any thread."""
    return get_run_logger().info
