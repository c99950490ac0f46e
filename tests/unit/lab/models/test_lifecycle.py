"""Which models a lab gets: by Bedrock's facts about each, and by the policy for retired ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab.errors import PermanentError
from lab.models.catalog import Catalog, InferenceProfile, Model, ModelProbe, load_catalog
from lab.models.lifecycle import (
    Agreement,
    ModelAction,
    ModelFacts,
    ModelPolicy,
    ModelSelection,
    State,
    assess,
    select_models,
)
from lab.models.render import litellm_config, terraform_models, validation_cases
from lab.settings import Settings
from lab.spec import OnRetired

AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
LAB_ENDS = AT + timedelta(hours=2)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
TERMS = ModelPolicy(region="us-east-1", at=AT, lab_ends=LAB_ENDS, warn_until=AT + 14 * DAY)
SUBSCRIBING = TERMS.model_copy(update={"subscribe": True})
UNLISTED = TERMS.model_copy(update={"unlisted_models": True})
PROFILE = InferenceProfile(id="us.v.a", regions=["us-east-1", "us-west-2"])

GONE = ModelFacts(listed=False)
TO_AGREE = ModelFacts(agreement=Agreement.NOT_AVAILABLE, offered=True)


def model(alias: str = "a", **more: Any) -> Model:
    return Model(alias=alias, model_id=f"v.{alias}", provider="V", **more)


CATALOG = Catalog(
    models=[
        model("a", successor="b"),
        model("b", successor="c", probe=ModelProbe(prompt="Hi", max_tokens=9), litellm={"rpm": 7}),
        model("c"),
        model("lone"),
    ]
)


class Bedrock:
    """Answers with facts by alias; a model without given facts is served."""

    def __init__(self, **facts: ModelFacts) -> None:
        self.facts = facts
        self.rounds: list[list[str]] = []

    def __call__(self, models: list[Model]) -> list[ModelFacts]:
        self.rounds.append([m.alias for m in models])
        return [self.facts.get(m.alias, ModelFacts()) for m in models]


def settled(
    wanted: list[str],
    bedrock: Bedrock,
    on_retired: OnRetired = OnRetired.FAIL,
    terms: ModelPolicy = TERMS,
) -> ModelSelection:
    return select_models(CATALOG.choose(wanted), CATALOG, bedrock, terms, on_retired)


def refusal(
    wanted: list[str],
    bedrock: Bedrock,
    on_retired: OnRetired = OnRetired.FAIL,
    terms: ModelPolicy = TERMS,
) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        settled(wanted, bedrock, on_retired, terms)
    return caught.value


@pytest.mark.parametrize(
    ("facts", "state", "why"),
    [
        (ModelFacts(), State.OK, ""),
        (GONE, State.RETIRED, "us-east-1 does not know it"),
        (ModelFacts(ends_at=AT), State.RETIRED, "its life ended on 2030-01-01"),
        (ModelFacts(legacy=True, ends_at=AT - DAY), State.RETIRED, "ended on 2029-12-31"),
        (ModelFacts(ends_at=LAB_ENDS), State.RETIRED, "2030-01-01T14:00:00Z, before this lab"),
        (ModelFacts(ends_at=LAB_ENDS + SECOND), State.OK, ""),
        (ModelFacts(legacy=True), State.OK, ""),
        (ModelFacts(in_region=False), State.UNAVAILABLE, "does not offer it in us-east-1"),
        (ModelFacts(authorized=False), State.UNAVAILABLE, "does not authorise the account"),
        (ModelFacts(entitled=False), State.UNAVAILABLE, "is not entitled"),
        (ModelFacts(legacy=True, authorized=False), State.UNAVAILABLE, "closed to new customers"),
        (ModelFacts(legacy=True, entitled=False), State.UNAVAILABLE, "closed to new customers"),
        (
            ModelFacts(agreement=Agreement.ERROR, agreement_error="no card", offered=True),
            State.UNAVAILABLE,
            "no card",
        ),
        (TO_AGREE, State.TO_SUBSCRIBE, "has not agreed to its terms"),
        (TO_AGREE.model_copy(update={"entitled": False}), State.TO_SUBSCRIBE, "has not agreed"),
        (TO_AGREE.model_copy(update={"authorized": False}), State.UNAVAILABLE, "not authorise"),
        (
            TO_AGREE.model_copy(update={"use_case_missing": True}),
            State.UNAVAILABLE,
            "put-use-case-for-model-access",
        ),
        (
            ModelFacts(agreement=Agreement.PENDING, entitled=False),
            State.PENDING,
            "on its way",
        ),
        (ModelFacts(agreement=Agreement.NOT_AVAILABLE), State.OK, ""),
        (
            ModelFacts(agreement=Agreement.NOT_AVAILABLE, entitled=False),
            State.UNAVAILABLE,
            "is not entitled",
        ),
        (ModelFacts(on_demand=False), State.NEEDS_PROFILE, "the catalogue names none"),
    ],
)
def test_each_model_has_a_state(facts: ModelFacts, state: State, why: str) -> None:
    """should separate available models from others, and give the reason in words"""
    found = assess(model(), facts, TERMS)
    assert found.state is state
    assert why in found.why
    assert bool(found.why) is bool(why)
    assert found.ends_at == facts.ends_at


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (ModelFacts(on_demand=False, profile_listed=True), State.OK),
        (ModelFacts(profile_listed=False), State.NEEDS_PROFILE),
        (ModelFacts(profile_listed=False, listed=False), State.RETIRED),
        (TO_AGREE.model_copy(update={"profile_listed": False}), State.NEEDS_PROFILE),
    ],
)
def test_a_models_profile_must_exist_here(facts: ModelFacts, state: State) -> None:
    """should not agree to anything for a model that this region cannot call"""
    assert assess(model(inference_profile=PROFILE), facts, TERMS).state is state


@pytest.mark.parametrize(
    ("facts", "warnings"),
    [
        (ModelFacts(), []),
        (ModelFacts(ends_at=AT + 14 * DAY + SECOND), []),
        (ModelFacts(ends_at=AT + 14 * DAY), ["ends on 2030-01-15; its successor is b"]),
        (
            ModelFacts(legacy=True, legacy_at=AT - DAY, ends_at=AT + 300 * DAY),
            ["ends on 2030-10-28", "Legacy since 2029-12-31: refused to accounts that have not"],
        ),
        (ModelFacts(extended_at=LAB_ENDS), ["extended access from 2030-01-01"]),
        (ModelFacts(extended_at=LAB_ENDS + SECOND), []),
        (ModelFacts(agreement=Agreement.NOT_AVAILABLE), ["no agreement"]),
        (TO_AGREE, []),
    ],
)
def test_an_available_model_may_have_a_warning(facts: ModelFacts, warnings: list[str]) -> None:
    """should give dates, the successor, and what Legacy means for an account"""
    found = assess(model(successor="b"), facts, TERMS)
    assert len(found.warnings) == len(warnings)
    for said, wanted in zip(found.warnings, warnings, strict=True):
        assert wanted in said


def test_a_profile_with_more_regions_is_reported() -> None:
    """should name the regions where the lab's role may not call the model"""
    facts = ModelFacts(profile_listed=True, profile_regions=["us-east-1", "us-east-2"])
    (said,) = assess(model(inference_profile=PROFILE), facts, TERMS).warnings
    assert "also sends requests to us-east-2," in said
    assert "us-east-1" not in said


