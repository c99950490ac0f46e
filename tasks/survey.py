"""Finds all labs from the cloud alone: records and states in the bucket, tags on resources."""

from __future__ import annotations

from datetime import datetime

from adapters.aws.lease import current_holder
from adapters.aws.sweep import Sweeper
from lab.durations import to_rfc3339
from lab.errors import InvalidInputError
from lab.live import LabSeen, LabState
from tasks.records import read_record
from tasks.site import Site
from tasks.stage import stage


@stage("survey", run_name="survey")
def survey(site: Site, at: datetime, *, deep: bool) -> list[LabSeen]:
    """Every lab of the account and region, by name.

    ``deep`` also looks for resources with the project's tags that belong to no lab with a record.
    """
    seen = [_look(lab, site, at) for lab in site.bucket.list_labs()]
    if deep:
        known = {lab.lab for lab in seen}
        _, found = Sweeper(site.cloud).look(None)
        orphans = sorted({item.lab for item in found if item.lab not in known})
        for lab in orphans:
            kinds = ", ".join(sorted({item.kind for item in found if item.lab == lab}))
            seen.append(_without_record(lab, kinds, site, at, None))
    return seen


def _without_record(lab: str, has: str, site: Site, at: datetime, held: str | None) -> LabSeen:
    """A lab that no up has made; if it was made by hand with Terraform, a tag holds its end."""
    end = site.end(lab).read_tag()
    if end is not None and end > at:
        why = f"made by hand, ends at {to_rfc3339(end)}"
        return LabSeen(lab=lab, state=LabState.UP, why=why, held_by=held)
    return LabSeen(lab=lab, state=LabState.ORPHANED, why=f"no record, but {has}", held_by=held)


def _look(lab: str, site: Site, at: datetime) -> LabSeen:
    record = read_record(lab, site)
    holder = current_holder(site.bucket, lab)
    held = str(holder) if holder else None
    if record is None:
        return _without_record(lab, "state", site, at, held)
    task = site.service(lab).running_task()
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
