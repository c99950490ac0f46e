"""What a lab should be: the parameters of ``lab-up``. Where it runs is lab.settings. Pure.

The descriptions and bounds here are the form in Prefect's UI.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab.addresses import MAX_HOSTS, host_cidr
from lab.durations import DURATION_PATTERN, format_duration, parse_duration
from lab.errors import InvalidInputError, LabError
from lab.fargate import TASK_SIZES, Capacity, check_task_size
from lab.names import LAB_NAME_MAX, LAB_NAME_PATTERN, check_lab_name

MIN_TTL = timedelta(minutes=1)
MAX_TTL = timedelta(hours=24)

_T = TypeVar("_T")


def _as_value_error(check: Callable[[_T], object]) -> Callable[[_T], _T]:
    """Let pydantic report a LabError's message."""

    def validate(value: _T) -> _T:
        try:
            check(value)
        except LabError as error:
            raise ValueError(error.message) from error
        return value

    return validate


def _check_ttl(text: str) -> None:
    ttl = parse_duration(text)
    if not MIN_TTL <= ttl <= MAX_TTL:
        raise InvalidInputError(
            f"ttl {text!r} is out of bounds: allowed are {format_duration(MIN_TTL)} to "
            f"{format_duration(MAX_TTL)}"
        )


def _check_models(aliases: list[str]) -> None:
    if not aliases:
        raise InvalidInputError("models is empty: name at least one alias of config/models.yaml")
    doubled = sorted({a for a in aliases if aliases.count(a) > 1})
    if doubled:
        raise InvalidInputError(f"models names {', '.join(doubled)} more than once")


def described(text: str, **schema: Any) -> Any:
    """A field's description, also where Prefect makes a flow's parameter from the field.

    Prefect keeps only what is in the extra schema.
    """
    return Field(description=text, json_schema_extra={"description": text, **schema})


LabName = Annotated[
    str,
    described(
        f"Names the lab and everything in it: 2 to {LAB_NAME_MAX} lower-case letters, digits and "
        "single dashes, beginning with a letter.",
        pattern=LAB_NAME_PATTERN,
        maxLength=LAB_NAME_MAX,
    ),
    AfterValidator(_as_value_error(check_lab_name)),
]


Ttl = Annotated[
    str,
    described(
        "The lab is destroyed after this time: 1m to 24h, as in '45m' or '1h30m'.",
        pattern=DURATION_PATTERN,
    ),
    AfterValidator(_as_value_error(_check_ttl)),
]


def _host_cidrs(addresses: list[str]) -> list[str]:
    return sorted({host_cidr(_as_value_error(host_cidr)(address)) for address in addresses})


Hosts = Annotated[
    list[str],
    Field(max_length=MAX_HOSTS),
    described("Public IPv4 hosts, such as '8.8.4.4'."),
    AfterValidator(_host_cidrs),
]


def lifetime_of(ttl: str) -> timedelta:
    """A valid TTL as a length of time."""
    return parse_duration(ttl)


class OnFailure(StrEnum):
    """What a failed up does with what already exists."""

    KEEP = "keep"
    DESTROY = "destroy"


class OnRetired(StrEnum):
    """What an up does about a model that Bedrock no longer serves to this account."""

    FAIL = "fail"
    SUBSTITUTE = "substitute"
    SKIP = "skip"


class LabSpec(BaseModel):
    """The lab that somebody wants. An instance is valid: every bound is checked here."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "description": "The lab that is wanted. It needs a name; the rest has a default."
        },
    )

    lab: LabName
    ttl: Annotated[Ttl, Field(title="Time to live")] = "2h"
    models: Annotated[
        list[str] | None,
        Field(description="Aliases of config/models.yaml. None: those enabled there."),
        AfterValidator(lambda v: v if v is None else _as_value_error(_check_models)(v)),
    ] = None
    on_retired: Annotated[
        OnRetired,
        Field(
            title="On a retired model",
            description=(
                "What happens if Bedrock has retired a model, or refuses it to the account: fail, "
                "substitute its successor under the same alias, or skip it."
            ),
        ),
    ] = OnRetired.FAIL
    cpu: Annotated[
        int,
        Field(
            title="CPU units",
            description="CPU of the task; 1024 units are one vCPU.",
            json_schema_extra={"enum": list(TASK_SIZES)},
        ),
    ] = 1024
    memory: Annotated[
        int,
        Field(
            title="Memory in MiB",
            description="Memory of the task: on Fargate two to eight times its CPU units.",
            json_schema_extra={
                "minimum": min(min(sizes) for sizes in TASK_SIZES.values()),
                "maximum": max(max(sizes) for sizes in TASK_SIZES.values()),
            },
        ),
    ] = 2048
    capacity: Annotated[
        Capacity,
        Field(
            description="FARGATE_SPOT costs less, but AWS may take the task back; FARGATE stays."
        ),
    ] = Capacity.SPOT
    allowed_addresses: Annotated[
        list[str] | None,
        Field(
            description="Public IPv4 hosts that may reach the gateway. None: the deployer's own.",
            max_length=MAX_HOSTS,
        ),
        AfterValidator(lambda v: v if v is None else [_as_value_error(host_cidr)(a) for a in v]),
    ] = None
    on_failure: Annotated[
        OnFailure,
        Field(
            title="On failure",
            description="What happens to a lab that did not come up: keep it, or destroy it.",
        ),
    ] = OnFailure.KEEP
    owner: Annotated[
        str,
        Field(
            description="Who is responsible for the lab: 1 to 64 letters, digits and `_.@+-`. It "
            "becomes a tag of every resource.",
            pattern=r"^[\w.@+-]{1,64}$",
        ),
    ] = "unknown"

    @model_validator(mode="after")
    def _fargate_has_it(self) -> LabSpec:
        try:
            check_task_size(self.cpu, self.memory)
        except LabError as error:
            raise ValueError(error.message) from error
        return self

    @property
    def lifetime(self) -> timedelta:
        """The TTL as a length of time."""
        return parse_duration(self.ttl)


def read_spec(values: dict[str, object]) -> LabSpec:
    """A LabSpec from loose values; InvalidInputError names each value that is refused."""
    try:
        return LabSpec.model_validate(values)
    except ValidationError as error:
        raise InvalidInputError(
            "; ".join(describe_validation(error)), "Correct the value and run the command again."
        ) from error


def describe_validation(error: ValidationError) -> list[str]:
    """Pydantic's findings, one line each: the field, and what is wrong with it."""
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        said = problem["msg"].removeprefix("Value error, ")
        given = "" if repr(problem["input"]) in said else f" (given: {problem['input']!r})"
        if problem["type"] == "missing" or not field:
            given = ""
        lines.append(f"{field}: {said}{given}" if field else said)
    return lines
