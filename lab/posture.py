"""What must be true of a live lab, and whether the answers of cloud and gateway show it. Pure.

The lab's record says how the lab should be; adapters ask for the facts. Nothing here knows how to
ask, and no fact holds the value of a secret.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from lab import names
from lab.durations import to_rfc3339
from lab.errors import PermanentError
from lab.leaks import find_secrets
from lab.place import Place
from lab.record import LabRecord

INVOKE = frozenset({"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"})
#: The condition under which a model behind an inference profile may be called.
PROFILE_KEY = "bedrock:InferenceProfileArn"
#: Models that Bedrock has, or had; no lab has all of them.
_OTHER_MODELS = (
    "ai21.jamba-1-5-mini-v1:0",
    "anthropic.claude-3-haiku-20240307-v1:0",
    "mistral.mistral-large-2402-v1:0",
)
#: Where AWS's clients look for credentials, and how a key of Bedrock's own would be given.
_CREDENTIALS = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_PROFILE",
        "AWS_SHARED_CREDENTIALS_FILE",
    }
)
#: What the task gets from Secrets Manager, and from nowhere else.
SECRETS = ("LITELLM_MASTER_KEY", "GATEWAY_TLS_PEM")
_MOST_NAMED = 5


class CheckName(StrEnum):
    """The checks: the name under which each is reported, and when it passes."""

    def __new__(cls, value: str, passes_if: str) -> CheckName:
        """``passes_if`` is the condition in words, as the reference shows it."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.passes_if = passes_if
        return member

    passes_if: str

    FIREWALL = (
        "firewall",
        "The security groups of the running task let in each recorded /32 on the gateway's port, "
        "and nothing else: no other address, port, IPv6 range, prefix list or group.",
    )
    CERTIFICATE = (
        "TLS certificate",
        "The gateway's certificate has the lab's name and no other, is signed by the lab's own "
        "authority, and is valid for longer than the lab lives.",
    )
    AUTHORITY = (
        "TLS authority",
        "A client that trusts this machine's authorities, and not the lab's, gets no connection.",
    )
    OLD_TLS = "old TLS refused", "TLS 1.1 gets no handshake."
    PLAIN_HTTP = "plain HTTP refused", "A request without TLS gets no HTTP answer."
    KEY = (
        "key required",
        "Each route answers 401 in OpenAI's form, without a key and with a wrong one.",
    )
    GATEWAY_MODELS = (
        "unlisted model refused by the gateway",
        "Even with the key, a model that the lab does not have is refused in OpenAI's form.",
    )
    IAM_MODELS = (
        "unlisted model refused by IAM",
        "IAM's own simulation of the task role denies that model, and allows each model of the "
        "lab.",
    )
    ROLE = (
        "task role's rights",
        "The role's own policies, as they are now, allow calls of the lab's models and nothing "
        "else; no managed policy is attached; the boundary is there.",
    )
    DEFINITION = (
        "no static key in the task definition",
        "The revision that runs contains no AWS key, no private key and not the gateway's key, "
        "and names Secrets Manager for each secret.",
    )
    ENVIRONMENT = (
        "no static key in the environment",
        "No variable that the container was started with holds a key, or has a name that AWS's "
        "clients read credentials from.",
    )
    IMAGE = (
        "no static key in the image",
        "The image's configuration, history and layers contain no key.",
    )
    STATE = (
        "no static key in the state",
        "The Terraform state and its earlier versions contain no key.",
    )
    HARDENING = (
        "task hardening",
        "Not root, root file system read-only, no capability, not privileged, no ECS Exec.",
    )
    CAPACITY = "capacity provider", "The task runs on the capacity that was asked for."
    DIGEST = (
        "image digest",
        "The pushed image is the one that runs, and the one that the registry has under the tag.",
    )
    RETENTION = "log retention", "The log group deletes old entries."
    TAGS = (
        "tags",
        "Cluster, service, task, secrets, log group, security group and VPC carry lab, project and "
        "owner (the task, whose tags are those of its start: lab and project); the cluster carries "
        "the lab's end.",
    )


class Check(BaseModel):
    """One checked property: what it should be, and what it is."""

    model_config = ConfigDict(frozen=True)

    name: str
    wanted: str
    found: str
    passed: bool


