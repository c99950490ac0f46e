"""``lab-down``: destroys a lab; the run names what is left, if anything is."""

from __future__ import annotations

from typing import Annotated

from prefect import flow

from lab.record import Reason
from lab.spec import LabName, described
from tasks.hold import hold_lab
from tasks.site import Site, open_site
from tasks.teardown import check_nothing_left, destroy_lab, purge_foundation, reason_holds


@flow(name="lab-down", flow_run_name="down {lab}", persist_result=False)
def lab_down(
    lab: LabName,
    reason: Annotated[Reason, described("Why: a reason other than `asked` must still hold.")] = (
        Reason.ASKED
    ),
    of_run: Annotated[str | None, described("The run of the up that failed.")] = None,
    purge: Annotated[bool, described("Also remove what labs share, once no lab is left.")] = False,
) -> None:
    """Destroy a lab, then check in every service whether anything of it is left.

    It succeeds if the lab is already gone. With a reason other than "asked", the lab is destroyed
    only if that reason still holds; ``of_run`` is the up that failed. ``purge`` also removes what
    labs share (images, state bucket) once no lab has state.
    """
    with open_site() as site:
        # Checked twice: a run that is not needed does not wait for the lab, and much can change
        # while another one waits.
        if reason_holds(lab, site, reason, of_run):
            with hold_lab(lab, site, "lab-down"):
                if reason_holds(lab, site, reason, of_run):
                    take_down(lab, site)
        if purge:
            purge_foundation(site)


def take_down(lab: str, site: Site, *, to_return: bool = False) -> None:
    """The story of a down, for a run that holds the lab. ``to_return``: the lab comes up again."""
    destroy_lab(lab, site)
    check_nothing_left(lab, site, to_return=to_return)
