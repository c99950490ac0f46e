"""The whole posture of a lab: all checks are made; report, artifact and terminal show misses."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Failed
from rich.console import Console

from adapters.aws import facts as aws
from adapters.aws.registry import HeldImage
from adapters.aws.secret_scan import Searched
from adapters.gateway import probes
from lab.certificate import Trust
from lab.errors import PermanentError, TransientError
from lab.live import RunningTask
from lab.names import tls_name
from lab.posture import (
    INVOKE,
    Check,
    CheckName,
    ForbiddenAttempt,
    Ingress,
    Posture,
    Question,
    Refusal,
    RoleFacts,
    TlsHandshake,
    judge_retention,
    posture_of,
)
from lab.report.model import LabReport, ModelResult, Verdict
from lab.report.tables import posture_rows
from lab.settings import Settings
from tasks import prove, publish, verify
from tasks.draft import drafting
from tests.unit.lab.good_lab import AT, CLUSTER, POLICY, RECORD, TAGS, TASK
from tests.unit.lab.test_leaks import GATEWAY_KEY
from tests.unit.tasks.sites import FakeSite, MemoryBucket
from workstation.view import show_report

LIVE = RECORD.model_copy(
    update={
        "cidrs": ["203.0.113.10/32"],
        "trust": Trust(ca="CA", version=1, not_after=AT + timedelta(days=1)),
    }
)
REFUSED = [Refusal("GET /", 401, openai_form=True)]


class Lab(MemoryBucket):
    """A good lab, each part of which a test can break."""

    task: RunningTask | None = RunningTask(TASK.arn, "203.0.113.1", "sha256:abcd")
    held = "sha256:abcd"

    def site(self, settings: Settings | None = None) -> FakeSite:
        return FakeSite(settings, bucket=self, registry=self, secrets=self, service=self)

    def running_task(self) -> RunningTask | None:
        return self.task

    def require(self, secret: str) -> str:
        assert secret == "gateway-lab-demo/gateway-key"  # pragma: allowlist secret: a name
        return GATEWAY_KEY

    def held_image(self, tag: str) -> HeldImage:
        assert tag == "0123"
        return HeldImage(self.held, "sha256:config")


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab(LIVE)
    monkeypatch.setattr(publish, "create_markdown_artifact", lambda *_, **__: None)

    def answers(module: Any, name: str, answer: Any) -> None:
        monkeypatch.setattr(module, name, lambda *_: answer)

    def iam(_: object, role: str, questions: list[Question]) -> dict[Question, dict[str, str]]:
        assert role == "arn:aws:iam::111122223333:role/gateway-lab-demo-task"
        said = {True: "allowed", False: "implicitDeny"}
        return {q: dict.fromkeys(INVOKE, said[q.allowed]) for q in questions}

    shown = TlsHandshake(
        version="TLSv1.3", names=(tls_name("demo"),), not_after=AT + timedelta(days=1)
    )
    answers(aws, "read_task", TASK)
    answers(aws, "read_ingress", [Ingress("203.0.113.10/32", "tcp", 4000, 4000)])
    answers(aws, "read_role", RoleFacts(None, (), {"invoke-models": POLICY}))
    answers(aws, "read_retention", 7)
    answers(aws, "read_tags", {"cluster": CLUSTER, "service": TAGS})
    monkeypatch.setattr(aws, "ask_iam", iam)
    answers(probes, "shake_hands", shown)
    for name in ("try_public_trust", "try_old_tls", "try_plain_http"):
        answers(probes, name, ForbiddenAttempt(refused=True, said="refused"))
    answers(probes, "ask_without_key", REFUSED)
    answers(probes, "ask_for_models", [Refusal("vendor.x", 400, openai_form=True)])
    answers(verify, "search_image", Searched("2 layers"))
    answers(verify, "search_state", Searched("the state"))
    return made


def look(lab: Lab) -> Posture:
    found: Posture = verify.verify_lab.fn("demo", lab.site())
    return found


def missed(lab: Lab) -> list[str]:
    return [check.name for check in look(lab).missed]


def test_a_good_lab_passes_every_check(lab: Lab) -> None:
    """should make each existing check, in order"""
    found = look(lab)
    assert [check.name for check in found.checks] == list(CheckName)
    assert found.missed == []
    assert found.summary == "18 of 18 checks passed"


def test_several_faults_are_all_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """should not stop at the first miss"""
    open_to_all = [Ingress("0.0.0.0/0", "tcp", 4000, 4000)]
    monkeypatch.setattr(aws, "read_ingress", lambda *_: open_to_all)
    monkeypatch.setattr(aws, "read_retention", lambda *_: None)
    monkeypatch.setattr(aws, "read_task", lambda *_: replace(TASK, capacity="FARGATE"))
    lab.held = "sha256:other"
    assert missed(lab) == ["firewall", "capacity provider", "image digest", "log retention"]


def test_the_wanted_boundary_is_checked(lab: Lab) -> None:
    """should miss a role without it"""
    settings = Settings(role_boundary="gateway-lab-boundary")
    found: Posture = verify.verify_lab.fn("demo", lab.site(settings))
    assert [check.name for check in found.missed] == ["task role's rights"]


def test_a_check_without_permission_is_missed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """should name the check, the missing permission and what to do, and make the other checks"""

    def refuse(*_: object) -> None:
        raise PermanentError("iam:SimulatePrincipalPolicy is not allowed", "Allow it.")

    monkeypatch.setattr(aws, "ask_iam", refuse)
    (check,) = look(lab).missed
    assert check.name == "unlisted model refused by IAM"
    assert "iam:SimulatePrincipalPolicy is not allowed" in check.found
    assert "Allow it." in check.found


def test_a_transient_error_is_tried_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """should be transient, so that the stage is tried again, and name the check"""

    def throttle(*_: object) -> None:
        raise TransientError("throttled", "Wait.")

    monkeypatch.setattr(aws, "read_tags", throttle)
    with pytest.raises(TransientError, match="tags: throttled"):
        look(lab)


def test_a_lab_that_cannot_be_checked_is_an_error(lab: Lab) -> None:
    """should not be taken for a lab that misses every check"""
    lab.task = None
    with pytest.raises(PermanentError, match="no task of lab demo runs"):
        look(lab)
    lab.objects.clear()
    with pytest.raises(PermanentError, match="there is no lab demo"):
        look(lab)


def test_no_secret_is_published(
    lab: Lab, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should have the key in no log and no artifact, even if it was found"""
    published: list[str] = []
    monkeypatch.setattr(
        publish, "create_markdown_artifact", lambda text, **_: published.append(text)
    )
    bad = replace(TASK, overrides={"NOTE": GATEWAY_KEY, "AWS_ACCESS_KEY_ID": "x"})
    monkeypatch.setattr(aws, "read_task", lambda *_: bad)
    assert missed(lab) == ["no static key in the environment"]
    text = "\n".join([*logged, *published])
    assert "MISSED: no static key in the environment" in text
    assert "the gateway's key in NOTE" in text
    assert GATEWAY_KEY not in text


