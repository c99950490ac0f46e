"""Whether Bedrock still serves a model to this account, and what takes its place if not. Pure.

:mod:`adapters.aws.bedrock` asks Bedrock; this module compares the answers with the lab's own end,
and selects the models that the lab gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from lab.durations import to_rfc3339
from lab.errors import PermanentError
from lab.models.catalog import Catalog, Model
from lab.spec import OnRetired


class Agreement(StrEnum):
    """The status of the account's agreement to a model's terms, in Bedrock's words."""

    AVAILABLE = "AVAILABLE"
    PENDING = "PENDING"
    NOT_AVAILABLE = "NOT_AVAILABLE"
    ERROR = "ERROR"


class ModelFacts(BaseModel):
    """What Bedrock says about one model, to one account in one region."""

    model_config = ConfigDict(frozen=True)

    listed: bool = True
    legacy: bool = False
    legacy_at: datetime | None = None
    #: From here on the provider may ask a higher price.
    extended_at: datetime | None = None
    ends_at: datetime | None = None
    #: Whether it is served by its own ID, without an inference profile.
    on_demand: bool = True
    #: ``None`` where the catalogue names no profile.
    profile_listed: bool | None = None
    #: Where the profile may send a request.
    profile_regions: list[str] = Field(default_factory=list)
    in_region: bool = True
    authorized: bool = True
    entitled: bool = True
    agreement: Agreement = Agreement.AVAILABLE
    agreement_error: str | None = None
    #: Whether there is an offer to agree to; asked only where there is no agreement.
    offered: bool = False
    #: Whether the provider requires a use case and has none; asked only in that case too.
    use_case_missing: bool = False


class State(StrEnum):
    """Whether a lab can have a model."""

    OK = "ok"
    #: Bedrock does not list it, and the settings allow that.
    UNKNOWN = "not known"
    #: Somebody has agreed to its terms, which takes minutes.
    PENDING = "pending"
    TO_SUBSCRIBE = "not subscribed to"
    RETIRED = "retired"
    UNAVAILABLE = "unavailable"
    NEEDS_PROFILE = "without a profile"


class Assessment(BaseModel):
    """The state of one model, the reason for it, and warnings about the model."""

    model_config = ConfigDict(frozen=True)

    state: State
    why: str = ""
    warnings: list[str] = Field(default_factory=list)
    ends_at: datetime | None = None


class ModelPolicy(BaseModel):
    """What a lab requires of its models, and what an up may do to get them."""

    model_config = ConfigDict(frozen=True)

    region: str
    at: datetime
    lab_ends: datetime
    #: A model whose life ends before this gets a warning.
    warn_until: datetime
    subscribe: bool = False
    unlisted_models: bool = False

    def served(self, assessment: Assessment) -> bool:
        """Whether a lab with this policy can have the model, if need be after subscribing."""
        return assessment.state in {State.OK, State.UNKNOWN, State.PENDING} or (
            self.subscribe and assessment.state is State.TO_SUBSCRIBE
        )


class ModelAction(StrEnum):
    """What was done about an alias of a lab."""

    SUBSTITUTED = "substituted"
    SKIPPED = "skipped"
    SUBSCRIBED = "subscribed"
    WARNED = "warned"


