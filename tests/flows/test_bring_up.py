"""What ``lab-up`` and ``lab-rebuild`` share: how a lab is brought up, and how that may fail."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from prefect import Flow
from prefect.exceptions import TerminationSignal

from adapters.aws.lease import LeaseLostError
from flows.lab_rebuild import lab_rebuild
from flows.lab_up import lab_up
from lab.errors import InterruptedWorkError, PermanentError
from tasks.outcome import STAGES
from tests.flows.recorder import DIGEST, INVENTORY, LIVE, MISSED, POSTURE, Story, answer, refusal

BILLABLE = ("provision_foundation", "provision_lab", "build_image", "push_image", "roll_out")
PROOF = ("check_model_list", "validate_model", "verify_lab")
FIRST = PermanentError("what went wrong first")
#: All that can fail once the lab is held, in the order of the story.
HELD_STAGES = (
    "plan_image",
    "schedule_end",
    "provision_foundation",
    "scan_image",
    "audit_image",
    "build_image",
    "push_image",
    "provision_lab",
    "roll_out",
    "check_model_list",
    "validate_model",
    "verify_lab",
)


@dataclass
class Run:
    """A run of one of the two flows; a lab that fails is to be destroyed."""

    flow: Flow[..., None]

    def __call__(self) -> None:
        self.flow.fn(lab="demo", on_failure="destroy")

    @property
    def destroys_first(self) -> bool:
        return self.flow is lab_rebuild


@pytest.fixture(params=[lab_up, lab_rebuild], ids=["up", "rebuild"])
def run(request: pytest.FixtureRequest) -> Run:
    return Run(request.param)


def was_cleaned_up(story: Story) -> bool:
    """Whether the lab was destroyed and looked for after all that was made of it."""
    done = ["destroy_lab", "check_nothing_left", "release_lease", "publish_report"]
    return story.names[-4:] == done


# --- the order -------------------------------------------------------------------------------


def test_the_end_is_registered_before_anything_billable(story: Story, run: Run) -> None:
    """should have an end in the cloud before the first thing that costs money"""
    run()
    for stage in BILLABLE:
        story.assert_order("hold_lease", "schedule_end", stage)


def test_the_plan_is_known_before_anything_billable(story: Story, run: Run) -> None:
    """should know the image, and that no fault of it is known, before anything is made"""
    run()
    for stage in BILLABLE:
        story.assert_order("preflight", "plan_image", stage)


@pytest.mark.parametrize(
    "before", ["scan_image", "audit_image", "build_image", "provision_foundation"]
)
def test_the_push_waits_for_scan_audit_build_and_repository(
    story: Story, run: Run, before: str
) -> None:
    """should push only what was scanned, audited and built, to an existing repository"""
    run()
    story.assert_order(before, "push_image")


def test_the_build_waits_for_the_scan(story: Story, run: Run) -> None:
    """should build from wheels that were scanned"""
    run()
    story.assert_order("scan_image", "build_image")


def test_the_image_and_the_lab_are_made_at_the_same_time(story: Story, run: Run) -> None:
    """should make neither wait for the other, nor the audit for the scan"""
    run()
    for one, other in [
        ("push_image", "provision_lab"),
        ("provision_lab", "push_image"),
        ("provision_foundation", "provision_lab"),
        ("provision_foundation", "scan_image"),
        ("scan_image", "audit_image"),
        ("audit_image", "build_image"),
        ("plan_image", "schedule_end"),
    ]:
        assert not story.is_ordered(one, other), f"{other} waits for {one}"


@pytest.mark.parametrize("before", ["provision_lab", "push_image", "audit_image"])
def test_the_rollout_waits_for_lab_and_image(story: Story, run: Run, before: str) -> None:
    """should start a task from the pushed image, in the provisioned lab"""
    run()
    story.assert_order(before, "roll_out")


@pytest.mark.parametrize("stage", [*PROOF, "take_inventory"])
def test_the_proof_follows_the_rollout(story: Story, run: Run, stage: str) -> None:
    """should ask the models of the serving task, and check its posture"""
    run()
    story.assert_order("roll_out", stage)


def test_models_and_posture_are_checked_in_parallel(story: Story, run: Run) -> None:
    """should make no question wait for another"""
    run()
    assert not story.is_ordered("check_model_list", "validate_model")
    assert not story.is_ordered("validate_model", "verify_lab")
    first, second = story.all_of("validate_model")
    assert first not in second.after


def test_everything_is_done_while_the_lab_is_held(story: Story, run: Run) -> None:
    """should hold the lab before the first change, and until no work of the run is left"""
    run()
    for stage in HELD_STAGES:
        story.assert_order("hold_lease", stage, "release_lease")
    story.assert_order("find_site", "preflight", "hold_lease")
    story.assert_order("release_lease", "publish_report")


# --- what is saved for the next up -----------------------------------------------------------


def test_only_a_proved_lab_lets_the_next_up_skip_terraform(story: Story, run: Run) -> None:
    """should save the fingerprint after every model has answered and the posture is known"""
    run()
    for stage in (*PROOF, "take_inventory"):
        story.assert_order(stage, "save_apply_fingerprint", "release_lease")
    assert story.only("save_apply_fingerprint")["inventory"] == INVENTORY


@pytest.mark.parametrize(
    ("stage", "outcome"),
    [
        ("check_model_list", FIRST),
        ("validate_model", refusal),
        ("validate_model", FIRST),
        ("verify_lab", MISSED),
        ("verify_lab", FIRST),
    ],
)
def test_a_lab_that_fails_its_proof_is_applied_again(
    story: Story, run: Run, stage: str, outcome: object
) -> None:
    """should save no fingerprint, and fail"""
    story.will(stage, outcome)
    with pytest.raises(PermanentError):
        run()
    assert not story.happened("save_apply_fingerprint")
    assert was_cleaned_up(story)


def test_failed_models_and_missed_checks_are_in_one_error(story: Story, run: Run) -> None:
    """should name both in one error, the models first"""
    story.will("validate_model", answer, refusal)
    story.will("verify_lab", MISSED)
    with pytest.raises(PermanentError, match=r"1 of 2 models failed: two: refused(?s:.*)posture"):
        run()


# --- failures --------------------------------------------------------------------------------


def test_a_refused_plan_costs_nothing(story: Story, run: Run) -> None:
    """should begin nothing billable if the image must not be built"""
    story.will("plan_image", FIRST)
    with pytest.raises(PermanentError) as caught:
        run()
    assert caught.value is FIRST
    assert not story.happened(*BILLABLE, "scan_image", "audit_image")


@pytest.mark.parametrize(
    ("stage", "kept_from"),
    [
        ("provision_foundation", ["push_image", "roll_out"]),
        ("scan_image", ["build_image", "push_image", "roll_out"]),
        ("audit_image", ["push_image", "roll_out"]),
        ("build_image", ["push_image", "roll_out"]),
        ("push_image", ["roll_out"]),
        ("provision_lab", ["roll_out"]),
        ("roll_out", [*PROOF, "save_apply_fingerprint"]),
    ],
)
def test_no_stage_begins_if_one_that_it_needs_failed(
    story: Story, run: Run, stage: str, kept_from: list[str]
) -> None:
    """should raise the error of the failed stage, not one of a stage that never ran"""
    story.will(stage, FIRST)
    with pytest.raises(PermanentError) as caught:
        run()
    assert caught.value is FIRST
    assert not story.happened(*kept_from, *PROOF)


@pytest.mark.parametrize("stage", HELD_STAGES)
def test_no_stage_runs_when_a_failed_lab_is_destroyed(story: Story, run: Run, stage: str) -> None:
    """should wait for every stage that has begun, then destroy, while it holds the lab"""
    story.will(stage, FIRST)
    with pytest.raises(PermanentError):
        run()
    assert was_cleaned_up(story)
    last = story.all_of("destroy_lab")[-1]
    begun = {call for call in story.calls if call.name in HELD_STAGES}
    # The plan changes nothing: it may go on although the end could not be registered.
    ignored = {"plan_image"} if stage == "schedule_end" else set()
    assert {call.name for call in begun - last.after} == ignored


@pytest.mark.parametrize("stage", ["schedule_end", "audit_image", "roll_out", "verify_lab"])
def test_the_first_error_is_raised(story: Story, run: Run, stage: str) -> None:
    """should log the errors of clean-up and report, and raise neither of them"""
    story.will(stage, FIRST)
    # A rebuild also destroys the lab at the start, and that succeeds.
    before = [None] if run.destroys_first else []
    story.will("destroy_lab", *before, PermanentError("still in use"))
    story.will("publish_report", OSError("no space"))
    with pytest.raises(PermanentError) as caught:
        run()
    assert caught.value is FIRST
    said = "\n".join(story.said)
    assert "destroying the failed lab failed too, after PermanentError: still in use" in said
    assert "publishing the report failed too, after PermanentError: no space" in said


@pytest.mark.parametrize(
    ("stage", "called"),
    [
        ("find_site", "find place"),
        ("provision_foundation", "foundation"),
        ("scan_image", "scan image"),
        ("roll_out", "rollout"),
        ("verify_lab", "verify"),
    ],
)
def test_an_unexpected_error_is_raised_unchanged(
    story: Story, run: Run, stage: str, called: str
) -> None:
    """should report it, and not hide it behind stages that never ran because of it"""
    error = RuntimeError("nobody thought of this")
    story.will(stage, error)
    with pytest.raises(RuntimeError) as caught:
        run()
    assert caught.value is error
    assert story.report.error == f"at {called}: nobody thought of this"


def test_an_expected_error_comes_before_an_unexpected_one(story: Story, run: Run) -> None:
    """should raise the error that says what to do, whichever stage failed first"""
    story.will("scan_image", RuntimeError("nobody thought of this"))
    story.will("provision_lab", FIRST)
    with pytest.raises(PermanentError) as caught:
        run()
    assert caught.value is FIRST
    assert story.report.error == "at provision: what went wrong first"


# --- a run that is being ended ---------------------------------------------------------------


@pytest.mark.parametrize("stage", ["provision_foundation", "build_image", "provision_lab"])
def test_nothing_follows_interrupted_work(story: Story, run: Run, stage: str) -> None:
    """should neither go on nor destroy: another run may work on the lab now"""

    def interrupted(**_: object) -> None:
        story.lose_lease()
        raise InterruptedWorkError("terraform was interrupted")

    story.will(stage, interrupted)
    with pytest.raises(InterruptedWorkError):
        run()
    begun = story.names[story.names.index(stage) + 1 :]
    assert begun == ["release_lease", "publish_report"]
    # Nor does it try to, and say that it failed.
    assert not any("destroying" in line for line in story.said)


@pytest.mark.parametrize("outcome", [LIVE, FIRST], ids=["went well", "failed"])
def test_a_lease_that_is_lost_while_no_child_runs_ends_the_run_too(
    story: Story, run: Run, outcome: object
) -> None:
    """should begin no other stage, and destroy nothing"""

    def lost(**_: object) -> object:
        story.lose_lease()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    story.will("roll_out", lost)
    with pytest.raises(PermanentError):
        run()
    assert story.names[-3:] == ["roll_out", "release_lease", "publish_report"]


def test_a_lease_that_is_lost_at_the_end_fails_the_run(story: Story, run: Run) -> None:
    """should not call a lab up, nor change it, if another run may work on it"""
    story.will("save_apply_fingerprint", lambda **_: story.lose_lease())
    with pytest.raises(LeaseLostError):
        run()
    assert story.names[-3:] == ["save_apply_fingerprint", "release_lease", "publish_report"]
    assert "the lease of lab demo could not be kept" in (story.report.error or "")


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), TerminationSignal(15)])
def test_a_cancelled_run_reports_and_changes_nothing_more(
    story: Story, run: Run, ending: BaseException
) -> None:
    """should raise the exception that ended it"""
    story.will("roll_out", ending)
    with pytest.raises(type(ending)):
        run()
    assert story.names[-3:] == ["roll_out", "release_lease", "publish_report"]


# --- the report ------------------------------------------------------------------------------


def test_the_report_of_a_lab_that_is_up(story: Story, run: Run) -> None:
    """should say where the lab is, what runs there, which models answered, and the cost"""
    run()
    report = story.report
    assert report.passed
    assert report.image is not None
    assert report.image.digest == DIGEST
    assert report.endpoint == LIVE.endpoint.url
    assert [(model.alias, model.verdict) for model in report.models] == [
        ("one", "ok"),
        ("two", "ok"),
    ]
    assert report.posture == POSTURE
    assert [note.alias for note in report.model_notes] == ["one"]
    assert report.cost is not None
    assert not any(stage.failed for stage in report.stages)


def test_the_report_has_every_stage(story: Story, run: Run) -> None:
    """should name each stage of the plan once, and no other stage but those of a down"""
    run()
    found = [stage.name for stage in story.report.stages]
    assert len(found) == len(set(found))
    assert set(STAGES) <= set(found)
    assert set(found) - set(STAGES) <= {"destroy", "look for leftovers"}


@pytest.mark.parametrize(
    ("stage", "called"),
    [
        ("find_site", "find place"),
        ("preflight", "preflight"),
        ("plan_image", "plan image"),
        ("schedule_end", "schedule end"),
        ("provision_foundation", "foundation"),
        ("scan_image", "scan image"),
        ("audit_image", "audit image"),
        ("build_image", "build image"),
        ("push_image", "push image"),
        ("provision_lab", "provision"),
        ("roll_out", "rollout"),
        ("check_model_list", "validate"),
        ("verify_lab", "verify"),
    ],
)
def test_a_report_is_published_whatever_fails(
    story: Story, run: Run, stage: str, called: str
) -> None:
    """should name the stage and the error"""
    story.will(stage, PermanentError("broken"))
    with pytest.raises(PermanentError):
        run()
    assert story.report.error == f"at {called}: broken"
    assert [one.name for one in story.report.stages if one.failed] == [called]
    assert not story.report.passed


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), TerminationSignal(15)])
def test_a_report_is_published_of_a_cancelled_run(
    story: Story, run: Run, ending: BaseException
) -> None:
    """should name the stage that was cut off"""
    story.will("roll_out", ending)
    with pytest.raises(type(ending)):
        run()
    assert (story.report.error or "").startswith("at rollout: ")


@pytest.mark.parametrize(
    ("stage", "reached"),
    [
        ("push_image", set()),
        ("roll_out", {"image"}),
        ("check_model_list", {"image", "endpoint", "posture"}),
        ("verify_lab", {"image", "endpoint", "models"}),
    ],
)
def test_the_report_of_a_failed_run_has_its_results_so_far(
    story: Story, run: Run, stage: str, reached: set[str]
) -> None:
    """should keep the image after the push, the endpoint after the rollout, and the answers"""
    story.will(stage, FIRST)
    with pytest.raises(PermanentError):
        run()
    found = {n for n in ("image", "endpoint", "models", "posture") if getattr(story.report, n)}
    assert found == reached
    assert story.report.cost is not None


def test_answers_of_a_lab_that_fails_its_proof_are_reported(story: Story, run: Run) -> None:
    """should have every verdict and the posture"""
    story.will("validate_model", answer, refusal)
    story.will("verify_lab", MISSED)
    with pytest.raises(PermanentError):
        run()
    assert [model.verdict for model in story.report.models] == ["ok", "refused"]
    assert story.report.posture == MISSED


def test_a_report_that_cannot_be_published_fails_a_good_run(story: Story, run: Run) -> None:
    """should not hide that the report is missing"""
    story.will("publish_report", OSError("no space"))
    with pytest.raises(OSError, match="no space"):
        run()
