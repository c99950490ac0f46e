"""``lab-rebuild``: the same lab, fresh. Its ``nightly`` deployment has it ready in the morning."""

from __future__ import annotations

from prefect import flow

from adapters.process import interruptible
from flows.lab_down import take_down
from flows.lab_up import bring_up, lab_up
from lab.durations import now
from lab.settings import read_settings
from lab.spec import LabSpec, OnFailure
from tasks.hold import hold_lab, wait_for_others
from tasks.lifetime import mark_for_rebuild
from tasks.outcome import destroyed_on_failure, told_outcome
from tasks.preflight import preflight


@flow(
    name="lab-rebuild",
    flow_run_name="rebuild {spec.lab}",
    task_runner=lab_up.task_runner,
    persist_result=False,
)
def lab_rebuild(spec: LabSpec) -> None:
    """Destroy a lab and bring it up again under the same name, reusing its image.

    A rebuild that fails says so and leaves no half lab: what it made is destroyed.
    """
    settings = read_settings()
    spec = spec.model_copy(update={"on_failure": OnFailure.DESTROY})
    with told_outcome(spec, settings, now() + spec.lifetime) as outcome, interruptible():
        checked = preflight(spec, settings)
        others = wait_for_others("lab-rebuild")
        with (
            hold_lab(spec.lab, settings, checked.place, "lab-rebuild", others),
            destroyed_on_failure(spec, settings, checked.place),
        ):
            mark_for_rebuild(spec.lab, settings, checked.place)
            take_down(spec.lab, settings, checked.place, to_return=True)
            bring_up(spec, settings, checked, outcome)
