"""What an up has settled before it touches anything: names, addresses, models, image. Pure."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from lab import names
from lab.fargate import Architecture
from lab.models.catalog import Model
from lab.models.lifecycle import ModelNote


class Place(BaseModel):
    """The account and region that everything goes to."""

    model_config = ConfigDict(frozen=True)

    account: str
    region: str
    partition: str = "aws"
    registry_host: str | None = None

    @property
    def bucket(self) -> str:
        """The state bucket."""
        return names.state_bucket(self.account, self.region)

    @property
    def repository_arn(self) -> str:
        """The ECR repository, known before it exists."""
        return (
            f"arn:{self.partition}:ecr:{self.region}:{self.account}"
            f":repository/{names.repository_name()}"
        )

    @property
    def repository(self) -> str:
        """Where images are pushed to and pulled from, without a tag."""
        suffix = "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"
        host = self.registry_host or f"{self.account}.dkr.ecr.{self.region}.{suffix}"
        return f"{host}/{names.repository_name()}"

    def policy_arn(self, name: str | None) -> str:
        """The account's managed policy ``name``; empty for none."""
        return f"arn:{self.partition}:iam::{self.account}:policy/{name}" if name else ""


class Checked(BaseModel):
    """What preflight found: everything needed to go on, and proof that going on makes sense."""

    model_config = ConfigDict(frozen=True)

    place: Place
    models: list[Model]
    #: What was done about models that cannot be had, and what is to be known of the others.
    model_notes: list[ModelNote] = Field(default_factory=list)
    #: The end of life of each alias that has one.
    model_ends: dict[str, datetime] = Field(default_factory=dict)
    cidrs: list[str]
    #: The one of ``cidrs`` that nobody gave, because it is the deployer's.
    deployer: str | None = None
    architecture: Architecture


class ImagePlan(BaseModel):
    """The image an up needs: named by what goes into it, whether or not it exists yet."""

    model_config = ConfigDict(frozen=True)

    repository: str
    tag: str
    base_reference: str
    base_source: str
    config: str
    pushed_digest: str | None = None

    @property
    def reference(self) -> str:
        """``repository:tag``."""
        return f"{self.repository}:{self.tag}"
