"""The catalogue is edited by hand: each fault is reported by file, line and field."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from lab.errors import InvalidInputError
from lab.models.catalog import Catalog, load_catalog
from lab.settings import Settings

GOOD = """
# A comment, so that the first model is on the fourth line.
models:
  - alias: one
    model_id: vendor.model-one-v1:0
    provider: Vendor
    enabled: true
  - alias: two
    model_id: vendor.model-two-v1:0
    provider: Vendor
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


def load(path: Path, text: str) -> Catalog:
    path.write_text(text, encoding="utf-8")
    return load_catalog(path)


def refusal(path: Path, text: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        load(path, text)
    assert caught.value.hint
    return caught.value.message


def test_reads_models_in_the_files_order(path: Path) -> None:
    """should keep the order, and use the defaults for missing fields"""
    models = load(path, GOOD).models
    assert [m.alias for m in models] == ["one", "two"]
    assert [m.enabled for m in models] == [True, False]
    assert models[1].inference_profile is None
    assert models[1].probe.max_tokens == 64
    assert models[1].invoked_id == "vendor.model-two-v1:0"


def test_missing_file_is_named(path: Path) -> None:
    """should name the missing file"""
    with pytest.raises(InvalidInputError) as caught:
        load_catalog(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("models:\n  - alias: [one\n", 3),
        ("models:\n\t- alias: one\n", 2),
        ("models:\n  - alias: one\n   model_id: x\n", 3),
        ("models:\n  - alias: *nobody\n", 2),
        ("models:\n  - alias: !!python/object:os.system one\n", 2),
        ("models: []\n---\nmodels: []\n", 2),
        ("models:\n  - &m\n    - *m\n\x07", 4),
    ],
)
def test_malformed_yaml_names_file_and_line(path: Path, text: str, line: int) -> None:
    """should say where the file stops being valid YAML"""
    assert refusal(path, text).startswith(f"{path}:{line}: not YAML: ")


