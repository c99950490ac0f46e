"""The end of a lab: registered before anything billable exists, replaced when it moves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.runtime import flow_run
from prefect.states import Cancelled

from lab import names
from lab.durations import now, to_rfc3339
from lab.plan import Place
from lab.settings import Settings
from lab.spec import LabSpec
from tasks.cloud import open_cloud
from tasks.stages import run_log, stage

RECORD_VERSION = 1


@stage("schedule end", run_name="schedule-end-{spec.lab}")
def schedule_end(spec: LabSpec, settings: Settings, place: Place, expires_at: datetime) -> datetime:
    """Register the end of the lab at ``expires_at``; return when the lab was first brought up.

    On return the cloud holds a record of the lab with its end, Prefect has a ``lab-down`` run at
    that time, and ends registered by earlier ups of the lab are cancelled. Called again by a
    retry, this registers the same end.
    """
    log = run_log()
    cloud = open_cloud(settings)
    if cloud.ensure_state_bucket(place.bucket):
        log(f"made the state bucket {place.bucket}")
    key = names.lab_record_key(spec.lab)
    known = cloud.get_record(place.bucket, key) or {}
    created_at = datetime.fromisoformat(known.get("created_at", now().isoformat()))
    record: dict[str, Any] = {
        "version": RECORD_VERSION,
        "lab": spec.lab,
        "owner": spec.owner,
        "created_at": to_rfc3339(created_at),
        "expires_at": to_rfc3339(expires_at),
    }
    cloud.put_record(place.bucket, key, record)
    end: Any = run_deployment(
        f"lab-down/{settings.target}",
        parameters={"lab": spec.lab},
        scheduled_time=expires_at,
        flow_run_name=f"end of {spec.lab}",
        timeout=0,
        as_subflow=False,
        # A key per up: a key used before would return that run, even if it was cancelled.
        idempotency_key=f"{flow_run.id}-{to_rfc3339(expires_at)}",
        tags=_tags(spec.lab, settings),
    )
    cancel_scheduled_ends(spec.lab, settings, keep=str(end.id))
    log(f"lab {spec.lab} will be destroyed at {to_rfc3339(expires_at)}")
    return created_at


def cancel_scheduled_ends(lab: str, settings: Settings, keep: str | None = None) -> int:
    """Cancel every scheduled end of ``lab`` but the run ``keep``; return how many there were."""
    scheduled = FlowRunFilter(
        tags=FlowRunFilterTags(all_=_tags(lab, settings)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
    )
    with get_client(sync_client=True) as client:
        runs = [r for r in client.read_flow_runs(flow_run_filter=scheduled) if str(r.id) != keep]
        for run in runs:
            client.set_flow_run_state(
                run.id, Cancelled(message="The lab has another end, or none."), force=True
            )
    return len(runs)


def _tags(lab: str, settings: Settings) -> list[str]:
    return ["lab-end", f"lab:{lab}", f"target:{settings.target}"]
