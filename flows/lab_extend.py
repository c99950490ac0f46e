"""``lab-extend``: moves the end of a lab, later or earlier."""

from __future__ import annotations

from typing import Annotated

from prefect import flow

from lab.durations import now
from lab.spec import LabName, Ttl, described, lifetime_of
from tasks.extend import move_end
from tasks.hold import hold_lab
from tasks.site import open_site


@flow(name="lab-extend", flow_run_name="extend {lab} to {ends_in} from now", persist_result=False)
def lab_extend(
    lab: LabName,
    ends_in: Annotated[Ttl, described("From now to the lab's end: 1m to 24h, as in '2h'.")],
) -> None:
    """Move the end of a lab to ``ends_in`` from now, forwards or back.

    The lab may not live longer than the longest life, counted from its creation. The end moves in
    every place that stores it, or in none.
    """
    with open_site() as site, hold_lab(lab, site, "lab-extend"):
        move_end(lab, site, now() + lifetime_of(ends_in))
