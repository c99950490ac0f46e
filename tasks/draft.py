"""The report of an up while it is written: each stage notes what it has reached.

This way a report can be published in every case, and the flow does not mention it. A stage of a run
without a report, such as the rollout of a new key, notes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from lab.record import LabRecord
from lab.report.model import LabReport


@dataclass
class Draft:
    """What an up has reached so far; ``record`` is set once the lab's end is registered."""

    report: LabReport
    record: LabRecord | None = None


_current: ContextVar[Draft | None] = ContextVar("report_draft", default=None)


@contextmanager
def drafting(report: LabReport) -> Iterator[Draft]:
    """Within this block the stages of this run note into ``report``, from any of its threads."""
    draft = Draft(report)
    token = _current.set(draft)
    try:
        yield draft
    finally:
        _current.reset(token)


def note_in_report(**fields: Any) -> None:
    """Write ``fields`` into the report of this run, if it has one."""
    draft = _current.get()
    if draft is not None:
        for name, value in fields.items():
            setattr(draft.report, name, value)


def note_record(record: LabRecord) -> None:
    """Keep ``record``, which has the lab's end, for the report of this run."""
    draft = _current.get()
    if draft is not None:
        draft.record = record
        draft.report.created_at = record.created_at
