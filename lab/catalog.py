"""The catalogue of models: read, checked, and asked for by alias. Pure but for reading its file.

Errors name the file, the line and the field, because people edit this file by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab.errors import InvalidInputError

DEFAULT_PROMPT = "Answer in one short sentence: what is a gateway?"


class Probe(BaseModel):
    """What validation asks of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(default=DEFAULT_PROMPT, min_length=1)
    max_tokens: int = Field(default=64, ge=1, le=4096)


class InferenceProfile(BaseModel):
    """A Bedrock inference profile: its ID and every region it may send a request to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z-]+\.[a-z0-9-]+\.[A-Za-z0-9.:-]+$")
    regions: list[Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]] = Field(min_length=1)


class Model(BaseModel):
    """One model that the gateway can serve."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alias: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$")
    model_id: str = Field(pattern=r"^[a-z0-9-]+\.[A-Za-z0-9.:-]+$")
    provider: str = Field(min_length=1)
    enabled: bool = False
    inference_profile: InferenceProfile | None = None
    litellm: dict[str, Any] = Field(default_factory=dict)
    probe: Probe = Probe()

    @property
    def invoked_id(self) -> str:
        """What Bedrock is asked for: the inference profile where there is one."""
        return self.inference_profile.id if self.inference_profile else self.model_id


class Catalog(BaseModel):
    """Every model the project knows, by unique alias, in the file's order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: list[Model] = Field(min_length=1)

    @model_validator(mode="after")
    def _aliases_are_unique(self) -> Catalog:
        seen: set[str] = set()
        for model in self.models:
            if model.alias in seen:
                raise ValueError(f"alias '{model.alias}' stands more than once")
            seen.add(model.alias)
        return self

    def choose(self, aliases: list[str] | None) -> list[Model]:
        """The models named by ``aliases``, in that order; ``None`` means the enabled ones.

        Raises InvalidInputError for an unknown alias, and where nothing would be served.
        """
        if aliases is None:
            chosen = [m for m in self.models if m.enabled]
            if not chosen:
                raise InvalidInputError(
                    "no model of the catalogue is enabled", "Set `enabled: true`, or name models."
                )
            return chosen
        known = {m.alias: m for m in self.models}
        unknown = [a for a in aliases if a not in known]
        if unknown:
            raise InvalidInputError(
                f"unknown model {', '.join(map(repr, unknown))}; the catalogue has: "
                f"{', '.join(known)}",
                "Name models of config/models.yaml, or add the model there.",
            )
        return [known[a] for a in aliases]


def load_catalog(path: Path) -> Catalog:
    """The catalogue in ``path``; InvalidInputError names file, line and field of every fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(
            f"{path}: cannot read the catalogue: {error.strerror}", "Restore the file."
        ) from error
    hint = f"Correct {path.name}; its first lines explain each field."
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidInputError(f"{path}:{line}: not YAML: {error.problem}", hint) from error
    try:
        return Catalog.model_validate(data)
    except ValidationError as error:
        faults = []
        for problem in error.errors():
            field = ".".join(str(p) for p in problem["loc"]) or "models"
            said = problem["msg"].removeprefix("Value error, ")
            faults.append(f"{path}:{_line_of(root, problem['loc'])}: {field}: {said}")
        raise InvalidInputError("\n".join(faults), hint) from error


def _line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line, from 1, of the node at ``location``, or of the nearest node above it."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        following: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    following, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            following = node.value[part]
            line = following.start_mark.line + 1
        if following is None:
            break
        node = following
    return line
