"""``lab-verify``: checks whether a live lab is as it must be, by asking the cloud now."""

from __future__ import annotations

from prefect import flow

from lab.spec import LabName
from tasks.site import open_site
from tasks.verify import verify_lab


@flow(name="lab-verify", flow_run_name="verify {lab}", persist_result=False)
def lab_verify(lab: LabName) -> None:
    """Check in the cloud and at the gateway everything that must be true; publish it as a table.

    Changes nothing and does not hold the lab. Fails with the name of each missed check.
    """
    with open_site() as site:
        verify_lab(lab, site).raise_if_missed(lab)
