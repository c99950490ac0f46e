"""``lab-rotate-key``: gives a live lab a new key; the old one no longer opens it."""

from __future__ import annotations

from prefect import flow

from lab.spec import LabName
from tasks.hold import hold_lab, refuse_same_kind
from tasks.rollout import roll_out
from tasks.rotate import check_keys, explain_partial_rotation, make_new_key
from tasks.site import open_site


@flow(name="lab-rotate-key", flow_run_name="rotate key of {lab}", persist_result=False)
def lab_rotate_key(lab: LabName) -> None:
    """Let AWS make another key for a live lab, and roll it out.

    The task with the old key serves until the one with the new key is ready. Fails unless the new
    key then opens the gateway and the old one is refused. It may be run again after a failure, and
    then continues from there.
    """
    with (
        open_site() as site,
        hold_lab(lab, site, "lab-rotate-key", refuse_same_kind("lab-rotate-key")),
    ):
        made = make_new_key(lab, site)
        with explain_partial_rotation(lab):
            live = roll_out(lab, site, made)
            check_keys(lab, site, live.endpoint)
