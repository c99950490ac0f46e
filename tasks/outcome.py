"""How an up ends: the report is published whatever happened, and the first error is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from prefect.futures import PrefectFuture, wait

from adapters.aws.lease import LabHeldError
from lab.durations import now
from lab.endpoint import Endpoint
from lab.errors import InterruptedWorkError, LabError, PermanentError
from lab.models.lifecycle import ModelNote
from lab.plan import ImagePlan, Place
from lab.posture import Posture
from lab.record import LabRecord
from lab.report.cost import load_prices
from lab.report.model import LabReport, ModelResult, Verdict
from lab.settings import Settings
from lab.spec import LabSpec, OnFailure
from tasks.image import Audited, Scanned
from tasks.publish import publish_report
from tasks.stage import StageLog, record_stages, run_log
from tasks.teardown import check_nothing_left, destroy_lab

STAGES = [
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


class UpOutcome:
    """What an up has reached so far; the flow fills it in as it goes."""

    def __init__(self, spec: LabSpec, settings: Settings, expires_at: datetime) -> None:
        self._report = LabReport(
            lab=spec.lab, target=settings.target, created_at=now(), expires_at=expires_at
        )
        self.expires_at = expires_at
        self._prices = load_prices(settings.prices_path)
        self._record: LabRecord | None = None

    def models_are(self, notes: list[ModelNote]) -> None:
        """The lab's models are settled, with these notes on some of them."""
        self._report.model_notes = notes

    def end_is_registered(self, record: LabRecord) -> None:
        """The lab has an end, and ``record`` tells it."""
        self._report.created_at = record.created_at
        self._record = record

    def image_is(
        self, image: ImagePlan, digest: str, scanned: Scanned, audited: Audited, *, built: bool
    ) -> None:
        """The registry holds ``image`` under ``digest``, and what is in it was looked at."""
        self._report.image = f"{image.reference}@{digest}"
        notes = [*scanned.scan.notes, *audited.notes]
        self._report.scan = scanned.scan.model_copy(
            update={"audited_by": audited.by, "notes": notes}
        )
        self._report.image_built = built
        self._report.base_image = f"{image.base_source}: {image.base_reference}"

    def endpoint_is(self, endpoint: Endpoint) -> None:
        """The gateway is ready at ``endpoint``."""
        self._report.endpoint, self._report.ca = endpoint.url, endpoint.ca

    def proved(
        self,
        listed: PrefectFuture[Any],
        asked: Sequence[PrefectFuture[Any]],
        verified: PrefectFuture[Any],
    ) -> None:
        """Every model was asked, and the lab was looked at; both are in the report.

        Waits for all. Raises what ``listed`` raised, of a gateway that lists other models; else
        PermanentError that names the models which failed, and after them the checks that were
        missed.
        """
        wait([listed, *asked, verified])
        posture = verified.state.result(raise_on_failure=False)
        self._report.posture = posture if isinstance(posture, Posture) else None
        self.models_said(gather(listed, *asked)[1:])
        gather(verified)[0].raise_if_missed(self._report.lab)

    def models_said(self, results: list[ModelResult]) -> None:
        """Every model was asked. Raises PermanentError, naming them, if any failed."""
        self._report.models = results
        failed = [m for m in self._report.models if m.verdict is not Verdict.OK]
        if failed:
            told = "; ".join(f"{m.alias}: {m.verdict}: {m.error}" for m in failed)
            misses = self._report.posture.misses if self._report.posture else ""
            also = f"\nand of its posture: {misses}" if misses else ""
            raise PermanentError(
                f"{len(failed)} of {len(self._report.models)} models failed: {told}{also}",
                "The lab is up and serves the others. Check the account's access to these models.",
            )

    def _publish(self, stages: StageLog, settings: Settings, error: BaseException | None) -> None:
        self._report.stages = stages.times()
        if self._record is not None:
            self._report.cost = self._prices.report(self._record, now())
        if error is not None:
            where = stages.failed_stage()
            self._report.error = f"at {where}: {error}" if where else str(error)
        publish_report(self._report, settings)


@contextmanager
def told_outcome(spec: LabSpec, settings: Settings, expires_at: datetime) -> Iterator[UpOutcome]:
    """Within this block an up runs; after it the report is published.

    Raises what the block raised.
    """
    outcome = UpOutcome(spec, settings, expires_at)
    with record_stages(spec.lab, STAGES) as stages:
        try:
            yield outcome
        except LabHeldError:
            # The report is that of the run which holds the lab.
            raise
        except BaseException as error:
            with _second_to(error, "publishing the report"):
                outcome._publish(stages, settings, error)
            raise
        outcome._publish(stages, settings, None)


def gather(*futures: PrefectFuture[Any]) -> list[Any]:
    """The futures' results once all have ended; else the first error that one of them raised."""
    wait(list(futures))
    for future in futures:
        error = future.state.result(raise_on_failure=False)
        # A future that never ran, because one before it failed, has an error of Prefect's.
        if isinstance(error, LabError):
            raise error
    return [future.result() for future in futures]


@contextmanager
def destroyed_on_failure(spec: LabSpec, settings: Settings, place: Place) -> Iterator[None]:
    """Destroy the lab if the block fails and the spec says so; for a run that holds the lab.

    A failing clean-up is told in the log and hides nothing. A run that is being ended from outside
    (cancelled, or its hold of the lab lost) touches nothing more.
    """
    try:
        yield
    except InterruptedWorkError:
        raise
    except LabError as error:
        if spec.on_failure is OnFailure.DESTROY:
            with _second_to(error, "destroying the failed lab"):
                destroy_lab(spec.lab, settings, place)
                check_nothing_left(spec.lab, settings, place)
        raise


@contextmanager
def _second_to(first: BaseException, doing: str) -> Iterator[None]:
    """Tell an error of the block in the log: ``first`` is the one to raise."""
    try:
        yield
    except Exception as second:
        run_log()(f"{doing} failed too, after {type(first).__name__}: {second}")
