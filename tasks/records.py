"""A lab's record in the state bucket: read, written, and changed.

A change never overwrites what another run has noted meanwhile.
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
    """The record of ``lab``; ``None`` if there is none."""
    found = site.bucket.read_json(names.lab_record_key(lab))
    return LabRecord.model_validate(found) if found else None


def require_record(lab: str, site: Site) -> LabRecord:
    """The record of ``lab``; PermanentError if there is none."""
    known = read_record(lab, site)
    if known is None:
        raise PermanentError(f"there is no lab {lab}", "Bring it up with lab-up.")
    return known


def write_record(record: LabRecord, site: Site) -> None:
    """Write ``record``, whatever is there."""
    site.bucket.write_json(names.lab_record_key(record.lab), record.model_dump(mode="json"))


def change_record(lab: str, site: Site, change: Callable[[LabRecord], LabRecord]) -> LabRecord:
    """Write and return what ``change`` makes of the record; for a run that holds the lab.

    Raises TransientError if a run that does not hold the lab has noted something meanwhile.
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
    """Note in the record which image the lab runs; for a run that holds the lab."""
    changes = {"image": image}
    change_record(lab, site, lambda known: known.model_copy(update=changes))


def mark_for_rebuild(lab: str, site: Site) -> None:
    """From now on, a crash of this run counts as the failure of the lab's last up."""
    with timed("hold lab"):
        record = read_record(lab, site)
        if record is not None:
            changes = {"on_failure": OnFailure.DESTROY, "up_run": str(flow_run.id)}
            write_record(record.model_copy(update=changes), site)


def note_notice(record: LabRecord, minutes: int, site: Site) -> bool:
    """Note in the record that the notice was given; False if the lab or its end has changed.

    Needs no hold of the lab: it replaces only the version that was read.
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
    """Replace the version ``etag`` with ``record``; False if there is another version by now."""
    body = record.model_dump_json(indent=2).encode()
    return site.bucket.write(names.lab_record_key(record.lab), body, etag) is not None
