"""``lab-allow``: other hosts may reach a live lab, without a rebuild."""

from __future__ import annotations

from typing import Annotated

from prefect import flow

from lab.addresses import check_change
from lab.spec import Hosts, LabName, described
from tasks.allow import change_allowed
from tasks.hold import hold_lab
from tasks.site import open_site


@flow(name="lab-allow", flow_run_name="allow {lab}", persist_result=False)
def lab_allow(
    lab: LabName,
    add: Annotated[Hosts | None, described("Public IPv4 hosts to let in.")] = None,
    remove: Annotated[Hosts | None, described("Hosts to let in no longer.")] = None,
) -> None:
    """Let the hosts of ``add`` reach a live lab, and those of ``remove`` no longer.

    At least one address must be given. Already so is success. The lab's task goes on as it is; the
    next ``lab-up`` sets the hosts to what it is asked for.
    """
    check_change(add or [], remove or [])
    with open_site() as site, hold_lab(lab, site, "lab-allow"):
        change_allowed(lab, site, add or [], remove or [])