class ModelNote(BaseModel):
    """A note about one alias of a lab. ``model_id`` is the model that answers, if any."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    alias: str
    #: Reports of 0.1.0, which are read too, have it as ``told``.
    action: ModelAction = Field(validation_alias=AliasChoices("action", "told"))
    model_id: str | None
    why: str


class ModelSelection(BaseModel):
    """The models that a lab gets, under the requested aliases, and notes about them."""

    model_config = ConfigDict(frozen=True)

    models: list[Model]
    notes: list[ModelNote] = Field(default_factory=list)
    #: The end of life of each alias that has one.
    ends: dict[str, datetime] = Field(default_factory=dict)
    #: Foundation models whose terms must be accepted, and those whose agreement must arrive.
    to_subscribe: list[str] = Field(default_factory=list)
    to_await: list[str] = Field(default_factory=list)
    #: Models that Bedrock does not list, and the lab serves all the same.
    unknown: list[str] = Field(default_factory=list)


def assess(model: Model, facts: ModelFacts, policy: ModelPolicy) -> Assessment:
    """What ``facts`` mean for a lab with ``policy``: whether it can have ``model``, or why not."""
    state, why = _judge(model, facts, policy)
    return Assessment(
        state=state, why=why, warnings=_warnings(model, facts, policy), ends_at=facts.ends_at
    )


def _judge(model: Model, facts: ModelFacts, policy: ModelPolicy) -> tuple[State, str]:
    missing = None if facts.listed else model.model_id
    if model.inference_profile and facts.profile_listed is False:
        missing = missing or model.inference_profile.id
    if missing and policy.unlisted_models:
        return State.UNKNOWN, f"Bedrock in {policy.region} does not list {missing}"
    if not facts.listed:
        why = f"Bedrock in {policy.region} does not know it, or knows it no longer"
        return State.RETIRED, why
    if facts.ends_at and facts.ends_at <= policy.at:
        return State.RETIRED, f"its life ended on {_day(facts.ends_at)}"
    if facts.ends_at and facts.ends_at <= policy.lab_ends:
        return State.RETIRED, f"its life ends at {to_rfc3339(facts.ends_at)}, before this lab does"
    if refusal := _refusal(facts, policy):
        closed = "; it is Legacy, and closed to new customers" if facts.legacy else ""
        return State.UNAVAILABLE, refusal + closed
    if missing:
        return State.NEEDS_PROFILE, f"{policy.region} has no inference profile {missing}"
    if not model.inference_profile and not facts.on_demand:
        why = f"{policy.region} serves it through an inference profile; the catalogue names none"
        return State.NEEDS_PROFILE, why
    if facts.agreement is Agreement.PENDING:
        return State.PENDING, "the account's agreement to its terms is on its way"
    if facts.agreement is Agreement.NOT_AVAILABLE and facts.offered:
        return State.TO_SUBSCRIBE, "the account has not agreed to its terms"
    return State.OK, ""


def _refusal(facts: ModelFacts, policy: ModelPolicy) -> str | None:
    """Why Bedrock would not serve the account, even with an agreement."""
    if not facts.in_region:
        return f"Bedrock does not offer it in {policy.region}"
    if not facts.authorized:
        return "AWS does not authorise the account to call it; Bedrock's console or AWS Support can"
    if facts.agreement is Agreement.ERROR:
        reason = facts.agreement_error or "without a reason"
        return (
            f"the account's agreement to its terms failed ({reason}): "
            "look at the account's payment method, and subscribe in Bedrock's console"
        )
    if facts.use_case_missing:
        return (
            "its provider asks each account for its use first: a form in Bedrock's console, or "
            "`aws bedrock put-use-case-for-model-access`"
        )
    agreeing = facts.agreement is Agreement.PENDING or facts.offered
    if not facts.entitled and not agreeing:
        return "the account is not entitled to it"
    return None


def _warnings(model: Model, facts: ModelFacts, policy: ModelPolicy) -> list[str]:
    warnings = []
    if facts.ends_at and (facts.legacy or facts.ends_at <= policy.warn_until):
        following = f"; its successor is {model.successor}" if model.successor else ""
        warnings.append(f"its life ends on {_day(facts.ends_at)}{following}")
    if facts.legacy:
        since = f" since {_day(facts.legacy_at)}" if facts.legacy_at else ""
        warnings.append(f"Legacy{since}: refused to accounts that have not called it lately")
    if facts.extended_at and facts.extended_at <= policy.lab_ends:
        warnings.append(f"in extended access from {_day(facts.extended_at)}, which may cost more")
    if facts.agreement is Agreement.NOT_AVAILABLE and not facts.offered:
        warnings.append("Bedrock knows of no agreement to its terms, and has no offer of one")
    if model.inference_profile:
        beyond = sorted(set(facts.profile_regions) - set(model.inference_profile.regions))
        if beyond:
            warnings.append(
                f"{model.inference_profile.id} also sends requests to {', '.join(beyond)}, where "
                "the lab may not call it: the catalogue does not name them"
            )
    return warnings


def select_models(
    wanted: list[Model],
    catalog: Catalog,
    ask: Callable[[list[Model]], list[ModelFacts]],
    policy: ModelPolicy,
    on_retired: OnRetired,
) -> ModelSelection:
    """The models that a lab gets for those ``wanted``, in that order.

    ``ask`` returns the facts of each model, in order; it is called once for all wanted models, and
    again for the successors of unavailable ones. A substitute has the alias of the model that it
    replaces. Raises PermanentError, naming each unavailable model and its successor, where
    ``on_retired`` allows no other way or no model would be left.
    """
    known = _assess_all(wanted, catalog, ask, policy, heirs=on_retired is not OnRetired.SKIP)
    served: list[tuple[Model, Assessment]] = []
    notes: list[ModelNote] = []
    refused: list[Model] = []
    for model in wanted:
        found = known[model.alias]
        heir = _heir(model, catalog, known, policy)
        if policy.served(found):
            served.append((model, found))
        elif on_retired is OnRetired.SKIP:
            notes.append(_note(model, ModelAction.SKIPPED, found.why))
        elif on_retired is OnRetired.SUBSTITUTE and heir:
            stands_in = heir.model_copy(update={"alias": model.alias})
            served.append((stands_in, known[heir.alias]))
            notes.append(
                _note(stands_in, ModelAction.SUBSTITUTED, f"{model.model_id}: {found.why}")
            )
        else:
            refused.append(model)
    if refused:
        raise _refuse(refused, len(wanted), catalog, known, policy)
    if not served:
        reasons = "; ".join(f"{note.alias}: {note.why}" for note in notes)
        raise PermanentError(
            f"no model is left, because every one would be skipped: {reasons}",
            "Name other models, or choose `substitute`.",
        )
    for model, found in served:
        if found.state is State.TO_SUBSCRIBE:
            notes.append(_note(model, ModelAction.SUBSCRIBED, "the account agreed to its terms"))
        if found.warnings:
            notes.append(_note(model, ModelAction.WARNED, "; ".join(found.warnings)))
    to_subscribe = _ids(served, State.TO_SUBSCRIBE)
    return ModelSelection(
        models=[model for model, _ in served],
        notes=notes,
        ends={model.alias: found.ends_at for model, found in served if found.ends_at},
        to_subscribe=to_subscribe,
        to_await=sorted({*to_subscribe, *_ids(served, State.PENDING)}),
        unknown=_ids(served, State.UNKNOWN),
    )


def _assess_all(
    wanted: list[Model],
    catalog: Catalog,
    ask: Callable[[list[Model]], list[ModelFacts]],
    policy: ModelPolicy,
    *,
    heirs: bool,
) -> dict[str, Assessment]:
    """The assessment of each wanted model and, for ``heirs``, of successors as far as needed."""
    known: dict[str, Assessment] = {}
    asked = wanted
    while asked:
        for model, facts in zip(asked, ask(asked), strict=True):
            known[model.alias] = assess(model, facts, policy)
        following = [catalog.successor_of(m) for m in asked if not policy.served(known[m.alias])]
        not_asked = {m.alias: m for m in following if m and m.alias not in known}
        asked = list(not_asked.values()) if heirs else []
    return known


def _heir(
    model: Model, catalog: Catalog, known: dict[str, Assessment], policy: ModelPolicy
) -> Model | None:
    """The first available successor, of those that were asked about."""
    heir = catalog.successor_of(model)
    while heir and heir.alias in known and not policy.served(known[heir.alias]):
        heir = catalog.successor_of(heir)
    return heir if heir and heir.alias in known else None


def _refuse(
    refused: list[Model],
    of: int,
    catalog: Catalog,
    known: dict[str, Assessment],
    policy: ModelPolicy,
) -> PermanentError:
    lines = []
    substitutable = False
    for model in refused:
        found = known[model.alias]
        heir = _heir(model, catalog, known, policy)
        substitutable |= heir is not None
        if heir:
            following = f"its successor is {heir.alias} ({heir.model_id})"
        elif model.successor:
            following = f"{model.successor} would follow it, and cannot be had either"
        else:
            following = "the catalogue names no successor"
        lines.append(
            f"  {model.alias} ({model.model_id}) is {found.state}: {found.why}; {following}"
        )
    hints = ["Name other models."]
    if len(refused) < of:
        hints.append("`--on-retired skip` goes on without these.")
    if substitutable:
        hints.append(
            "`--on-retired substitute` lets each successor answer under the alias of the other."
        )
    if any(known[model.alias].state is State.TO_SUBSCRIBE for model in refused):
        hints.append(
            "LAB_SUBSCRIBE=true accepts the offered terms for the account, for good; Bedrock's "
            "console does so by hand."
        )
    refusals = "\n".join(lines)
    return PermanentError(
        f"{len(refused)} of {of} models cannot be served:\n{refusals}", " ".join(hints)
    )


def _note(model: Model, action: ModelAction, why: str) -> ModelNote:
    answers = None if action is ModelAction.SKIPPED else model.invoked_id
    return ModelNote(alias=model.alias, action=action, model_id=answers, why=why)


def _ids(served: Iterable[tuple[Model, Assessment]], state: State) -> list[str]:
    return sorted({model.model_id for model, found in served if found.state is state})


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
