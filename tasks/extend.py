"""A lab's end moves in every place that knows it, or in none."""

from __future__ import annotations

from datetime import datetime

from adapters.aws.session import Cloud
from lab.plan import Place
from lab.record import LabRecord
from lab.settings import Settings
from tasks.lifetime import known_record, replace_scheduled_end, write_record
from tasks.site import open_cloud
from tasks.stage import run_log, stage


@stage("move end", run_name="move-end-{lab}")
def move_end(lab: str, settings: Settings, place: Place, expires_at: datetime) -> LabRecord:
    """On return the lab ends at ``expires_at``: by record, Prefect's run, cloud stop and tag.

    Raises PermanentError for a lab that is not known and InvalidInputError beyond the cap, both
    before anything is moved. If a place cannot be moved, those before it are moved back.
    """
    cloud = open_cloud(settings)
    known = known_record(lab, settings, place)
    moved = known.moved_to(expires_at, settings.longest_life)
    try:
        _write_everywhere(moved, cloud, settings, place)
    except Exception:
        run_log()(f"the end of lab {lab} could not be moved everywhere: moving it back")
        _write_everywhere(known, cloud, settings, place)
        raise
    return moved


def _write_everywhere(record: LabRecord, cloud: Cloud, settings: Settings, place: Place) -> None:
    # The cloud's own stop first: should the run die in between, what is left is a lab that is
    # stopped too late rather than never.
    cloud.move_stop(record.lab, record.expires_at + settings.stop_grace)
    write_record(record, settings, place)
    cloud.tag_end(record.lab, record.expires_at)
    replace_scheduled_end(record, settings)
