"""What an up decides before it changes anything: models, addresses, architecture. Pure."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from lab.fargate import Architecture
from lab.models.catalog import Model
from lab.models.lifecycle import ModelNote


class PreflightResult(BaseModel):
    """The result of preflight: all that the next stages need. It exists only if they may run."""

    model_config = ConfigDict(frozen=True)

    models: list[Model]
    #: What was done about unavailable models, and warnings about the others.
    model_notes: list[ModelNote] = Field(default_factory=list)
    #: The end of life of each alias that has one.
    model_ends: dict[str, datetime] = Field(default_factory=dict)
    cidrs: list[str]
    #: The one of ``cidrs`` that nobody gave: preflight found it as the deployer's.
    deployer: str | None = None
    architecture: Architecture
