"""``lab-rotate-key``: a live lab gets a new key, and the old one opens it no more."""

from __future__ import annotations

from prefect import flow

from adapters.process import interruptible
from lab.settings import read_settings
from lab.spec import LabName
from tasks.hold import hold_lab, wait_for_others
from tasks.rollout import roll_out
from tasks.rotate import check_keys, make_new_key, told_halfway
from tasks.teardown import locate


@flow(name="lab-rotate-key", flow_run_name="rotate key of {lab}", persist_result=False)
def lab_rotate_key(lab: LabName) -> None:
    """Have AWS make another key for a live lab, and roll it out.

    The task with the old key serves until the one with the new key is ready. Fails unless the new
    key then opens the gateway and the old one is refused. May be run again after a failure: it
    goes on from there.
    """
    settings = read_settings()
    with interruptible():
        place = locate(settings)
        others = wait_for_others("lab-rotate-key")
        with hold_lab(lab, settings, place, "lab-rotate-key", others):
            made = make_new_key(lab, settings, place)
            with told_halfway(lab):
                live = roll_out(lab, settings, made)
                check_keys(lab, settings, live.endpoint, made.secret_name)
