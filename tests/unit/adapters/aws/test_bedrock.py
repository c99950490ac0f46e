"""Bedrock's answers become facts, its refusals become errors, and an agreement is made once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.aws import bedrock
from adapters.aws.session import Cloud
from lab import waiting
from lab.errors import DeadlineError, LabError, PermanentError, TransientError
from lab.models.catalog import InferenceProfile, Model
from lab.models.lifecycle import Agreement, ModelFacts
from tests.unit.adapters.aws.fake_bedrock import FakeBedrock, serve
from tests.unit.adapters.aws.stubs import Stubs, session_of

END = datetime(2031, 1, 31, tzinfo=UTC)
DETAILS = {"modelArn": "arn:aws:bedrock:us-east-1::foundation-model/v.one", "modelId": "v.one"}
USABLE = {
    "modelId": "v.one",
    "agreementAvailability": {"status": "AVAILABLE"},
    "authorizationStatus": "AUTHORIZED",
    "entitlementAvailability": "AVAILABLE",
    "regionAvailability": "AVAILABLE",
}


def model(model_id: str = "v.one", **more: Any) -> Model:
    return Model(alias=model_id.replace(".", "-"), model_id=model_id, provider="V", **more)


@pytest.fixture
def stubs() -> Iterator[Stubs]:
    made = Stubs("us-east-1")
    yield made
    made.all_asked()


@pytest.fixture
def fake() -> FakeBedrock:
    return FakeBedrock()


@pytest.fixture
def cloud(fake: FakeBedrock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A cloud whose Bedrock is the fake one, through a real client and HTTP."""
    with serve(fake) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", url)
        yield Cloud(session_of("us-east-1"), attempts=1)


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of a wait: they move its clock, and do not sleep."""
    pauses: list[float] = []
    options = waiting.wait_for.__kwdefaults__
    monkeypatch.setitem(options, "sleep", pauses.append)
    monkeypatch.setitem(options, "clock", lambda: sum(pauses))
    return pauses


def test_calls_have_botocores_names(stubs: Stubs) -> None:
    """should call each operation by its own names, and read the dates of a Legacy model"""
    life = {"status": "LEGACY", "legacyTime": END, "endOfLifeTime": END}
    stubs.says(
        "bedrock",
        "get_foundation_model",
        {
            "modelDetails": {
                **DETAILS,
                "inferenceTypesSupported": ["PROVISIONED"],
                "modelLifecycle": {**life, "publicExtendedAccessTime": END},
            }
        },
        modelIdentifier="v.one",
    )
    stubs.says("bedrock", "get_foundation_model_availability", USABLE, modelId="v.one")
    assert bedrock.ask_models(stubs.cloud, [model()]) == [
        ModelFacts(legacy=True, legacy_at=END, extended_at=END, ends_at=END, on_demand=False)
    ]


def test_fields_that_bedrock_omits_are_no_fault(stubs: Stubs) -> None:
    """should take a model without lifecycle and inference types for an active one"""
    stubs.says("bedrock", "get_foundation_model", {"modelDetails": DETAILS})
    stubs.says("bedrock", "get_foundation_model_availability", USABLE)
    assert bedrock.ask_models(stubs.cloud, [model()]) == [ModelFacts()]


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "ValidationException"])
def test_an_unknown_model_is_not_listed(stubs: Stubs, code: str) -> None:
    """should be a fact, not an error: Bedrock answers so for a retired model, in two forms"""
    stubs.fails("bedrock", "get_foundation_model", code)
    assert bedrock.ask_models(stubs.cloud, [model()]) == [ModelFacts(listed=False)]
    stubs.says("bedrock", "get_foundation_model", {"modelDetails": DETAILS})
    stubs.fails("bedrock", "get_foundation_model_availability", code)
    assert bedrock.ask_models(stubs.cloud, [model()]) == [ModelFacts(listed=False)]


@pytest.mark.parametrize(
    ("field", "value", "fact"),
    [
        ("authorizationStatus", "NOT_AUTHORIZED", {"authorized": False}),
        ("entitlementAvailability", "NOT_AVAILABLE", {"entitled": False}),
        ("regionAvailability", "NOT_AVAILABLE", {"in_region": False}),
        ("agreementAvailability", {"status": "PENDING"}, {"agreement": Agreement.PENDING}),
        (
            "agreementAvailability",
            {"status": "ERROR", "errorMessage": "no card"},
            {"agreement": Agreement.ERROR, "agreement_error": "no card"},
        ),
    ],
)
def test_each_refusal_is_a_fact(stubs: Stubs, field: str, value: Any, fact: dict[str, Any]) -> None:
    """should keep the four parts of availability apart"""
    stubs.says("bedrock", "get_foundation_model", {"modelDetails": DETAILS})
    stubs.says("bedrock", "get_foundation_model_availability", {**USABLE, field: value})
    assert bedrock.ask_models(stubs.cloud, [model()]) == [ModelFacts(**fact)]


@pytest.mark.parametrize(
    ("offered", "use_case", "vendor", "missing"),
    [
        (True, True, "anthropic", False),
        (True, False, "anthropic", True),
        (False, False, "anthropic", False),
        (True, False, "cohere", False),
    ],
)
def test_without_an_agreement_the_offer_is_read(
    cloud: Cloud, fake: FakeBedrock, offered: bool, use_case: bool, vendor: str, missing: bool
) -> None:
    """should know whether an offer exists, and whether a form is needed before"""
    fake.has(f"{vendor}.one", agreement="NOT_AVAILABLE", offered=offered).use_case = use_case
    assert bedrock.ask_models(cloud, [model(f"{vendor}.one")]) == [
        ModelFacts(agreement=Agreement.NOT_AVAILABLE, offered=offered, use_case_missing=missing)
    ]
    assert not fake.asked("CreateFoundationModelAgreement")


def test_profiles_have_their_regions(cloud: Cloud, fake: FakeBedrock) -> None:
    """should find a profile's regions, or that there is none; a global profile has no named one"""
    fake.has("v.one", kinds=("INFERENCE_PROFILE",)).has("v.two")
    fake.profiles["us.v.one"] = ["us-west-2", "us-east-1", ""]
    asked = [
        model(name, inference_profile=InferenceProfile(id=f"us.{name}", regions=["us-east-1"]))
        for name in ("v.one", "v.two")
    ]
    one, two = bedrock.ask_models(cloud, asked)
    assert (one.profile_listed, one.profile_regions) == (True, ["us-east-1", "us-west-2"])
    assert (two.profile_listed, two.profile_regions) == (False, [])
    assert not one.on_demand


