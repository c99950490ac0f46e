"""``lab-down``: nothing of the lab is left, or it is said what is."""

from __future__ import annotations

from prefect import flow

from lab.adapters.process import interruptible
from lab.settings import read_settings
from lab.spec import LabName
from tasks.teardown import check_nothing_left, destroy_lab, locate, purge_foundation


@flow(name="lab-down", flow_run_name="down {lab}", persist_result=False)
def lab_down(lab: LabName, purge: bool = False) -> None:
    """Destroy a lab, then look in every service whether anything of it is left.

    Already gone is success. ``purge`` also removes what labs share (images, state bucket) once no
    lab has state.
    """
    settings = read_settings()
    with interruptible():
        place = locate(settings)
        destroy_lab(lab, settings, place)
        check_nothing_left(lab, settings, place)
        if purge:
            purge_foundation(settings, place)
