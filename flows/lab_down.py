"""``lab-down``: nothing of the lab is left, or it is said what is."""

from __future__ import annotations

from prefect import flow

from adapters.process import interruptible
from lab.plan import Place
from lab.record import Reason
from lab.settings import Settings, read_settings
from lab.spec import LabName
from tasks.hold import hold_lab
from tasks.teardown import (
    check_nothing_left,
    destroy_lab,
    locate,
    purge_foundation,
    reason_holds,
)


@flow(name="lab-down", flow_run_name="down {lab}", persist_result=False)
def lab_down(
    lab: LabName, reason: Reason = Reason.ASKED, of_run: str | None = None, purge: bool = False
) -> None:
    """Destroy a lab, then look in every service whether anything of it is left.

    Already gone is success. With another reason than "asked" the lab is only destroyed if that
    reason still holds; ``of_run`` is the up that failed. ``purge`` also removes what labs share
    (images, state bucket) once no lab has state.
    """
    settings = read_settings()
    with interruptible():
        place = locate(settings)
        # Asked twice: who need not come does not wait for the lab, and much may happen meanwhile.
        if reason_holds(lab, settings, place, reason, of_run):
            with hold_lab(lab, settings, place, "lab-down"):
                if reason_holds(lab, settings, place, reason, of_run):
                    take_down(lab, settings, place)
        if purge:
            purge_foundation(settings, place)


def take_down(lab: str, settings: Settings, place: Place, *, to_return: bool = False) -> None:
    """The story of a down, for a run that holds the lab. ``to_return``: it comes up again now."""
    destroy_lab(lab, settings, place)
    check_nothing_left(lab, settings, place, to_return=to_return)