def test_all_models_are_asked_in_parallel(cloud: Cloud, fake: FakeBedrock) -> None:
    """should have sent every model's question before the first is answered"""
    names = [f"v.m{number}" for number in range(8)]
    meeting = threading.Barrier(len(names), timeout=5)
    answer = fake.answer

    def wait(operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        if operation == "GetFoundationModel":
            meeting.wait()
        return answer(operation, asked)

    for name in names[::2]:
        fake.has(name)
    fake.answer = wait  # type: ignore[method-assign]
    facts = bedrock.ask_models(cloud, [model(name) for name in names])
    assert [fact.listed for fact in facts] == [True, False] * 4


@pytest.mark.parametrize(
    "action",
    [
        "GetFoundationModel",
        "GetFoundationModelAvailability",
        "ListFoundationModelAgreementOffers",
        "GetUseCaseForModelAccess",
        "GetInferenceProfile",
    ],
)
def test_a_question_without_permission_is_named(
    cloud: Cloud, fake: FakeBedrock, action: str
) -> None:
    """should never skip a question that it may not ask, and name the action to allow"""
    fake.has("anthropic.one", agreement="NOT_AVAILABLE", offered=True)
    fake.denied.add(action)
    profile = InferenceProfile(id="us.anthropic.one", regions=["us-east-1"])
    with pytest.raises(PermanentError, match=rf"\(bedrock:{action}\)") as caught:
        bedrock.ask_models(cloud, [model("anthropic.one", inference_profile=profile)])
    assert "Allow " in caught.value.hint


def test_a_busy_bedrock_is_a_transient_error(stubs: Stubs) -> None:
    """should be worth another try"""
    stubs.fails("bedrock", "get_foundation_model", "ThrottlingException", 429)
    with pytest.raises(TransientError):
        bedrock.ask_models(stubs.cloud, [model()])


def test_subscribing_agrees_to_the_public_offer(cloud: Cloud, fake: FakeBedrock) -> None:
    """should make one agreement, even if it is requested twice"""
    fake.has("v.one", agreement="NOT_AVAILABLE", offered=True)
    bedrock.subscribe(cloud, "v.one")
    bedrock.subscribe(cloud, "v.one")
    assert fake.access["v.one"]["agreementAvailability"]["status"] == "PENDING"


def test_an_offer_that_is_gone_is_an_error(cloud: Cloud, fake: FakeBedrock) -> None:
    """should agree to nothing"""
    fake.has("v.one", agreement="NOT_AVAILABLE")
    with pytest.raises(PermanentError, match="no offer for it any more"):
        bedrock.subscribe(cloud, "v.one")


def test_missing_marketplace_rights_are_named(cloud: Cloud, fake: FakeBedrock) -> None:
    """should name the deployer's missing rights, and never the offer's token or document"""
    fake.has("v.one", agreement="NOT_AVAILABLE", offered=True)
    fake.denied.add("CreateFoundationModelAgreement")
    with pytest.raises(PermanentError, match="aws-marketplace:Subscribe") as caught:
        bedrock.subscribe(cloud, "v.one")
    assert "token-of" not in str(caught.value)
    assert "presigned" not in str(caught.value)


def agreed(cloud: Cloud, names: list[str], said: list[str] | None = None) -> None:
    log: list[str] = [] if said is None else said
    bedrock.await_agreements(cloud, names, deadline=900, log=log.append)


def test_waits_until_the_account_may_call(
    cloud: Cloud, fake: FakeBedrock, paused: list[float]
) -> None:
    """should go on while an agreement is pending, log it, and wait for the slowest"""
    for name, steps in {
        "v.one": ["NOT_AVAILABLE", "PENDING", "AVAILABLE"],
        "v.two": ["PENDING"] * 6 + ["AVAILABLE"],
    }.items():
        fake.has(name, agreement="NOT_AVAILABLE", entitlement="NOT_AVAILABLE", offered=True)
        fake.after[name] = steps
        bedrock.subscribe(cloud, name)
    said: list[str] = []
    agreed(cloud, ["v.one", "v.two"], said)
    assert len(paused) == 6
    assert said[0] == "the account may call v.one now"
    assert said[-1] == "the account may call v.two now"
    assert any(line.startswith("waiting for the agreement to v.one, v.two (") for line in said)
    assert fake.asked("GetFoundationModelAvailability").count("v.one") == 3


def test_an_agreement_alone_is_not_enough(
    cloud: Cloud, fake: FakeBedrock, paused: list[float]
) -> None:
    """should wait for the entitlement that follows it"""
    fake.has("v.one", entitlement="NOT_AVAILABLE")
    with pytest.raises(DeadlineError):
        agreed(cloud, ["v.one"])


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["PENDING", "ERROR"], "no card"),
        (["PENDING", "NOT_AVAILABLE"], "Bedrock says no more"),
    ],
)
def test_a_failed_agreement_ends_the_wait(
    cloud: Cloud, fake: FakeBedrock, paused: list[float], steps: list[str], said: str
) -> None:
    """should not wait after the Marketplace has failed it, and name the usual cause"""
    fake.has("v.one", agreement="NOT_AVAILABLE", offered=True)
    fake.after["v.one"], fake.error_message = steps, "no card"
    bedrock.subscribe(cloud, "v.one")
    with pytest.raises(PermanentError, match=f"agreement to v.one failed: {said}") as caught:
        agreed(cloud, ["v.one"])
    assert not isinstance(caught.value, DeadlineError)
    assert "payment" in caught.value.hint
    assert len(paused) == 1


