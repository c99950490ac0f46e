"""What an up has settled before it touches anything: models, addresses, architecture. Pure."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from lab.fargate import Architecture
from lab.models.catalog import Model
from lab.models.lifecycle import ModelNote


class PreflightResult(BaseModel):
    """What preflight found: everything needed to go on, and proof that going on makes sense."""

    model_config = ConfigDict(frozen=True)

    models: list[Model]
    #: What was done about models that cannot be had, and what is to be known of the others.
    model_notes: list[ModelNote] = Field(default_factory=list)
    #: The end of life of each alias that has one.
    model_ends: dict[str, datetime] = Field(default_factory=dict)
    cidrs: list[str]
    #: The one of ``cidrs`` that nobody gave, because it is the deployer's.
    deployer: str | None = None
    architecture: Architecture
