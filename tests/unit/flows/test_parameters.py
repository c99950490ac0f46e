"""The form of a flow that makes a lab has LabSpec's fields, and refuses the same values."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from flows.lab_rebuild import lab_rebuild
from flows.lab_up import lab_up
from flows.parameters import takes_lab_spec
from lab.errors import InvalidInputError
from lab.spec import LabSpec, OnFailure

FLOWS = pytest.mark.parametrize("flow", [lab_up, lab_rebuild], ids=lambda flow: flow.name)


class Story:
    """A story that only records the specs that it gets."""

    def __init__(self) -> None:
        self.specs: list[LabSpec] = []

    def __call__(self, spec: LabSpec) -> None:
        self.specs.append(spec)


def flow_of(story: Story) -> Any:
    """A flow's function for ``story``, as the flows are made."""

    @takes_lab_spec
    def lab_flow(spec: LabSpec) -> None:
        story(spec)

    return lab_flow


def kinds(field: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    """The JSON types that a value of ``field`` may have."""
    if "$ref" in field:
        return kinds(definitions[field["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in field:
        return {kind for one in field["anyOf"] for kind in kinds(one, definitions)}
    return {field["type"]}


def title_of(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What the form calls ``field``: its own title, or that of the type that it refers to."""
    return field.get("title") or definitions[field["$ref"].rpartition("/")[2]]["title"]


@FLOWS
def test_the_form_has_a_field_for_each_field_of_a_spec(flow: Flow[..., Any]) -> None:
    """should have them in order, with title and description, and no nested group"""
    schema = parameter_schema(flow).model_dump_for_openapi()
    shown = sorted(schema["properties"].items(), key=lambda item: item[1]["position"])
    assert [name for name, _ in shown] == list(LabSpec.model_fields)
    for name, field in shown:
        wanted = LabSpec.model_fields[name]
        assert wanted.description
        assert field["description"] == wanted.description
        title = wanted.title or name.replace("_", " ").capitalize()
        assert title_of(field, schema["definitions"]) == title
        assert "object" not in kinds(field, schema["definitions"])
    assert schema["required"] == ["lab"]


@FLOWS
def test_the_form_has_the_bounds_and_defaults_of_a_spec(flow: Flow[..., Any]) -> None:
    """should show them before a run exists, the same as in the spec's own schema"""
    shown = parameter_schema(flow).model_dump_for_openapi()["properties"]
    wanted = LabSpec.model_json_schema()["properties"]
    own = {"title", "description", "position", "$ref"}
    for name, field in shown.items():
        assert {k: v for k, v in field.items() if k not in own} == {
            k: v for k, v in wanted[name].items() if k not in own
        }


def test_the_story_gets_a_spec() -> None:
    """should have the given values, and the spec's own defaults for the others"""
    story = Story()
    flow_of(story)(lab="demo", on_failure="destroy", cpu=512, memory=1024)
    assert story.specs == [LabSpec(lab="demo", on_failure=OnFailure.DESTROY, cpu=512, memory=1024)]


def test_values_that_prefect_has_parsed_are_accepted() -> None:
    """should read the values from Prefect, which has validated them once already"""
    given = {"lab": "demo", "allowed_addresses": ["8.8.4.4"], "on_failure": "destroy"}
    story = Story()
    flow_of(story)(**lab_up.validate_parameters(given))
    assert story.specs == [LabSpec.model_validate(given)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lab": "demo", "cpu": 1024, "memory": 512}, "memory 512 MiB does not go with cpu 1024"),
        ({"lab": "Demo-"}, "lab name 'Demo-' is not allowed"),
        ({"lab": "demo", "spec": {}}, "spec"),
        ({}, "lab"),
    ],
)
def test_an_invalid_value_begins_no_story(values: dict[str, Any], said: str) -> None:
    """should refuse it, even if each field alone is valid"""
    story = Story()
    with pytest.raises(InvalidInputError, match=said):
        flow_of(story)(**values)
    assert story.specs == []
