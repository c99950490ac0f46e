"""The end of a lab: registered before anything billable exists, and moved as a whole."""

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

from lab.durations import now, to_rfc3339
from lab.models.render import terraform_models
from lab.plan import PreflightResult
from lab.record import LabRecord, Reason, ServedModel
from lab.settings import Settings
from lab.spec import LabSpec
from tasks.draft import note_record
from tasks.records import read_record, write_record
from tasks.site import Site
from tasks.stage import run_log, stage


@stage("schedule end", run_name="schedule-end-{spec.lab}")
def schedule_end(
    spec: LabSpec, site: Site, checked: PreflightResult, expires_at: datetime
) -> LabRecord:
    """Register the end of the lab at ``expires_at``; return the lab's record.

    On return every place that can store the lab's end has it, and ends registered by earlier ups
    of the lab are cancelled. A retry registers the same end again. Raises InvalidInputError if the
    lab would live too long.
    """
    known = read_record(spec.lab, site)
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
    ).moved_to(expires_at, site.settings.longest_life)
    # Only after the check of the end: this up makes a certificate that is valid for long enough.
    wanted.trust = known.trust if known else None
    write_end(wanted, site)
    note_record(wanted)
    return wanted


def write_end(record: LabRecord, site: Site) -> None:
    """On return each place that stores the lab's end has that of ``record``; safe to call again.

    The cloud's own stop comes first: if the run dies in between, the lab is stopped too late rather
    than never, and a live lab is not stopped in the middle of its next up. Then come the record,
    the cluster's tag, and Prefect's run.
    """
    end = site.end(record.lab)
    end.move_stop(record.expires_at + site.settings.stop_grace)
    write_record(record, site)
    end.write_tag(record.expires_at)
    replace_scheduled_end(record, site.settings)


def replace_scheduled_end(record: LabRecord, settings: Settings) -> None:
    """On return Prefect has exactly one ``lab-down`` run for the lab, at the record's end."""
    end: Any = run_deployment(
        f"lab-down/{settings.target}",
        parameters={"lab": record.lab, "reason": Reason.END.value},
        scheduled_time=record.expires_at,
        flow_run_name=f"end of {record.lab}",
        timeout=0,
        as_subflow=False,
        # One key for each run: a key used before would return its run, even a cancelled one.
        idempotency_key=f"{flow_run.id}-{to_rfc3339(record.expires_at)}",
        tags=_tags(record.lab, settings),
    )
    cancel_scheduled_ends(record.lab, settings, keep=str(end.id))
    run_log()(f"lab {record.lab} will be destroyed at {to_rfc3339(record.expires_at)}")


def cancel_scheduled_ends(lab: str, settings: Settings, keep: str | None = None) -> int:
    """Cancel every scheduled end of ``lab`` except the run ``keep``; return how many there were."""
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
