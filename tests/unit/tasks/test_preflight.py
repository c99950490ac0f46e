"""Faults of place and models that preflight refuses, before anything is changed there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from adapters.aws.session import Cloud
from adapters.image import engine
from lab import waiting
from lab.errors import DeadlineError, InvalidInputError, PermanentError
from lab.models.lifecycle import ModelAction
from lab.plan import PreflightResult
from lab.report.model import LabReport
from lab.settings import Settings
from lab.spec import LabSpec
from tasks import preflight
from tasks.draft import drafting
from tasks.site import find_place
from tests.unit.adapters.aws.fake_bedrock import FakeBedrock, serve
from tests.unit.adapters.aws.stubs import Stubs
from tests.unit.tasks.sites import FakeSite

ACCOUNT = "111122223333"
AT = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A cloud whose credentials belong to ACCOUNT; it answers only the question for the caller."""
    cloud = Cloud(boto3.Session("id", "key", region_name="us-east-1"))
    sts = cloud.client("sts")
    stub = Stubber(sts)
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/lab/me"
    stub.add_response("get_caller_identity", {"Account": ACCOUNT, "Arn": arn, "UserId": "me"})
    stub.activate()
    monkeypatch.setattr(cloud, "client", lambda _: sts)
    return cloud


def test_accepts_the_allowed_account(cloud: Cloud) -> None:
    """should find account, partition and region"""
    place = find_place(cloud, Settings(account=ACCOUNT))
    assert (place.account, place.partition, place.region) == (ACCOUNT, "aws", "us-east-1")
    assert place.repository == f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/gateway-lab"


def test_refuses_another_account(cloud: Cloud) -> None:
    """should name both accounts"""
    with pytest.raises(PermanentError, match=f"belong to account {ACCOUNT}, allowed is 9999"):
        find_place(cloud, Settings(account="999999999999"))


def test_refuses_a_region_that_aws_does_not_have() -> None:
    """should need no call to know that"""
    nowhere = Cloud(boto3.Session("id", "key", region_name="us-east-9"))
    with pytest.raises(InvalidInputError, match="region 'us-east-9' is not one"):
        find_place(nowhere, Settings(region="us-east-9"))


def test_refuses_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """should say what to start"""
    # A port of this machine where nothing listens.
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(PermanentError, match="no Docker engine answers") as refused:
        engine.connect()
    assert "DOCKER_HOST" in refused.value.hint


@pytest.mark.parametrize(
    ("given", "cidrs", "deployer"),
    [
        (None, ["9.9.9.9/32"], "9.9.9.9/32"),
        (["8.8.4.4", "1.1.1.1"], ["1.1.1.1/32", "8.8.4.4/32"], None),
        (["9.9.9.9"], ["9.9.9.9/32"], None),
    ],
)
def test_only_a_found_address_is_the_deployers(
    given: list[str] | None, cidrs: list[str], deployer: str | None
) -> None:
    """should not let an address follow the deployer that somebody requested, even the same one"""
    spec = LabSpec(lab="demo", allowed_addresses=given)
    settings = Settings(deployer_address="9.9.9.9")
    assert preflight._allowed(spec, settings) == (cidrs, deployer)


SEED = {
    "bedrock-llama": "meta.llama3-8b-instruct-v1:0",
    "bedrock-titan": "amazon.titan-text-express-v1",
    "bedrock-titan-lite": "amazon.titan-text-lite-v1",
    "bedrock-cohere": "cohere.command-r-v1:0",
}
LIVING = [
    "mistral.ministral-3-8b-instruct",
    "amazon.nova-lite-v1:0",
    "amazon.nova-micro-v1:0",
    "qwen.qwen3-32b-v1:0",
]


class Preflight:
    """The whole stage of a lab-up, with the test's own Bedrock."""

    def __init__(self, fake: FakeBedrock, cloud: Stubs, said: list[str]) -> None:
        self.fake, self.said, self._cloud = fake, said, cloud

    def run(self, settings: dict[str, Any] | None = None, **spec: Any) -> PreflightResult:
        asked = Settings(**{"deployer_address": "8.8.4.4", **(settings or {})})
        report = LabReport(lab="demo", target="local", created_at=AT, expires_at=AT)
        site = FakeSite(asked, cloud=self._cloud.cloud)
        with drafting(report):
            found = preflight.preflight.fn(LabSpec(**{"lab": "demo", **spec}), site)
        # An up that fails later still reports the notes on its models.
        assert report.model_notes == found.model_notes
        return found


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> Iterator[Preflight]:
    stubs, fake = Stubs("us-east-1"), FakeBedrock()
    monkeypatch.setattr(preflight, "terraform_version", lambda: (1, 11, 4))
    monkeypatch.setattr(preflight, "check_architecture", lambda *_: None)
    monkeypatch.setattr(engine, "connect", lambda: None)
    options = waiting.wait_for.__kwdefaults__
    pauses: list[float] = []
    monkeypatch.setitem(options, "sleep", pauses.append)
    monkeypatch.setitem(options, "clock", lambda: sum(pauses))
    with serve(fake) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", url)
        yield Preflight(fake, stubs, logged)