@pytest.mark.parametrize(
    ("facts", "named"), [(GONE, "v.a"), (ModelFacts(profile_listed=False), "us.v.a")]
)
def test_an_unlisted_model_is_served_only_if_the_settings_allow_it(
    facts: ModelFacts, named: str
) -> None:
    """should say that nothing is known about it, and never count it as good"""
    wanted = model(inference_profile=PROFILE)
    found = assess(wanted, facts, UNLISTED)
    assert found.state is State.UNKNOWN
    assert found.why.endswith(f"does not list {named}")
    assert not TERMS.served(assess(wanted, facts, TERMS))


def test_the_settings_allow_nothing_else() -> None:
    """should still refuse a model that Bedrock refuses"""
    assert assess(model(), ModelFacts(authorized=False), UNLISTED).state is State.UNAVAILABLE
    assert assess(model(), ModelFacts(ends_at=AT), UNLISTED).state is State.RETIRED


def test_all_models_are_asked_at_once_and_served_in_their_order() -> None:
    """should ask nothing twice if all is well, and have no notes"""
    bedrock = Bedrock()
    found = settled(["c", "a"], bedrock)
    assert bedrock.rounds == [["c", "a"]]
    assert found == ModelSelection(models=CATALOG.choose(["c", "a"]))


def test_a_retired_model_fails_with_its_active_successor() -> None:
    """should name model, reason and successor, and both remedies"""
    error = refusal(["a", "lone"], Bedrock(a=GONE))
    assert error.message.startswith("1 of 2 models cannot be served:\n  a (v.a) is retired: ")
    assert error.message.endswith("; its successor is b (v.b)")
    assert "`--on-retired substitute`" in error.hint
    assert "`--on-retired skip`" in error.hint


