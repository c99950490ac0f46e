"""A lab's record in the state bucket: read, written, and changed.

A change loses nothing that another run has noted meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from prefect.runtime import flow_run

from lab import names
from lab.errors import PermanentError, TransientError
from lab.image.plan import PushedImage
from lab.record import LabRecord
from lab.spec import OnFailure
from tasks.site import Site
from tasks.stage import timed


def read_record(lab: str, site: Site) -> LabRecord | None:
    """What the cloud remembers of ``lab``; ``None`` for a lab it does not know."""
    found = site.bucket.read_json(names.lab_record_key(lab))
    return LabRecord.model_validate(found) if found else None


def require_record(lab: str, site: Site) -> LabRecord:
    """What the cloud remembers of ``lab``; PermanentError for a lab it does not know."""
    known = read_record(lab, site)
    if known is None:
        raise PermanentError(f"there is no lab {lab}", "Bring it up with lab-up.")
    return known


def write_record(record: LabRecord, site: Site) -> None:
    """Let the cloud remember ``record``, whatever it remembered before."""
    site.bucket.write_json(names.lab_record_key(record.lab), record.model_dump(mode="json"))


def change_record(lab: str, site: Site, change: Callable[[LabRecord], LabRecord]) -> LabRecord:
    """Let the cloud remember what ``change`` makes of the record; for a run that holds the lab.

    Nothing that a run which holds nothing has noted meanwhile is lost: TransientError then.
    """
    found = _read_with_etag(lab, site)
    if found is None:
        raise PermanentError(f"there is no lab {lab}", "Bring it up with lab-up.")
    known, etag = found
    changed = change(known)
    if changed != known and not _replace(changed, etag, site):
        raise TransientError(f"the record of lab {lab} was written by another run meanwhile")
    return changed


def note_image(lab: str, site: Site, image: PushedImage) -> None:
    """Let the cloud remember which image the lab runs; for a run that holds the lab."""
    changes = {"image": image}
    change_record(lab, site, lambda known: known.model_copy(update=changes))


def mark_for_rebuild(lab: str, site: Site) -> None:
    """Let a crash of this run, from now on, count as the failure of the lab's last up."""
    with timed("hold lab"):
        record = read_record(lab, site)
        if record is not None:
            changes = {"on_failure": OnFailure.DESTROY, "up_run": str(flow_run.id)}
            write_record(record.model_copy(update=changes), site)


def note_notice(record: LabRecord, minutes: int, site: Site) -> bool:
    """Remember that the notice was given; False if the lab or its end changed meanwhile.

    Needs no hold of the lab: it is written only over what was read.
    """
    found = _read_with_etag(record.lab, site)
    if found is None:
        return False
    current, etag = found
    if current.expires_at != record.expires_at:
        return False
    noted = current.model_copy(update={"notices": [*current.notices, minutes]})
    return _replace(noted, etag, site)


def _read_with_etag(lab: str, site: Site) -> tuple[LabRecord, str] | None:
    found = site.bucket.read(names.lab_record_key(lab))
    return (LabRecord.model_validate_json(found[0]), found[1]) if found else None


def _replace(record: LabRecord, etag: str, site: Site) -> bool:
    """Write ``record`` over the version ``etag``; False if there is another version by now."""
    body = record.model_dump_json(indent=2).encode()
    return site.bucket.write(names.lab_record_key(record.lab), body, etag) is not None
