"""``lab-verify``: whether a live lab is as it must be, by what the cloud says of it now."""

from __future__ import annotations

from prefect import flow

from lab.spec import LabName
from tasks.site import open_site
from tasks.verify import verify_lab


@flow(name="lab-verify", flow_run_name="verify {lab}", persist_result=False)
def lab_verify(lab: LabName) -> None:
    """Ask the cloud and the gateway for everything that must be so, and publish it as a table.

    Changes nothing and holds nothing. Fails with the name of each check that was missed.
    """
    with open_site() as site:
        verify_lab(lab, site).raise_if_missed(lab)
