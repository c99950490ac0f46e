"""``lab-rebuild``: destroys a lab and brings it up again, also by the schedule of ``nightly``."""

from __future__ import annotations

from prefect import flow

from flows.lab_down import take_down
from flows.lab_up import bring_up, lab_up
from flows.parameters import takes_lab_spec
from lab.durations import now
from lab.spec import LabSpec, OnFailure
from tasks.hold import hold_lab, refuse_same_kind
from tasks.outcome import destroyed_on_failure, reporting
from tasks.preflight import preflight
from tasks.records import mark_for_rebuild
from tasks.site import open_site


@flow(
    name="lab-rebuild",
    flow_run_name="rebuild {lab}",
    task_runner=lab_up.task_runner,
    persist_result=False,
)
@takes_lab_spec
def lab_rebuild(spec: LabSpec) -> None:
    """Destroy a lab and bring it up again under the same name, reusing its image.

    A rebuild that fails reports it and destroys what it made, so no half lab is left.
    """
    spec = spec.model_copy(update={"on_failure": OnFailure.DESTROY})
    ends_at = now() + spec.lifetime
    with reporting(spec, ends_at), open_site() as site:
        checked = preflight(spec, site)
        with (
            hold_lab(spec.lab, site, "lab-rebuild", refuse_same_kind("lab-rebuild")),
            destroyed_on_failure(spec, site),
        ):
            mark_for_rebuild(spec.lab, site)
            take_down(spec.lab, site, to_return=True)
            bring_up(spec, site, checked, ends_at)
