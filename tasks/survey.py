"""What labs there are, by the cloud alone: records and states in the bucket, tags on things."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from adapters.aws.lease import current_holder
from adapters.aws.session import RunningTask
from adapters.aws.sweep import Sweeper
from lab import names
from lab.durations import to_rfc3339
from lab.errors import InvalidInputError
from lab.plan import Place
from lab.record import LabRecord
from lab.settings import Settings
from tasks.lifetime import read_record
from tasks.site import open_cloud
from tasks.stage import stage


class LabState(StrEnum):
    """What a lab is doing, as far as the cloud can tell."""

    UP = "up"
    NO_TASK = "no task"
    EXPIRED = "past its end"
    ORPHANED = "orphaned"


class LabSeen(BaseModel):
    """A lab as the cloud shows it. ``record`` is missing for one that nothing remembers."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    lab: str
    state: LabState
    why: str
    record: LabRecord | None = None
    task: RunningTask | None = None
    held_by: str | None = None


@stage("survey", run_name="survey")
def survey(settings: Settings, place: Place, at: datetime, *, deep: bool) -> list[LabSeen]:
    """Every lab of the account and region, by name.

    ``deep`` also looks for things that carry the project's tags and belong to no lab with a record.
    """
    cloud = open_cloud(settings)
    seen = [_look(lab, settings, place, at) for lab in cloud.list_labs(place.bucket)]
    if deep:
        known = {lab.lab for lab in seen}
        _, found = Sweeper(cloud).look(None)
        orphans = sorted({item.lab for item in found if item.lab not in known})
        for lab in orphans:
            kinds = ", ".join(sorted({item.kind for item in found if item.lab == lab}))
            seen.append(_without_record(lab, kinds, settings, at, None))
    return seen


def _without_record(
    lab: str, has: str, settings: Settings, at: datetime, held: str | None
) -> LabSeen:
    """A lab that no up has made; one that Terraform made by hand says in a tag until when."""
    end = open_cloud(settings).end_tag(lab)
    if end is not None and end > at:
        why = f"made by hand, ends at {to_rfc3339(end)}"
        return LabSeen(lab=lab, state=LabState.UP, why=why, held_by=held)
    return LabSeen(lab=lab, state=LabState.ORPHANED, why=f"no record, but {has}", held_by=held)


def _look(lab: str, settings: Settings, place: Place, at: datetime) -> LabSeen:
    cloud = open_cloud(settings)
    record = read_record(lab, settings, place)
    holder = current_holder(cloud, place.bucket, lab)
    held = str(holder) if holder else None
    if record is None:
        return _without_record(lab, "state", settings, at, held)
    name = names.resource_name(lab)
    task = cloud.running_task(name, name)
    if at >= record.expires_at:
        state, why = LabState.EXPIRED, f"ended at {to_rfc3339(record.expires_at)}"
    elif task:
        state, why = LabState.UP, f"ends at {to_rfc3339(record.expires_at)}"
    else:
        state, why = LabState.NO_TASK, "no task runs"
    return LabSeen(lab=lab, state=state, why=why, record=record, task=task, held_by=held)


def choose(seen: list[LabSeen], lab: str | None) -> list[LabSeen]:
    """``seen``, or only the one called ``lab``; InvalidInputError if it is not there."""
    if lab is None:
        return seen
    chosen = [s for s in seen if s.lab == lab]
    if not chosen:
        known = ", ".join(s.lab for s in seen) or "none"
        raise InvalidInputError(f"there is no lab {lab!r}; labs: {known}", "Name one of them.")
    return chosen