# --- what is published-------------------------------------------------------------------------

GOOD = posture_of([judge_retention(7)])
BAD = posture_of(
    [judge_retention(None), Check(name=CheckName.TAGS, wanted="a | b", found="c\nd", passed=True)]
)


def report(posture: Posture | None, error: str | None = None) -> LabReport:
    return LabReport(
        lab="demo",
        target="local",
        endpoint="https://203.0.113.10:4000",
        created_at=AT,
        expires_at=datetime(2031, 1, 1, tzinfo=UTC),
        models=[ModelResult(alias="one", model_id="v.one", verdict=Verdict.OK)],
        posture=posture,
        error=error,
    )


def test_a_report_passes_only_if_nothing_was_missed() -> None:
    """should have the posture in the file and read it back, and read an earlier file"""
    assert report(GOOD).passed
    assert not report(BAD).passed
    assert report(None).passed
    again = LabReport.model_validate_json(report(BAD).model_dump_json())
    assert again == report(BAD)


def test_the_terminal_shows_the_posture() -> None:
    """should be one line, and one more for each miss"""

    def shown(posture: Posture) -> str:
        console = Console(file=io.StringIO(), width=140)
        show_report(report(posture), "http://127.0.0.1:4200", console)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return text

    assert "Posture      1 of 1 checks passed" in shown(GOOD)
    assert "1 of 2 checks passed" in shown(BAD)
    assert "✗ log retention: forever; wanted: an end" in shown(BAD)