@pytest.fixture
def late_2026(stage: Preflight) -> Preflight:
    """AWS as it is: three of the seed's models are gone, one is Legacy, successors are active."""
    soon = datetime.now(UTC) + timedelta(days=126)
    stage.fake.has(SEED["bedrock-llama"], status="LEGACY", endOfLifeTime=soon)
    for model_id in LIVING:
        stage.fake.has(model_id)
    return stage


def test_a_lab_of_active_models_is_served_unchanged(stage: Preflight) -> None:
    """should have no notes, and make no agreement"""
    for model_id in SEED.values():
        stage.fake.has(model_id)
    checked = stage.run()
    assert {m.alias: m.model_id for m in checked.models} == SEED
    assert (checked.model_notes, checked.model_ends) == ([], {})
    assert not stage.fake.asked("CreateFoundationModelAgreement")


def test_retired_models_fail_with_their_successors(late_2026: Preflight) -> None:
    """should name each retired model and its successor, in one error, and nothing else"""
    with pytest.raises(PermanentError) as caught:
        late_2026.run()
    said = caught.value.message
    assert said.startswith("3 of 4 models cannot be served:")
    for alias, heir in {
        "bedrock-titan": "bedrock-nova-lite (amazon.nova-lite-v1:0)",
        "bedrock-titan-lite": "bedrock-nova-micro (amazon.nova-micro-v1:0)",
        "bedrock-cohere": "bedrock-qwen (qwen.qwen3-32b-v1:0)",
    }.items():
        assert f"{alias} ({SEED[alias]}) is retired: " in said
        assert f"its successor is {heir}" in said
    assert "bedrock-llama" not in said


def test_successors_answer_under_the_same_aliases(late_2026: Preflight) -> None:
    """should keep the four aliases, note each model that answers, and when the Legacy one ends"""
    checked = late_2026.run(on_retired="substitute")
    assert {m.alias: m.model_id for m in checked.models} == {
        "bedrock-llama": SEED["bedrock-llama"],
        "bedrock-titan": "amazon.nova-lite-v1:0",
        "bedrock-titan-lite": "amazon.nova-micro-v1:0",
        "bedrock-cohere": "qwen.qwen3-32b-v1:0",
    }
    actions = {n.alias: n.action for n in checked.model_notes}
    assert actions.pop("bedrock-llama") is ModelAction.WARNED
    assert set(actions.values()) == {ModelAction.SUBSTITUTED}
    assert len(actions) == 3
    assert list(checked.model_ends) == ["bedrock-llama"]
    assert any("bedrock-titan (amazon.nova-lite-v1:0): substituted: " in s for s in late_2026.said)


def test_retired_models_can_be_left_out(late_2026: Preflight) -> None:
    """should serve the others, and refuse a lab without models"""
    checked = late_2026.run(on_retired="skip")
    assert [m.alias for m in checked.models] == ["bedrock-llama"]
    with pytest.raises(PermanentError, match="no model is left"):
        late_2026.run(on_retired="skip", models=["bedrock-titan"])


@pytest.mark.parametrize(
    ("days", "warned"), [({}, True), ({"model_notice": timedelta(days=8)}, False)]
)
def test_an_end_within_the_notice_is_reported(
    stage: Preflight, days: dict[str, Any], warned: bool
) -> None:
    """should warn about models that end within a fortnight, or within the time in the settings"""
    end = datetime.now(UTC) + timedelta(days=10)
    stage.fake.has("amazon.nova-micro-v1:0", endOfLifeTime=end)
    checked = stage.run(days, models=["bedrock-nova-micro"])
    assert [n.action for n in checked.model_notes] == [ModelAction.WARNED] * warned
    assert checked.model_ends == {"bedrock-nova-micro": end}


