"""The fields of a :class:`LabSpec` as the parameters of a flow, one by one.

Prefect's form and ``prefect deployment run --param`` offer the parameters of a flow's signature. A
model there would be a form inside the form, and ``--param`` would need JSON. Therefore the
signature is made from the model's fields, each of which is defined once, in ``lab/spec.py``.
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
    """Return ``story`` as a function that takes the fields of its spec instead of the spec.

    The function raises InvalidInputError for values that are not allowed, before the story begins.
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
    # Prefect sets its own title and description for each parameter; these override them.
    title = field.title or name.replace("_", " ").capitalize()
    shown = {"title": title, "description": field.description or "", **schema}
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.is_required() else field.default,
        annotation=Annotated[(field.annotation, *field.metadata, Field(json_schema_extra=shown))],
    )
