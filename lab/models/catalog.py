"""The catalogue of models: read, checked, searched by alias. Pure, except that it reads its file.

Errors name the file, the line and the field, because people edit this file by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from lab.errors import InvalidInputError

DEFAULT_PROMPT = "Answer in one short sentence: what is a gateway?"

#: YAML 1.1 reads some bare words as values: `on` and `yes` are true, `off` and `no` are false.
_MEANT = {"bool": "true or false, not for a name", "null": "nothing at all", "int": "a number"}

#: An anchor may contain itself; nothing that the schema accepts is nested as deep.
_DEEPEST = 20


class ModelProbe(BaseModel):
    """What validation asks a model."""

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
    successor: str | None = None
    inference_profile: InferenceProfile | None = None
    litellm: dict[str, Any] = Field(default_factory=dict)
    probe: ModelProbe = ModelProbe()

    @property
    def invoked_id(self) -> str:
        """The ID in requests to Bedrock: the inference profile's where there is one."""
        return self.inference_profile.id if self.inference_profile else self.model_id


class Catalog(BaseModel):
    """Every model the project knows, by unique alias, in the file's order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: list[Model] = Field(min_length=1)

    @model_validator(mode="after")
    def _aliases_are_unique(self) -> Catalog:
        seen: set[str] = set()
        for number, model in enumerate(self.models):
            if model.alias in seen:
                raise PydanticCustomError(
                    "doubled_alias",
                    "alias '{alias}' appears more than once",
                    {"alias": model.alias, "loc": ("models", number, "alias")},
                )
            seen.add(model.alias)
        return self

    @model_validator(mode="after")
    def _successors_lead_somewhere(self) -> Catalog:
        known = {model.alias: model for model in self.models}

        def refuse(number: int, fault: str) -> PydanticCustomError:
            where = ("models", number, "successor")
            return PydanticCustomError("bad_successor", "{fault}", {"fault": fault, "loc": where})

        for number, model in enumerate(self.models):
            if model.successor is not None and model.successor not in known:
                raise refuse(number, f"no model has the alias '{model.successor}'")
        for number, model in enumerate(self.models):
            passed = [model.alias]
            while (following := known[passed[-1]].successor) is not None:
                if following in passed:
                    raise refuse(number, f"leads in a circle: {' → '.join([*passed, following])}")
                passed.append(following)
        return self

    def successor_of(self, model: Model) -> Model | None:
        """The model that takes over from ``model``, or ``None`` where the catalogue names none."""
        return next((m for m in self.models if m.alias == model.successor), None)

    def choose(self, aliases: list[str] | None) -> list[Model]:
        """The models named by ``aliases``, in that order; ``None`` means the enabled ones.

        Raises InvalidInputError for an unknown alias, and where no model would be served.
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
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{path}: not text in UTF-8: {error.reason} at byte {error.start}", "Save it as UTF-8."
        ) from error
    hint = f"Correct {path.name}; its first lines explain each field."
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidInputError(f"{path}:{line}: not YAML: {error.problem}", hint) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidInputError(f"{path}:{line}: not YAML: {error.reason}", hint) from error
    except ValueError as error:
        raise InvalidInputError(f"{path}: not YAML: {error}", hint) from error
    odd = [f"{path}:{line}: {field}: {said}" for line, field, said in _odd_keys(root)]
    if odd:
        raise InvalidInputError("\n".join(odd), hint)
    try:
        return Catalog.model_validate(data)
    except ValidationError as error:
        faults = []
        for problem in error.errors():
            location = problem.get("ctx", {}).get("loc", problem["loc"])
            field = ".".join(str(p) for p in location) or "models"
            faults.append(f"{path}:{_line_of(root, location)}: {field}: {problem['msg']}")
        raise InvalidInputError("\n".join(faults), hint) from error


def _odd_keys(node: yaml.Node | None, above: str = "") -> Iterator[tuple[int, str, str]]:
    """Line, field and fault of each key that YAML does not read as text, or that is doubled."""
    if above.count(".") > _DEEPEST:
        return
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _odd_keys(item, f"{above}{number}.")
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            kind = key.tag.rsplit(":", 1)[-1]
            if kind not in {"str", "merge"}:
                yield line, above + name, f"YAML takes the word for {_MEANT.get(kind, kind)}"
            elif name in seen:
                yield line, above + name, "appears more than once"
            seen.add(name)
            yield from _odd_keys(value, f"{above}{name}.")


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