def test_no_notice_is_shorter_than_a_labs_longest_life(stage: Preflight) -> None:
    """should report a model that may end before an extended lab"""
    stage.fake.has("amazon.nova-micro-v1:0", endOfLifeTime=datetime.now(UTC) + timedelta(hours=71))
    checked = stage.run({"model_notice": timedelta(0)}, models=["bedrock-nova-micro"])
    assert len(checked.model_notes) == 1


def test_a_model_that_ends_before_the_lab_is_retired(stage: Preflight) -> None:
    """should compare with the lab's own end, not with today"""
    stage.fake.has("amazon.nova-micro-v1:0", endOfLifeTime=datetime.now(UTC) + timedelta(hours=3))
    stage.run(models=["bedrock-nova-micro"], ttl="2h")
    with pytest.raises(PermanentError, match="before this lab does"):
        stage.run(models=["bedrock-nova-micro"], ttl="4h")


def test_unlisted_models_are_served_only_if_the_settings_allow_it(
    stage: Preflight,
) -> None:
    """should log that nothing is known, and refuse by default"""
    with pytest.raises(PermanentError, match="bedrock-llama"):
        stage.run(models=["bedrock-llama"])
    assert stage.run({"unlisted_models": True}, models=["bedrock-llama"]).model_notes == []
    assert any(f"does not list {SEED['bedrock-llama']}" in line for line in stage.said)


def test_a_third_partys_model_is_not_subscribed_without_permission(stage: Preflight) -> None:
    """should refuse it with a hint, and leave the account unchanged"""
    stage.fake.has(SEED["bedrock-cohere"], agreement="NOT_AVAILABLE", offered=True)
    with pytest.raises(PermanentError, match="is not subscribed to") as caught:
        stage.run(models=["bedrock-cohere"])
    assert "LAB_SUBSCRIBE=true" in caught.value.hint
    assert not stage.fake.asked("CreateFoundationModelAgreement")


def test_a_first_use_subscribes_and_waits(stage: Preflight) -> None:
    """should agree once, log its progress, and end when the account may call; twice is once"""
    model_id = SEED["bedrock-cohere"]
    stage.fake.has(model_id, agreement="NOT_AVAILABLE", offered=True)
    stage.fake.after[model_id] = ["NOT_AVAILABLE", *["PENDING"] * 8, "AVAILABLE"]
    checked = stage.run({"subscribe": True}, models=["bedrock-cohere"])
    assert [n.action for n in checked.model_notes] == [ModelAction.SUBSCRIBED]
    assert any("subscribing the account to cohere" in line for line in stage.said)
    assert any("waiting for the agreement to cohere" in line for line in stage.said)
    again = stage.run({"subscribe": True}, models=["bedrock-cohere"])
    assert again.model_notes == []
    assert stage.fake.asked("CreateFoundationModelAgreement") == [model_id]
    assert "token-of" not in "".join(stage.said)


def test_an_interrupted_subscription_is_resumed(stage: Preflight) -> None:
    """should wait for the agreement of an earlier run, and not ask again"""
    model_id = SEED["bedrock-cohere"]
    stage.fake.has(model_id, agreement="NOT_AVAILABLE", offered=True)
    stage.fake.after[model_id] = ["PENDING"]
    quick = {"subscribe": True, "subscription_deadline": timedelta(0)}
    with pytest.raises(DeadlineError):
        stage.run(quick, models=["bedrock-cohere"])
    stage.fake.after[model_id] = ["PENDING", "AVAILABLE"]
    assert stage.run(models=["bedrock-cohere"]).models
    assert stage.fake.asked("CreateFoundationModelAgreement") == [model_id]


def test_the_wait_is_no_longer_than_the_lab(stage: Preflight) -> None:
    """should not wait a quarter of an hour for a lab of five minutes"""
    stage.fake.has(SEED["bedrock-cohere"], agreement="PENDING")
    with pytest.raises(DeadlineError, match="within 5m"):
        stage.run(models=["bedrock-cohere"], ttl="5m")


def test_no_agreement_is_made_for_a_lab_that_fails_anyway(stage: Preflight) -> None:
    """should find every other fault first"""
    stage.fake.has(SEED["bedrock-cohere"], agreement="NOT_AVAILABLE", offered=True)
    with pytest.raises(PermanentError, match="bedrock-titan "):
        stage.run({"subscribe": True}, models=["bedrock-cohere", "bedrock-titan"])
    assert not stage.fake.asked("CreateFoundationModelAgreement")
