"""Moves a lab's end in every place that stores it, or in none."""

from __future__ import annotations

from datetime import datetime

from lab.record import LabRecord
from tasks.lifetime import write_end
from tasks.records import require_record
from tasks.site import Site
from tasks.stage import run_log, stage


@stage("move end", run_name="move-end-{lab}")
def move_end(lab: str, site: Site, expires_at: datetime) -> LabRecord:
    """On return the lab ends at ``expires_at``, in every place that stores its end.

    Raises PermanentError for an unknown lab and InvalidInputError for an end beyond the longest
    life, both before anything changes. If one place cannot be changed, those before it are changed
    back.
    """
    known = require_record(lab, site)
    moved = known.moved_to(expires_at, site.settings.longest_life)
    try:
        write_end(moved, site)
    except Exception:
        run_log()(f"the end of lab {lab} could not be moved everywhere: moving it back")
        write_end(known, site)
        raise
    return moved
