"""``lab-extend``: the lab ends later, or earlier."""

from __future__ import annotations

from prefect import flow

from adapters.process import interruptible
from lab.durations import now
from lab.settings import read_settings
from lab.spec import LabName, Ttl, lifetime_of
from tasks.extend import move_end
from tasks.hold import hold_lab
from tasks.teardown import locate


@flow(name="lab-extend", flow_run_name="extend {lab} to {ends_in} from now", persist_result=False)
def lab_extend(lab: LabName, ends_in: Ttl) -> None:
    """Move the end of a lab to ``ends_in`` from now, forwards or back.

    Never beyond the longest life a lab may have from its creation. Every place that knows the end
    is moved, or none.
    """
    settings = read_settings()
    with interruptible():
        place = locate(settings)
        with hold_lab(lab, settings, place, "lab-extend"):
            move_end(lab, settings, place, now() + lifetime_of(ends_in))