def test_all_refused_models_are_reported_at_once() -> None:
    """should not need one run for each refused model"""
    bedrock = Bedrock(a=GONE, b=GONE, lone=ModelFacts(entitled=False))
    error = refusal(["a", "b", "lone"], bedrock)
    assert bedrock.rounds == [["a", "b", "lone"], ["c"]]
    assert [line.split()[0] for line in error.message.splitlines()[1:]] == ["a", "b", "lone"]
    assert error.message.count("its successor is c (v.c)") == 2
    assert error.message.endswith("the catalogue names no successor")
    assert "skip" not in error.hint


def test_a_retired_successor_is_skipped() -> None:
    """should ask for successors step by step, only as far as needed, each once"""
    bedrock = Bedrock(a=GONE, b=GONE)
    assert "its successor is c (v.c)" in refusal(["a", "lone"], bedrock).message
    assert bedrock.rounds == [["a", "lone"], ["b"], ["c"]]


def test_a_missing_successor_is_reported() -> None:
    """should not offer a substitute that does not exist, and fail even if one is wanted"""
    bedrock = Bedrock(a=GONE, b=GONE, c=GONE)
    for on_retired in (OnRetired.FAIL, OnRetired.SUBSTITUTE):
        error = refusal(["a", "lone"], bedrock, on_retired)
        assert error.message.endswith("b would follow it, and cannot be had either")
        assert "substitute" not in error.hint


def test_a_substitute_answers_under_the_same_alias() -> None:
    """should have the successor's model, probe and parameters everywhere, and note it"""
    found = settled(["a", "c"], Bedrock(a=GONE), OnRetired.SUBSTITUTE)
    (note,) = found.notes
    assert (note.alias, note.action, note.model_id) == ("a", ModelAction.SUBSTITUTED, "v.b")
    assert note.why.startswith("v.a: Bedrock in us-east-1 does not know it")
    assert [case.alias for case in validation_cases(found.models)] == ["a", "c"]
    case = validation_cases(found.models)[0]
    assert (case.model_id, case.probe.max_tokens) == ("v.b", 9)
    assert terraform_models(found.models)["a"]["model_id"] == "v.b"
    config = litellm_config(found.models)
    assert "model_name: a\n" in config
    assert "bedrock/converse/v.b\n" in config
    assert "rpm: 7" in config
    assert "v.a" not in config


def test_two_aliases_may_share_a_model() -> None:
    """should keep both, when a substitute is also requested under its own alias"""
    found = settled(["a", "b"], Bedrock(a=GONE), OnRetired.SUBSTITUTE)
    assert [(m.alias, m.model_id) for m in found.models] == [("a", "v.b"), ("b", "v.b")]


def test_a_substitutes_own_end_is_reported() -> None:
    """should warn about the substitute's end, and keep it under the alias"""
    end = AT + 2 * DAY
    found = settled(["a"], Bedrock(a=GONE, b=ModelFacts(ends_at=end)), OnRetired.SUBSTITUTE)
    assert [note.action for note in found.notes] == [ModelAction.SUBSTITUTED, ModelAction.WARNED]
    assert found.ends == {"a": end}