def test_the_wait_has_an_end(cloud: Cloud, fake: FakeBedrock, paused: list[float]) -> None:
    """should name what is missing, that nothing was built, and that it may be run again"""
    fake.has("v.one", agreement="PENDING").has("v.two")
    with pytest.raises(DeadlineError, match="did not come within 15m") as caught:
        agreed(cloud, ["v.one", "v.two"])
    assert "nothing was built" in caught.value.message
    assert "LAB_SUBSCRIPTION_DEADLINE" in caught.value.hint
    assert sum(paused) == 900


def test_a_transient_error_does_not_end_the_wait(stubs: Stubs, paused: list[float]) -> None:
    """should not give up an agreement that takes minutes because of one throttled question"""
    stubs.fails("bedrock", "get_foundation_model_availability", "ThrottlingException", 429)
    stubs.says("bedrock", "get_foundation_model_availability", USABLE)
    agreed(stubs.cloud, ["v.one"])
    assert len(paused) == 1


def test_a_permanent_error_ends_the_wait(
    cloud: Cloud, fake: FakeBedrock, paused: list[float]
) -> None:
    """should say at once which question it may not ask"""
    fake.has("v.one", agreement="PENDING").denied.add("GetFoundationModelAvailability")
    with pytest.raises(LabError, match="bedrock:GetFoundationModelAvailability"):
        agreed(cloud, ["v.one"])
    assert paused == []