@pytest.mark.parametrize("content", [b"models: \xff\xfe", b"models: \x00", b"models: \x07"])
def test_bytes_that_are_no_text_name_the_file(path: Path, content: bytes) -> None:
    """should refuse a broken file, or one in another encoding, without a traceback"""
    path.write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        load_catalog(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("text", ["", "[]", "models", "42", "# only a comment\n"])
def test_file_without_a_mapping(path: Path, text: str) -> None:
    """should say that a list of models is missing"""
    said = refusal(path, text)
    assert said.startswith(f"{path}:1: models: ")


@pytest.mark.parametrize("text", ["models: []", "models:"])
def test_empty_list(path: Path, text: str) -> None:
    """should refuse a catalogue without a model"""
    assert refusal(path, text).startswith(f"{path}:1: models: ")


@pytest.mark.parametrize(
    ("before", "after", "line", "field"),
    [
        ("    enabled: true", "    enable: true", 7, "models.0.enable"),
        ("    enabled: true", "    enabled: perhaps", 7, "models.0.enabled"),
        ("    provider: Vendor\n    enabled", "    enabled", 4, "models.0.provider"),
        ("alias: two", "alias: Two", 8, "models.1.alias"),
        ("alias: two", "alias: two words", 8, "models.1.alias"),
        ("alias: two", "alias: -two", 8, "models.1.alias"),
        ("alias: two", "alias: 2", 8, "models.1.alias"),
        ("vendor.model-two-v1:0", "model-two", 9, "models.1.model_id"),
        ("    enabled: true", "    probe: {max_tokens: 0}", 7, "models.0.probe.max_tokens"),
        ("    enabled: true", "    probe:\n      prompts: hi", 8, "models.0.probe.prompts"),
        (
            "    enabled: true",
            "    inference_profile:\n      id: us.vendor.one\n      regions: [us-east-1, Ohio]",
            9,
            "models.0.inference_profile.regions.1",
        ),
        (
            "    enabled: true",
            "    inference_profile: {id: us.vendor.one, regions: []}",
            7,
            "models.0.inference_profile.regions",
        ),
        ("models:\n", "version: 1\nmodels:\n", 3, "version"),
    ],
)
def test_a_fault_is_reported_by_line_and_field(
    path: Path, before: str, after: str, line: int, field: str
) -> None:
    """should point at the exact line, for unknown fields and for refused values"""
    assert before in GOOD
    said = refusal(path, GOOD.replace(before, after))
    assert said.startswith(f"{path}:{line}: {field}: ")
    assert "\n" not in said


def test_an_anchor_that_contains_itself_is_refused(path: Path) -> None:
    """should end, and name the file"""
    assert refusal(path, "models: &all\n  - *all\n").startswith(f"{path}:")


def test_every_fault_is_reported(path: Path) -> None:
    """should report all faults of a file at once, one line each"""
    text = GOOD.replace("enabled: true", "enabled: perhaps").replace("alias: two", "alias: Two")
    assert len(refusal(path, text).splitlines()) == 2


def test_a_duplicate_alias_is_reported_at_its_second_place(path: Path) -> None:
    """should point at the second of the two"""
    said = refusal(path, GOOD.replace("alias: two", "alias: one"))
    assert said.startswith(f"{path}:8: models.1.alias: ")
    assert "'one' appears more than once" in said


def test_a_key_that_yaml_reads_as_true_is_explained(path: Path) -> None:
    """should say how YAML read `on:`, and on which line, because nobody wrote `True`"""
    said = refusal(path, GOOD.replace("enabled: true", "on: true"))
    assert said.startswith(f"{path}:7: models.0.on: ")
    assert "YAML takes the word for true or false" in said


def test_a_duplicate_field_is_reported(path: Path) -> None:
    """should not use the last of two values without a message"""
    said = refusal(path, GOOD.replace("enabled: true", "provider: Other"))
    assert said == f"{path}:7: models.0.provider: appears more than once"


def with_successors(**successors: str) -> str:
    models = "".join(
        f"  - alias: {alias}\n    model_id: v.{alias}\n    provider: V\n"
        + (f"    successor: {successors[alias]}\n" if alias in successors else "")
        for alias in ("one", "two", "three")
    )
    return f"models:\n{models}"


def test_successors_are_found_by_alias(path: Path) -> None:
    """should lead from model to model, and end where none is named"""
    catalog = load(path, with_successors(one="two", two="three"))
    one, two, three = catalog.models
    assert catalog.successor_of(one) == two
    assert catalog.successor_of(two) == three
    assert catalog.successor_of(three) is None


@pytest.mark.parametrize(
    ("successors", "line", "number", "said"),
    [
        ({"two": "four"}, 8, 1, "no model has the alias 'four'"),
        ({"one": "two", "two": "four"}, 9, 1, "no model has the alias 'four'"),
        ({"three": "three"}, 11, 2, "leads in a circle: three → three"),
        ({"one": "two", "two": "one"}, 5, 0, "leads in a circle: one → two → one"),
        ({"one": "two", "two": "three", "three": "two"}, 5, 0, "circle: one → two → three → two"),
    ],
)
def test_an_unknown_successor_is_reported(
    path: Path, successors: dict[str, str], line: int, number: int, said: str
) -> None:
    """should point at the exact field, before a lab needs the successor"""
    text = refusal(path, with_successors(**successors))
    assert text.startswith(f"{path}:{line}: models.{number}.successor: ")
    assert said in text


def test_unknown_alias_names_the_known(path: Path) -> None:
    """should name each unknown alias, and all known ones"""
    catalog = load(path, GOOD)
    with pytest.raises(InvalidInputError) as caught:
        catalog.choose(["one", "three", "four"])
    assert "'three', 'four'" in caught.value.message
    assert "the catalogue has: one, two" in caught.value.message
    assert "'one'," not in caught.value.message


def test_chooses_the_named_in_their_order(path: Path) -> None:
    """should serve the requested models, also those that are not enabled"""
    assert [m.alias for m in load(path, GOOD).choose(["two", "one"])] == ["two", "one"]


def test_chooses_the_enabled_if_none_is_named(path: Path) -> None:
    """should not serve a model that is switched off"""
    assert [m.alias for m in load(path, GOOD).choose(None)] == ["one"]


def test_refuses_to_serve_nothing(path: Path) -> None:
    """should say how to switch a model on"""
    catalog = load(path, GOOD.replace("enabled: true", "enabled: false"))
    with pytest.raises(InvalidInputError, match="enabled: true"):
        catalog.choose(None)


def test_a_profile_is_invoked_if_there_is_one(path: Path) -> None:
    """should invoke the profile if the model has one"""
    profile = dedent(
        """
            inference_profile:
              id: us.vendor.model-one-v1:0
              regions: [us-east-1, us-gov-west-1]
        """
    ).replace("\n", "\n    ")
    model = load(path, GOOD.replace("    enabled: true", profile.rstrip())).models[0]
    assert model.invoked_id == "us.vendor.model-one-v1:0"


def test_the_projects_catalogue() -> None:
    """should serve the four aliases that callers know, and have further models to switch on"""
    catalog = load_catalog(Settings().catalog_path)
    assert {m.alias for m in catalog.choose(None)} == {
        "bedrock-llama",
        "bedrock-titan",
        "bedrock-titan-lite",
        "bedrock-cohere",
    }
    assert {"bedrock-nova-micro", "bedrock-nova-lite"} <= {m.alias for m in catalog.models}
    assert {"anthropic", "mistral"} <= {m.model_id.split(".")[0] for m in catalog.models}
    assert len({m.invoked_id for m in catalog.models}) == len(catalog.models)