def test_the_artifact_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """should have the misses first, and cells that break no table"""
    made: dict[str, str] = {}

    def keep(text: str, *, key: str, description: str) -> None:
        assert description
        made[key] = text

    monkeypatch.setattr(publish, "create_markdown_artifact", keep)
    publish.publish_posture("demo", BAD)
    lines = made["lab-demo-posture"].splitlines()
    assert lines[0] == "# Posture of lab demo: 1 of 2 checks passed"
    assert lines[2] == "| check | result | found | wanted |"
    assert lines[4] == "| log retention | MISSED | forever | an end |"
    assert lines[5] == "| tags | ok | c d | a \\| b |"
    assert [row["result"] for row in posture_rows(BAD)] == ["MISSED", "ok"]


class Future:
    """A task that has ended."""

    def __init__(self, ended: object) -> None:
        self.state: Any = (
            Failed(data=ended) if isinstance(ended, Exception) else Completed(data=ended)
        )
        #: Prefect's ``wait`` looks here.
        self._final_state = self.state

    def result(self) -> object:
        return self.state.result()


def proved(
    model: ModelResult,
    verified: object,
    lists: object = "its models",
) -> LabReport:
    made = LabReport(lab="demo", target="local", created_at=AT, expires_at=AT)
    listed: Any = Future(lists)
    asked: Any = [Future(model)]
    looked_at: Any = Future(verified)
    with drafting(made):
        try:
            prove.require_proof("demo", listed, asked, looked_at)
        except (PermanentError, TransientError) as error:
            made.error = error.message
    return made


OK = ModelResult(alias="one", model_id="v.one", verdict=Verdict.OK)
FAILED = ModelResult(alias="one", model_id="v.one", verdict=Verdict.TIMEOUT, error="late")


def test_an_up_fails_with_the_names_of_missed_checks() -> None:
    """should pass if all is good, and have models and posture in the report either way"""
    assert proved(OK, GOOD).passed
    made = proved(OK, BAD)
    assert "the posture of lab demo missed 1 of 2 checks: log retention" in (made.error or "")
    assert (made.models, made.posture) == ([OK], BAD)


def test_failed_models_are_reported_first() -> None:
    """should report the misses after them, and keep the posture in the report"""
    made = proved(FAILED, BAD)
    assert made.error
    assert made.error.startswith("1 of 1 models failed: one: timeout: late")
    assert "and of its posture: log retention: found forever" in made.error
    assert made.posture == BAD
    assert "posture" not in (proved(FAILED, GOOD).error or "")


def test_a_gateway_of_another_lab_is_reported_before_its_models() -> None:
    """should say why all models failed"""
    lists = PermanentError("the gateway of demo lists other models")
    made = proved(FAILED, GOOD, lists)
    assert made.error == "the gateway of demo lists other models"


def test_a_failed_verification_hides_no_failed_model() -> None:
    """should raise its error, or that of the models if they failed"""
    made = proved(OK, TransientError("throttled"))
    assert (made.error, made.models, made.posture) == ("throttled", [OK], None)
    assert "1 of 1 models failed" in (proved(FAILED, TransientError("throttled")).error or "")


def test_searched_layers_are_remembered_in_the_projects_home(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """should search the image that runs, not the one that should run"""
    asked: list[Any] = []

    def searched(*given: Any) -> Searched:
        asked.append(given)
        return Searched("it")

    monkeypatch.setattr(verify, "search_image", searched)
    running = replace(TASK, image_digest="sha256:other")
    monkeypatch.setattr(aws, "read_task", lambda *_: running)
    verify.verify_lab.fn("demo", lab.site(Settings(home=tmp_path)))
    ((registry, digest, known, memory),) = asked
    assert (registry, digest) == (lab, "sha256:other")
    assert known == {"the gateway's key": GATEWAY_KEY}
    assert memory.parent == tmp_path
