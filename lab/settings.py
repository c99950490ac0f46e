"""Where labs run: the values that differ between clouds and machines, and nothing else.

Read inside a flow with :func:`read_settings`, never at import: two deployments of one flow differ
only by their environment (``LAB_...`` variables, see ``prefect.yaml``).
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from lab.addresses import host_cidr
from lab.errors import InvalidInputError, LabError
from lab.fargate import Architecture
from lab.spec import describe_validation

ROOT = Path(__file__).resolve().parent.parent
#: The dated list of releases that no image may contain.
ADVISORIES_PATH = ROOT / "config" / "advisories.yaml"
#: What wheels may install in addition to the package of their own name.
WHEEL_RULES_PATH = ROOT / "config" / "wheels.yaml"
#: Independent services that answer with the caller's address as plain text.
ADDRESS_SOURCES = (
    "https://checkip.amazonaws.com",
    "https://api.ipify.org",
    "https://ipv4.icanhazip.com",
)


class Settings(BaseSettings):
    """The place a lab runs in. Frozen; the default of every field suits AWS."""

    model_config = SettingsConfigDict(env_prefix="LAB_", frozen=True, extra="ignore")

    target: str = Field(default="aws", description="The deployments' name: `lab-up/<target>`.")
    home: Path = Field(default=ROOT / ".lab", description="Where state that is not code is stored.")
    region: str = Field(default="us-east-1", description="The AWS region.")
    account: str | None = Field(default=None, description="The only account allowed; any if unset.")
    credentials_block: str | None = Field(
        default=None, description="An AWS Credentials block; unset: boto3's own search."
    )
    role_boundary: str | None = Field(
        default=None,
        description="A managed policy, by name, as the permissions boundary of a lab's roles.",
    )
    architecture: Architecture = Field(
        default=Architecture.X86_64,
        description="Of wheels, image and task. The local target uses the machine's own.",
    )
    registry_host: str | None = Field(
        default=None, description="Push and pull through this host instead of ECR's own."
    )
    public_base_image: bool = Field(
        default=True, description="Try the public Python base image before making one."
    )
    deployer_address: str | None = Field(
        default=None, description="The deployer's public address; unset: ask `address_sources`."
    )
    address_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        default=ADDRESS_SOURCES,
        description="Services that answer with the caller's address, separated by commas; two must "
        "agree.",
    )
    follow_address: bool = Field(
        default=False, description="Let `lab-watch` move a lab's firewall with the deployer."
    )
    container_environment: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="Further environment of the gateway's container, as JSON."
    )
    longest_life: timedelta = Field(
        default=timedelta(hours=72), description="From a lab's creation to its last possible end."
    )
    stop_grace: timedelta = Field(
        default=timedelta(minutes=15),
        description="How long after a lab's end the cloud itself stops its service.",
    )
    notices: Annotated[tuple[int, ...], NoDecode] = Field(
        default=(30, 5), description="Minutes before a lab's end at which to give notice, as JSON."
    )
    notify_block: str | None = Field(
        default=None, description="A notification block, `type/name`, such as `slack-webhook/ops`."
    )
    model_notice: timedelta = Field(
        default=timedelta(days=14),
        description="How long before a model's end of life to warn of it.",
    )
    subscribe: bool = Field(
        default=False,
        description="Accept the offer of a model that the account has no agreement for yet.",
    )
    #: Bedrock says that an agreement takes up to 15 minutes.
    subscription_deadline: timedelta = Field(
        default=timedelta(minutes=20),
        description="How long an agreement may take; a lab with a shorter TTL waits that long.",
    )
    unlisted_models: bool = Field(
        default=False,
        description="Serve models that Bedrock does not list: for a stand-in that answers for all.",
    )
    rollout_deadline: timedelta = Field(
        default=timedelta(minutes=10), description="How long ECS may take to roll out."
    )
    #: From a running task to a gateway that serves: 42 s on Fargate's smallest size.
    readiness_deadline: timedelta = Field(
        default=timedelta(minutes=3),
        description="How long the gateway of a running task may take to be ready.",
    )
    terraform_deadline: timedelta = Field(
        default=timedelta(minutes=20), description="How long one Terraform command may take."
    )
    build_deadline: timedelta = Field(
        default=timedelta(minutes=20), description="How long the image's build may take."
    )

    @field_validator("home", mode="before")
    @classmethod
    def _somewhere(cls, value: object) -> object:
        # An empty path is the current folder, which nobody means.
        return value or ROOT / ".lab"

    @field_validator("address_sources", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("container_environment", "notices", mode="before")
    @classmethod
    def _from_json(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("deployer_address")
    @classmethod
    def _one_host(cls, value: str | None) -> str | None:
        if not value:
            return None
        try:
            return host_cidr(value)
        except LabError as error:
            raise ValueError(error.message) from error

    @field_validator("region")
    @classmethod
    def _region_form(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", value):
            raise ValueError(f"{value!r} is not an AWS region, such as 'us-east-1'")
        return value

    @field_validator("role_boundary")
    @classmethod
    def _policy_name(cls, value: str | None) -> str | None:
        if not value:
            return None
        if not re.fullmatch(r"[\w+=,.@-]{1,128}", value, re.ASCII):
            raise ValueError(f"{value!r} is not the name of a managed policy")
        return value

    @field_validator("stop_grace")
    @classmethod
    def _whole_minutes(cls, value: timedelta) -> timedelta:
        seconds = value.total_seconds()
        if seconds % 60 or not 60 <= seconds <= 86400:
            raise ValueError(f"{value} is not a whole number of minutes from 1 to 1440")
        return value

    @field_validator("model_notice", "subscription_deadline")
    @classmethod
    def _not_before_now(cls, value: timedelta) -> timedelta:
        if value < timedelta(0):
            raise ValueError(f"{value} is negative")
        return value

    @property
    def catalog_path(self) -> Path:
        """The one list of models."""
        return ROOT / "config" / "models.yaml"

    def warn_of_models_until(self, at: datetime) -> datetime:
        """A model whose life ends before this gets a warning: no lab of ``at`` lives longer."""
        return at + max(self.model_notice, self.longest_life)

    @property
    def prices_path(self) -> Path:
        """The dated price table."""
        return ROOT / "config" / "prices.yaml"

    def lab_home(self, lab: str) -> Path:
        """The folder for what this machine knows of ``lab``."""
        return self.home / "labs" / lab


def read_settings() -> Settings:
    """The settings in the environment now; InvalidInputError names each refused variable."""
    try:
        return Settings()
    except SettingsError as error:
        raise InvalidInputError(
            f"a LAB_ variable cannot be read: {error}: {error.__cause__}",
            "Lists and mappings are written as JSON, such as LAB_NOTICES='[30,5]'.",
        ) from error
    except ValidationError as error:
        refused = (line.partition(":") for line in describe_validation(error))
        raise InvalidInputError(
            "; ".join(f"LAB_{field.upper()}:{said}" for field, _, said in refused),
            "Correct the variable in the deployment's job variables or your environment.",
        ) from error