def test_a_skipped_model_is_left_out_and_reported() -> None:
    """should serve the others, and not ask for successors that nobody wants"""
    bedrock = Bedrock(a=ModelFacts(in_region=False))
    found = settled(["a", "c"], bedrock, OnRetired.SKIP)
    assert [m.alias for m in found.models] == ["c"]
    (note,) = found.notes
    assert (note.alias, note.action, note.model_id) == ("a", ModelAction.SKIPPED, None)
    assert "does not offer it" in note.why
    assert bedrock.rounds == [["a", "c"]]


def test_a_lab_without_models_is_refused() -> None:
    """should say why each model would be skipped"""
    error = refusal(["a", "b"], Bedrock(a=GONE, b=ModelFacts(entitled=False)), OnRetired.SKIP)
    assert error.message.startswith("no model is left")
    assert "a: Bedrock in us-east-1 does not know it" in error.message
    assert "b: the account is not entitled" in error.message
    assert "Name other models" in error.hint


@pytest.mark.parametrize("on_retired", list(OnRetired))
def test_an_available_model_is_left_alone(on_retired: OnRetired) -> None:
    """should neither substitute nor skip a model because it ends later"""
    soon = ModelFacts(legacy=True, ends_at=AT + DAY)
    found = settled(["a"], Bedrock(a=soon), on_retired)
    assert found.models == CATALOG.choose(["a"])
    assert [note.action for note in found.notes] == [ModelAction.WARNED]
    assert found.ends == {"a": AT + DAY}


def test_no_agreement_is_made_without_permission() -> None:
    """should refuse a model without an agreement, and say how the account can agree"""
    error = refusal(["a"], Bedrock(a=TO_AGREE))
    assert "a (v.a) is not subscribed to: the account has not agreed" in error.message
    assert "LAB_SUBSCRIBE=true accepts" in error.hint
    assert "LAB_SUBSCRIBE" not in refusal(["a"], Bedrock(a=GONE)).hint


def test_agreements_are_made_if_the_settings_allow() -> None:
    """should ask for each once, wait also for pending ones, and note each agreement"""
    pending = ModelFacts(agreement=Agreement.PENDING)
    bedrock = Bedrock(a=GONE, b=TO_AGREE, c=pending)
    found = settled(["a", "b", "c", "lone"], bedrock, OnRetired.SUBSTITUTE, SUBSCRIBING)
    assert found.to_subscribe == ["v.b"]
    assert found.to_await == ["v.b", "v.c"]
    assert [(n.alias, n.action) for n in found.notes] == [
        ("a", ModelAction.SUBSTITUTED),
        ("a", ModelAction.SUBSCRIBED),
        ("b", ModelAction.SUBSCRIBED),
    ]


def test_it_always_waits_for_a_pending_agreement() -> None:
    """should not need permission to agree if somebody has agreed already"""
    found = settled(["a"], Bedrock(a=ModelFacts(agreement=Agreement.PENDING)))
    assert (found.to_subscribe, found.to_await) == ([], ["v.a"])


def test_unknown_models_are_named() -> None:
    """should let the caller log the models that nothing is known about"""
    found = settled(["a", "c"], Bedrock(a=GONE), terms=UNLISTED)
    assert [m.alias for m in found.models] == ["a", "c"]
    assert found.unknown == ["v.a"]


def test_the_seed_aliases_have_successors() -> None:
    """should each have a successor that is another vendor's or a newer model"""
    catalog = load_catalog(Settings().catalog_path)
    seed = catalog.choose(
        ["bedrock-llama", "bedrock-titan", "bedrock-titan-lite", "bedrock-cohere"]
    )
    gone = {m.alias for m in seed}

    def bedrock(models: list[Model]) -> list[ModelFacts]:
        return [ModelFacts(listed=m.alias not in gone) for m in models]

    found = select_models(seed, catalog, bedrock, TERMS, OnRetired.SUBSTITUTE)
    assert {m.alias: m.model_id for m in found.models} == {
        "bedrock-llama": "mistral.ministral-3-8b-instruct",
        "bedrock-titan": "amazon.nova-lite-v1:0",
        "bedrock-titan-lite": "amazon.nova-micro-v1:0",
        "bedrock-cohere": "qwen.qwen3-32b-v1:0",
    }
