"""The account and region that labs are in, and the names that follow from both. Pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from lab import names


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
