"""``lab-list``: every lab, whose it is, where, until when, and what it costs."""

from __future__ import annotations

from prefect import flow

from lab.durations import now
from lab.settings import read_settings
from tasks.listing import list_labs
from tasks.survey import survey
from tasks.teardown import locate


@flow(name="lab-list", flow_run_name="list labs", persist_result=False)
def lab_list() -> None:
    """Publish a table of all labs that the cloud knows."""
    settings = read_settings()
    place = locate(settings)
    at = now()
    list_labs(survey(settings, place, at, deep=False), settings, at)