class Posture(BaseModel):
    """All the checks of a lab."""

    model_config = ConfigDict(frozen=True)

    checks: list[Check]

    @property
    def missed(self) -> list[Check]:
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]

    @property
    def summary(self) -> str:
        """How many checks passed, in words."""
        return f"{len(self.checks) - len(self.missed)} of {len(self.checks)} checks passed"

    @property
    def misses(self) -> str:
        """Every miss by its name, with what was found instead; empty where there is none."""
        return "; ".join(f"{c.name}: found {c.found}, wanted {c.wanted}" for c in self.missed)

    def raise_if_missed(self, lab: str) -> None:
        """Raise PermanentError that names each check which was missed."""
        if self.missed:
            raise PermanentError(
                f"the posture of lab {lab} missed {len(self.missed)} of {len(self.checks)} checks: "
                f"{self.misses}",
                "The lab runs. Bringing it up again puts right what Terraform and the rollout make;"
                f" `lab-verify` looks again, and the artifact lab-{lab}-posture has the table.",
            )


def posture_of(checks: Iterable[Check]) -> Posture:
    """``checks`` in the order of :class:`CheckName`."""
    order = {what.value: number for number, what in enumerate(CheckName)}
    return Posture(checks=sorted(checks, key=lambda check: order[check.name]))


def unknown_check(what: CheckName, why: str) -> Check:
    """A check that could not be made. It counts as missed: nobody knows whether all is well."""
    return Check(name=what, wanted="an answer", found=f"none: {why}", passed=False)


# --- the firewall ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ingress:
    """A rule of the firewall: a CIDR, prefix list or group, and its ports (``None``: all)."""

    source: str
    protocol: str
    first: int | None
    last: int | None

    def __str__(self) -> str:
        if self.protocol == "-1" or self.first is None:
            return f"{self.source} on every port"
        ports = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.source} on {self.protocol} {ports}"


def judge_firewall(
    cidrs: Collection[str], port: int, groups: Collection[str], rules: Sequence[Ingress]
) -> Check:
    """Whether ``rules`` of the task's ``groups`` allow exactly ``cidrs``, and on ``port`` only."""
    wanted = [Ingress(cidr, "tcp", port, port) for cidr in sorted(cidrs)]
    extra = [rule for rule in rules if rule not in wanted]
    missing = [rule for rule in wanted if rule not in rules]
    wrong = [f"also {_few(extra)}"] if extra else []
    wrong += [f"not {_few(missing)}"] if missing else []
    if not groups:
        wrong = ["a task in no security group"]
    return Check(
        name=CheckName.FIREWALL,
        wanted=f"{_few(wanted)}, nothing else",
        found="; ".join(wrong) or f"{_few(wanted)} in {', '.join(sorted(groups))}",
        passed=not wrong,
    )


# --- the gateway, seen from outside ----------------------------------------------------------


@dataclass(frozen=True)
class TlsHandshake:
    """What the gateway proved in a TLS handshake, or why it could not."""

    refused: str | None = None
    version: str = ""
    names: tuple[str, ...] = ()
    not_after: datetime | None = None


@dataclass(frozen=True)
class ForbiddenAttempt:
    """An attempt that must fail: whether it did, and the answer."""

    refused: bool
    said: str


@dataclass(frozen=True)
class Refusal:
    """The answer to a request that must be refused: status, and whether in OpenAI's form."""

    asked: str
    status: int
    openai_form: bool

    def __str__(self) -> str:
        form = "" if self.openai_form else " not in OpenAI's form"
        return f"{self.asked}: {self.status}{form}"


def judge_certificate(shown: TlsHandshake, name: str, end: datetime) -> Check:
    """Whether the lab's own authority certifies ``name``, and no other, beyond ``end``."""
    wanted = f"{name} only, by the lab's authority, beyond {to_rfc3339(end)}"
    if shown.refused or shown.not_after is None:
        found = shown.refused or "no certificate"
        return Check(name=CheckName.CERTIFICATE, wanted=wanted, found=found, passed=False)
    return Check(
        name=CheckName.CERTIFICATE,
        wanted=wanted,
        found=f"{', '.join(shown.names)} until {to_rfc3339(shown.not_after)}, {shown.version}",
        passed=shown.names == (name,) and shown.not_after > end,
    )


def judge_attempt(what: CheckName, wanted: str, probe: ForbiddenAttempt) -> Check:
    """Whether the attempt failed, as it must."""
    return Check(name=what, wanted=wanted, found=probe.said, passed=probe.refused)


