"""Which labs the reaper destroys, and how it reports them."""

from __future__ import annotations

from prefect import get_client
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from lab.durations import now
from lab.live import LabSeen, LabState
from lab.record import Reason
from tasks.records import read_record
from tasks.site import Site
from tasks.stage import run_log


def to_reap(seen: list[LabSeen]) -> list[LabSeen]:
    """The labs past their end, and the orphaned ones."""
    return [s for s in seen if s.state in {LabState.EXPIRED, LabState.ORPHANED}]


def name_run(doomed: list[LabSeen], *, dry_run: bool) -> None:
    """Say in the run's name and in an artifact what the reaper does, or would do."""
    labs = ", ".join(s.lab for s in doomed) or "nothing"
    name = f"would reap {labs}" if dry_run else f"reap {labs}"
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name[:200])
    run_log()(name)
    if doomed or dry_run:
        create_table_artifact(
            [
                {"lab": s.lab, "why": f"{s.state}: {s.why}", "held by": s.held_by or "-"}
                for s in doomed
            ]
            or [{"lab": "nothing to reap"}],
            key="reaper",
            description="What the reaper would destroy." if dry_run else "What the reaper took.",
        )


def still_to_reap(seen: LabSeen, site: Site) -> bool:
    """Whether ``seen`` is still past its end now that this run holds it: an up may have come."""
    record = read_record(seen.lab, site)
    return record is None or record.to_be_destroyed(Reason.END, now())
