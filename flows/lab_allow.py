"""``lab-allow``: lets other hosts reach a live lab, without a rebuild."""

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
    remove: Annotated[Hosts | None, described("Hosts to shut out.")] = None,
) -> None:
    """Let the hosts of ``add`` reach a live lab, and shut out those of ``remove``.

    At least one address must be given. It succeeds if nothing has to change. The lab's task keeps
    running; the next ``lab-up`` sets the hosts to those of its own parameters.
    """
    check_change(add or [], remove or [])
    with open_site() as site, hold_lab(lab, site, "lab-allow"):
        change_allowed(lab, site, add or [], remove or [])