def judge_key(refusals: Sequence[Refusal]) -> Check:
    """Whether every request without the right key got 401, in OpenAI's form."""
    wrong = [str(r) for r in refusals if r.status != 401 or not r.openai_form]
    return Check(
        name=CheckName.KEY,
        wanted="401 in OpenAI's form, without a key and with a wrong one",
        found=_few(wrong) if wrong else f"401 to each of {len(refusals)} requests",
        passed=bool(refusals) and not wrong,
    )


def judge_gateway_models(refusals: Sequence[Refusal]) -> Check:
    """Whether the gateway refused each model that the lab does not have, even with the key."""
    wrong = [r for r in refusals if r.status not in {400, 403, 404} or not r.openai_form]
    return Check(
        name=CheckName.GATEWAY_MODELS,
        wanted="400, 403 or 404 in OpenAI's form, with the key",
        found=_few(wrong or refusals),
        passed=bool(refusals) and not wrong,
    )


# --- what IAM lets the task do ---------------------------------------------------------------


@dataclass(frozen=True)
class Rights:
    """What the task role may call: models directly, and models through a profile only."""

    direct: frozenset[str]
    #: The profiles that lead to a model, by the model's ARN.
    through: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A question to IAM: may the task role call ``resource``, through ``profile`` if one is given?

    ``allowed`` is the right answer.
    """

    resource: str
    allowed: bool
    profile: str | None = None

    def __str__(self) -> str:
        through = f" through {_last(self.profile)}" if self.profile else ""
        return f"{_last(self.resource)}{through}"


@dataclass(frozen=True)
class RoleFacts:
    """A role as IAM has it now. ``policies`` are the documents of its own policies, by name."""

    boundary: str | None
    attached: tuple[str, ...]
    policies: Mapping[str, Mapping[str, Any]]


def rights_of(record: LabRecord, place: Place) -> Rights:
    """What the task role of the lab must be allowed to call, and nothing more."""
    bedrock = f"arn:{place.partition}:bedrock"
    direct: set[str] = set()
    through: dict[str, set[str]] = {}
    for model in record.served.values():
        profile = model.inference_profile_id
        if profile is None:
            direct.add(f"{bedrock}:{place.region}::foundation-model/{model.model_id}")
            continue
        arn = f"{bedrock}:{place.region}:{place.account}:inference-profile/{profile}"
        direct.add(arn)
        # A global profile is also authorised against the model's ARN without a region.
        for region in [*model.regions, *([""] if profile.startswith("global.") else [])]:
            behind = f"{bedrock}:{region}::foundation-model/{model.model_id}"
            through.setdefault(behind, set()).add(arn)
    return Rights(frozenset(direct), {arn: frozenset(by) for arn, by in through.items()})


def unlisted_model(record: LabRecord) -> str:
    """The ID of a model that Bedrock has and the lab does not."""
    listed = {model.model_id for model in record.served.values()}
    return next(model for model in _OTHER_MODELS if model not in listed)


def questions_of(record: LabRecord, place: Place) -> list[Question]:
    """The questions for IAM: each model of the lab, and one that the lab does not have.

    The lab's own models are among them because a role without any rights refuses the other too.
    """
    rights = rights_of(record, place)
    asked = [Question(arn, allowed=True) for arn in sorted(rights.direct)]
    for arn, profiles in sorted(rights.through.items()):
        asked += [Question(arn, allowed=True, profile=one) for one in sorted(profiles)]
        if arn not in rights.direct:
            asked.append(Question(arn, allowed=False))
    other = f"arn:{place.partition}:bedrock:{place.region}::foundation-model/"
    return [*asked, Question(other + unlisted_model(record), allowed=False)]


def judge_iam_models(answers: Mapping[Question, Mapping[str, str]]) -> Check:
    """Whether IAM allows the lab's models and refuses the others, for each way of calling one.

    ``answers`` are IAM's own words (``allowed``, ``implicitDeny``, ``explicitDeny``) by action.
    """
    wrong = [
        f"{action} of {question} is {said}"
        for question, decisions in answers.items()
        for action, said in sorted(decisions.items())
        if (said == "allowed") != question.allowed
    ]
    without_answer = [str(q) for q, decisions in answers.items() if decisions.keys() != INVOKE]
    if without_answer:
        wrong.append(f"no answer for {_few(without_answer)}")
    refused = [q for q in answers if not q.allowed]
    count = len(answers) - len(refused)
    denied = [f"{question}: {answers[question].get(min(INVOKE))}" for question in refused]
    return Check(
        name=CheckName.IAM_MODELS,
        wanted=f"{_few(refused)} denied, {count} of the lab allowed",
        found=_few(wrong) if wrong else f"{_few(denied)}; {count} of the lab: allowed",
        passed=bool(refused) and count > 0 and not wrong,
    )


def judge_role(role: RoleFacts, rights: Rights, boundary: str) -> Check:
    """Whether the role's policies, as they are now, name the lab's models and nothing else.

    ``boundary`` is the ARN that the role must have as its boundary; empty if any will do.
    """
    wrong = [f"the attached policy {_last(arn)}" for arn in role.attached]
    if boundary and role.boundary != boundary:
        wrong.append(f"the boundary {role.boundary or '(none)'}")
    for name, document in sorted(role.policies.items()):
        for statement in _statements(document):
            wrong += [f"{name}: {said}" for said in _too_much(statement, rights)]
    if not role.policies:
        wrong.append("no policy")
    return Check(
        name=CheckName.ROLE,
        wanted=f"only {' and '.join(sorted(_last(a) for a in INVOKE))} of the lab's models"
        + (f", within {_last(boundary)}" if boundary else ""),
        found=_few(wrong) if wrong else f"{', '.join(sorted(role.policies))}: nothing else",
        passed=not wrong,
    )


def _too_much(statement: Mapping[str, Any], rights: Rights) -> Iterator[str]:
    """What ``statement`` allows beyond ``rights``; nothing where it denies."""
    if statement.get("Effect") == "Deny":
        return
    if "NotAction" in statement or "NotResource" in statement:
        yield "everything but what is named"
        return
    beyond = [action for action in _list(statement.get("Action")) if action not in INVOKE]
    if beyond:
        yield f"the action {_few(beyond)}"
    only = statement.get("Condition", {}).get("StringEquals", {}).get(PROFILE_KEY)
    profiles = set(_list(only))
    for arn in _list(statement.get("Resource")):
        known = rights.through.get(arn, frozenset())
        if arn not in rights.direct and not (profiles and profiles <= known):
            yield f"the resource {arn}"


def _statements(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = document.get("Statement", [])
    return found if isinstance(found, list) else [found]


# --- static keys -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Container:
    """A container of the registered task definition that runs. ``text`` is all of it as JSON."""

    name: str
    text: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str]
    user: str = ""
    read_only: bool = False
    dropped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    privileged: bool = False


@dataclass(frozen=True)
class TaskFacts:
    """The task that serves, and its revision."""

    arn: str
    revision: str
    containers: tuple[Container, ...]
    #: Environment variables that the task was started with in addition to its revision's.
    overrides: Mapping[str, str] = field(repr=False)
    capacity: str | None
    image_digest: str | None
    can_exec: bool
    groups: tuple[str, ...]


def judge_definition(task: TaskFacts, known: Mapping[str, str]) -> Check:
    """Whether the registered revision holds no key, and names Secrets Manager for each secret."""
    wrong = [
        f"{kind} in {container.name}"
        for container in task.containers
        for kind in find_secrets(container.text.encode(), known)
    ]
    given = {name: arn for c in task.containers for name, arn in c.secrets.items()}
    wrong += [
        f"{name} not from Secrets Manager"
        for name in SECRETS
        if ":secretsmanager:" not in given.get(name, "")
    ]
    return Check(
        name=CheckName.DEFINITION,
        wanted="no key; secrets by reference to Secrets Manager",
        found=_few(wrong)
        if wrong
        else f"{task.revision}: no key; {', '.join(sorted(given))} by reference",
        passed=not wrong,
    )


def judge_environment(task: TaskFacts, known: Mapping[str, str]) -> Check:
    """Whether no variable that the container was started with holds a key, or is for one."""
    variables = {n: v for c in task.containers for n, v in c.environment.items()}
    variables |= task.overrides
    wrong = [f"the variable {name}" for name in sorted(variables.keys() & _CREDENTIALS)]
    wrong += [f"{name} as plain text" for name in SECRETS if name in variables]
    wrong += [
        f"{kind} in {name}"
        for name, value in sorted(variables.items())
        for kind in find_secrets(f"{name}={value}".encode(), known)
    ]
    names_found = (
        f"{', '.join(sorted(variables)) or 'no variable'}; {len(task.overrides)} overridden"
    )
    return Check(
        name=CheckName.ENVIRONMENT,
        wanted="no key and no AWS credentials",
        found=_few(wrong) if wrong else names_found,
        passed=not wrong,
    )


@dataclass(frozen=True)
class Searched:
    """A search for static keys: what was searched, and which kinds were found where."""

    looked_at: str
    findings: tuple[str, ...] = ()


def judge_searched(what: CheckName, searched: Searched) -> Check:
    """Whether the search found nothing."""
    return Check(
        name=what,
        wanted="no key",
        found=_few(searched.findings) if searched.findings else f"none in {searched.looked_at}",
        passed=not searched.findings,
    )


# --- the task, and what is around it ---------------------------------------------------------


def judge_hardening(task: TaskFacts) -> Check:
    """Whether no container is root, writes to its disk, has capabilities, or can be entered."""
    wrong = []
    for container in task.containers:
        user = container.user.partition(":")[0]
        if user in {"", "0", "root"}:
            wrong.append(f"{container.name} runs as {container.user or 'the user of its image'}")
        if not container.read_only:
            wrong.append(f"{container.name} may write to its root file system")
        if container.dropped != ("ALL",) or container.added:
            wrong.append(f"{container.name} keeps capabilities")
        if container.privileged:
            wrong.append(f"{container.name} is privileged")
    if task.can_exec:
        wrong.append("commands may be run in the task")
    users = ", ".join(sorted({container.user for container in task.containers}))
    return Check(
        name=CheckName.HARDENING,
        wanted="not root, root file system read-only, no capability, no way in",
        found=_few(wrong) if wrong else f"user {users}, read-only, no capability, no way in",
        passed=bool(task.containers) and not wrong,
    )


def judge_capacity(wanted: str, found: str | None) -> Check:
    """Whether the task runs on the capacity that was asked for."""
    named = found or "none"
    return Check(name=CheckName.CAPACITY, wanted=wanted, found=named, passed=found == wanted)


def judge_digest(pushed: str | None, running: str | None, held: str | None) -> Check:
    """Whether what was pushed is what runs, and what the registry holds under the tag."""
    named = {"runs": running, "in the registry": held}
    wrong = [f"{where} {digest or 'none'}" for where, digest in named.items() if digest != pushed]
    return Check(
        name=CheckName.DIGEST,
        wanted=f"{pushed or 'a digest on record: bring the lab up again'}, as pushed",
        found="; ".join(wrong) if wrong else f"{running}, running and in the registry",
        passed=pushed is not None and not wrong,
    )


def judge_retention(days: int | None) -> Check:
    """Whether CloudWatch deletes old log entries by itself."""
    found = f"{days} days" if days else "forever"
    return Check(name=CheckName.RETENTION, wanted="an end", found=found, passed=bool(days))


def judge_tags(record: LabRecord, tags: Mapping[str, Mapping[str, str]]) -> Check:
    """Whether everything carries lab, project and owner, and the cluster the lab's end.

    ``tags`` are by resource; ``cluster`` is the one with the end.
    """
    wanted = {
        names.TAG_LAB: record.lab,
        names.TAG_PROJECT: names.PROJECT,
        names.TAG_OWNER: record.owner,
    }
    wrong = []
    for resource, its in tags.items():
        expected = dict(wanted)
        if resource == "task":
            # ECS gives a task its tags when it starts; the owner may have changed since.
            del expected[names.TAG_OWNER]
        if resource == "cluster":
            expected[names.TAG_EXPIRES_AT] = to_rfc3339(record.expires_at)
        wrong += [
            f"{resource} has {name} {its.get(name) or '(none)'}"
            for name, value in expected.items()
            if its.get(name) != value
        ]
    tagged = ", ".join(f"{name}={value}" for name, value in wanted.items())
    return Check(
        name=CheckName.TAGS,
        wanted=f"{tagged}; on the cluster the end",
        found=_few(wrong) if wrong else f"as wanted on {', '.join(tags)}",
        passed=bool(tags) and not wrong,
    )


def _few(things: Iterable[object]) -> str:
    """The first ``things`` in words, and how many more there are."""
    shown = [str(thing) for thing in things]
    more = len(shown) - _MOST_NAMED
    return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _list(value: Any) -> list[str]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _last(arn: str | None) -> str:
    """The last part of an ARN or an action, by which people know it."""
    return (arn or "").rsplit("/", 1)[-1].removeprefix("bedrock:")
