"""The end of a lab: registered before anything billable exists, replaced when it moves."""

from __future__ import annotations

from collections.abc import Callable
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
from lab.errors import PermanentError, TransientError
from lab.models.render import terraform_models
from lab.plan import Checked, ImagePlan, Place
from lab.record import LabRecord, Reason, ServedModel
from lab.settings import Settings
from lab.spec import LabSpec, OnFailure
from tasks.site import open_cloud
from tasks.stage import run_log, stage, timed


@stage("schedule end", run_name="schedule-end-{spec.lab}")
def schedule_end(
    spec: LabSpec, settings: Settings, checked: Checked, expires_at: datetime
) -> LabRecord:
    """Register the end of the lab at ``expires_at``; return the lab's record.

    On return the cloud holds a record of the lab with its end, Prefect has a ``lab-down`` run at
    that time, and ends registered by earlier ups of the lab are cancelled. Called again by a
    retry, this registers the same end. Raises InvalidInputError if the lab would live too long.
    """
    known = read_record(spec.lab, settings, checked.place)
    wanted = LabRecord(
        lab=spec.lab,
        owner=spec.owner,
        created_at=known.created_at if known else now(),
        expires_at=expires_at,
        on_failure=spec.on_failure,
        up_run=str(flow_run.id),
        architecture=checked.architecture,
        capacity=spec.capacity,
        cpu=spec.cpu,
        memory=spec.memory,
        models=[m.alias for m in checked.models],
        model_ends=checked.model_ends,
        served={
            alias: ServedModel.model_validate(model)
            for alias, model in terraform_models(checked.models).items()
        },
        image=known.image if known else None,
        cidrs=checked.cidrs,
        deployer=checked.deployer,
        key_version=known.key_version if known else 1,
    ).moved_to(expires_at, settings.longest_life)
    # Not before: this up sees to it that the certificate lasts.
    wanted.trust = known.trust if known else None
    # A live lab's own stop moves before its end does: it must not come during this up.
    open_cloud(settings).move_stop(spec.lab, expires_at + settings.stop_grace)
    write_record(wanted, settings, checked.place)
    replace_scheduled_end(wanted, settings)
    return wanted


def read_record(lab: str, settings: Settings, place: Place) -> LabRecord | None:
    """What the cloud remembers of ``lab``; ``None`` for a lab it does not know."""
    found = open_cloud(settings).get_record(place.bucket, names.lab_record_key(lab))
    return LabRecord.model_validate(found) if found else None


def write_record(record: LabRecord, settings: Settings, place: Place) -> None:
    """Let the cloud remember ``record``."""
    key = names.lab_record_key(record.lab)
    open_cloud(settings).put_record(place.bucket, key, record.model_dump(mode="json"))


def known_record(lab: str, settings: Settings, place: Place) -> LabRecord:
    """What the cloud remembers of ``lab``; PermanentError for a lab it does not know."""
    known = read_record(lab, settings, place)
    if known is None:
        raise PermanentError(f"there is no lab {lab}", "Bring it up with lab-up.")
    return known


def change_record(
    lab: str, settings: Settings, place: Place, change: Callable[[LabRecord], LabRecord]
) -> LabRecord:
    """Let the cloud remember what ``change`` makes of the record; for a run that holds the lab.

    Nothing that a run which holds nothing has noted meanwhile is lost: TransientError then.
    """
    cloud = open_cloud(settings)
    key = names.lab_record_key(lab)
    found = cloud.read_object(place.bucket, key)
    if found is None:
        raise PermanentError(f"there is no lab {lab}", "Bring it up with lab-up.")
    known = LabRecord.model_validate_json(found[0])
    changed = change(known)
    if changed != known:
        body = changed.model_dump_json(indent=2).encode()
        if cloud.write_object(place.bucket, key, body, found[1]) is None:
            raise TransientError(f"the record of lab {lab} was written by another run meanwhile")
    return changed


@stage("rollout", run_name="note-image-{lab}")
def note_image(lab: str, settings: Settings, place: Place, image: ImagePlan, digest: str) -> None:
    """Let the cloud remember which image the lab runs; for a run that holds the lab."""
    changes = {"image": f"{image.reference}@{digest}"}
    change_record(lab, settings, place, lambda known: known.model_copy(update=changes))


def mark_for_rebuild(lab: str, settings: Settings, place: Place) -> None:
    """Let a crash of this run, from now on, count as the failure of the lab's last up."""
    with timed("hold lab"):
        record = read_record(lab, settings, place)
        if record is not None:
            changes = {"on_failure": OnFailure.DESTROY, "up_run": str(flow_run.id)}
            write_record(record.model_copy(update=changes), settings, place)


def note_notice(record: LabRecord, minutes: int, settings: Settings, place: Place) -> bool:
    """Remember that the notice was given; False if the lab or its end changed meanwhile.

    Needs no hold of the lab: it is written only over what was read.
    """
    cloud = open_cloud(settings)
    key = names.lab_record_key(record.lab)
    found = cloud.read_object(place.bucket, key)
    if found is None:
        return False
    current = LabRecord.model_validate_json(found[0])
    if current.expires_at != record.expires_at:
        return False
    noted = current.model_copy(update={"notices": [*current.notices, minutes]})
    body = noted.model_dump_json(indent=2).encode()
    return cloud.write_object(place.bucket, key, body, found[1]) is not None


def replace_scheduled_end(record: LabRecord, settings: Settings) -> None:
    """On return Prefect has exactly one ``lab-down`` run for the lab, at the record's end."""
    end: Any = run_deployment(
        f"lab-down/{settings.target}",
        parameters={"lab": record.lab, "reason": Reason.END.value},
        scheduled_time=record.expires_at,
        flow_run_name=f"end of {record.lab}",
        timeout=0,
        as_subflow=False,
        # A key per run: a key used before would return that run, even if it was cancelled.
        idempotency_key=f"{flow_run.id}-{to_rfc3339(record.expires_at)}",
        tags=_tags(record.lab, settings),
    )
    cancel_scheduled_ends(record.lab, settings, keep=str(end.id))
    run_log()(f"lab {record.lab} will be destroyed at {to_rfc3339(record.expires_at)}")


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
