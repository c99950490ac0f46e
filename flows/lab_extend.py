"""``lab-extend``: the lab ends later, or earlier."""

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

    Never beyond the longest life a lab may have from its creation. Every place that knows the end
    is moved, or none.
    """
    with open_site() as site, hold_lab(lab, site, "lab-extend"):
        move_end(lab, site, now() + lifetime_of(ends_in))
