"""``lab-list``: lists every lab with its owner, address, end and cost."""

from __future__ import annotations

from prefect import flow

from lab.durations import now
from tasks.listing import list_labs
from tasks.site import open_site
from tasks.survey import survey


@flow(name="lab-list", flow_run_name="list labs", persist_result=False)
def lab_list() -> None:
    """Publish a table of all labs that the cloud knows."""
    with open_site() as site:
        at = now()
        list_labs(survey(site, at, deep=False), site, at)
