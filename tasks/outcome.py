"""How an up ends: its report is published in every case, and the first error is raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from adapters.aws.lease import LabHeldError
from lab.durations import now
from lab.errors import InterruptedWorkError, LabError
from lab.report.cost import load_prices
from lab.report.model import LabReport
from lab.settings import read_settings
from lab.spec import LabSpec, OnFailure
from tasks.draft import Draft, drafting
from tasks.publish import publish_report
from tasks.site import Site
from tasks.stage import StageLog, record_stages, run_log
from tasks.teardown import check_nothing_left, destroy_lab

#: The stages of a full up, in the order in which they begin.
STAGES = [
    "find place",
    "preflight",
    "hold lab",
    "schedule end",
    "plan image",
    "foundation",
    "scan image",
    "audit image",
    "build image",
    "provision",
    "push image",
    "rollout",
    "validate",
    "verify",
]


@contextmanager
def reporting(spec: LabSpec, expires_at: datetime) -> Iterator[None]:
    """Within this block an up runs and its stages note what they reach; publish it at the end.

    Raises what the block raised.
    """
    settings = read_settings()
    prices = load_prices(settings.prices_path)
    report = LabReport(
        lab=spec.lab, target=settings.target, created_at=now(), expires_at=expires_at
    )

    def publish(draft: Draft, stages: StageLog, error: BaseException | None) -> None:
        draft.report.stages = stages.times()
        if draft.record is not None:
            draft.report.cost = prices.report(draft.record, now())
        if error is not None:
            where = stages.failed_stage(error)
            draft.report.error = f"at {where}: {error}" if where else str(error)
        publish_report(draft.report, settings)

    with record_stages(spec.lab, STAGES) as stages, drafting(report) as draft:
        try:
            yield
        except LabHeldError:
            # The published report stays that of the run that holds the lab.
            raise
        except BaseException as error:
            with _log_second_error(error, "publishing the report"):
                publish(draft, stages, error)
            raise
        publish(draft, stages, None)


@contextmanager
def destroyed_on_failure(spec: LabSpec, site: Site) -> Iterator[None]:
    """Destroy the lab if the block fails and the spec says so; for a run that holds the lab.

    A failing clean-up is logged and does not hide the first error. A run that is ended from outside
    (cancelled, or its hold of the lab lost) touches nothing more.
    """
    try:
        yield
    except InterruptedWorkError:
        raise
    except LabError as error:
        if spec.on_failure is OnFailure.DESTROY:
            with _log_second_error(error, "destroying the failed lab"):
                destroy_lab(spec.lab, site)
                check_nothing_left(spec.lab, site)
        raise


@contextmanager
def _log_second_error(first: BaseException, doing: str) -> Iterator[None]:
    """Log an error of the block instead of raising it: the caller raises ``first``."""
    try:
        yield
    except Exception as second:
        run_log()(f"{doing} failed too, after {type(first).__name__}: {second}")
