"""``lab-up``: from a few wishes to a gateway that has answered for every model."""

from __future__ import annotations

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from adapters.process import interruptible
from lab.durations import now
from lab.models.render import validation_cases
from lab.plan import Checked
from lab.settings import Settings, read_settings
from lab.spec import LabSpec
from tasks.hold import hold_lab, wait_for_others
from tasks.image import audit_image, build_image, plan_image, push_image, scan_image
from tasks.lifetime import note_image, schedule_end
from tasks.outcome import UpOutcome, destroyed_on_failure, gather, told_outcome
from tasks.preflight import preflight
from tasks.provision import provision_foundation, provision_lab, take_inventory, vouch_for_lab
from tasks.rollout import roll_out
from tasks.validate import check_model_list, prepare_to_ask, validate_model
from tasks.verify import verify_lab


@flow(
    name="lab-up",
    flow_run_name="up {spec.lab}",
    # All models are asked at once: the slowest decides, not their number.
    task_runner=ThreadPoolTaskRunner(max_workers=96),  # type: ignore[arg-type]
    persist_result=False,
)
def lab_up(spec: LabSpec) -> None:
    """Bring a lab up, or bring a live one to what is asked; ask every model, and look at the lab.

    The lab's end is registered before anything billable exists. The report is published whatever
    happens. Fails unless every model answered and the lab is as it must be.
    """
    settings = read_settings()
    with told_outcome(spec, settings, now() + spec.lifetime) as outcome, interruptible():
        checked = preflight(spec, settings)
        with (
            hold_lab(spec.lab, settings, checked.place, "lab-up", wait_for_others("lab-up")),
            destroyed_on_failure(spec, settings, checked.place),
        ):
            bring_up(spec, settings, checked, outcome)


def bring_up(spec: LabSpec, settings: Settings, checked: Checked, outcome: UpOutcome) -> None:
    """The story of an up, for a run that holds the lab."""
    outcome.models_are(checked.model_notes)
    planned = plan_image.submit(settings, checked)
    record = schedule_end(spec, settings, checked, outcome.expires_at)
    outcome.end_is_registered(record)
    (image,) = gather(planned)

    foundation = provision_foundation.submit(settings, checked.place)
    scanned = scan_image.submit(spec.lab, settings, checked, image)
    audited = audit_image.submit(checked, image)
    built = build_image.submit(settings, checked, image, scanned, return_state=False)
    provisioned = provision_lab.submit(spec, settings, checked, image, record)
    needed = [foundation, audited, built]
    pushed = push_image.submit(settings, image, wait_for=needed, return_state=False)
    prepare_to_ask()
    _, scan, audit, was_built, made, digest = gather(
        foundation, scanned, audited, built, provisioned, pushed
    )
    outcome.image_is(image, digest, scan, audit, built=was_built)

    live = roll_out(spec.lab, settings, made, image, digest)
    note_image(spec.lab, settings, checked.place, image, digest)
    outcome.endpoint_is(live.endpoint)

    cases = validation_cases(checked.models)
    listed = check_model_list.submit(spec.lab, settings, live.endpoint, made.secret_name, cases)
    asked = validate_model.map(
        unmapped(settings), unmapped(live.endpoint), unmapped(made.secret_name), cases
    )
    verified = verify_lab.submit(spec.lab, settings, checked.place)
    inventory = take_inventory.submit(spec.lab, settings)
    outcome.proved(listed, asked, verified)
    vouch_for_lab(spec.lab, made, gather(inventory)[0], settings, checked.place)
