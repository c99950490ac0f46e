"""The fields of a :class:`LabSpec` as the parameters of a flow, one by one.

Prefect's form and ``prefect deployment run --param`` offer what stands in a flow's signature; a
model in it would be a box in a box, and ``--param`` would want JSON. So the signature is made of
the model's fields, and the model of the parameters: each is written down once, in ``lab/spec.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

from pydantic import Field
from pydantic.fields import FieldInfo

from lab.spec import LabSpec, read_spec


def takes_lab_spec(story: Callable[[LabSpec], None]) -> Callable[..., None]:
    """``story``, called with the fields of its spec by name instead of with the spec.

    Called with values that no spec can have, it raises InvalidInputError before the story begins.
    """

    @wraps(story)
    def flat(**values: Any) -> None:
        story(read_spec(values))

    parameters = [_parameter(name, field) for name, field in LabSpec.model_fields.items()]
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    return flat


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    schema = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    # Prefect gives each parameter a title and a description of its own; these are stronger.
    shown = {"title": field.title or name, "description": field.description or "", **schema}
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.is_required() else field.default,
        annotation=Annotated[(field.annotation, *field.metadata, Field(json_schema_extra=shown))],
    )
