"""``lab-allow``: other hosts may reach a live lab, without a rebuild."""

from __future__ import annotations

from prefect import flow

from adapters.process import interruptible
from lab.addresses import check_change
from lab.settings import read_settings
from lab.spec import Hosts, LabName
from tasks.allow import change_allowed
from tasks.hold import hold_lab
from tasks.teardown import locate


@flow(name="lab-allow", flow_run_name="allow {lab}", persist_result=False)
def lab_allow(lab: LabName, add: Hosts | None = None, remove: Hosts | None = None) -> None:
    """Let the hosts of ``add`` reach a live lab, and those of ``remove`` no longer.

    At least one address must be given. Already so is success. The lab's task goes on as it is; the
    next ``lab-up`` sets the hosts to what it is asked for.
    """
    settings = read_settings()
    check_change(add or [], remove or [])
    with interruptible():
        place = locate(settings)
        with hold_lab(lab, settings, place, "lab-allow"):
            change_allowed(lab, settings, place, add or [], remove or [])
