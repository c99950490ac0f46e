"""The tag of an image depends on all of its inputs, and on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import InvalidInputError
from lab.image import recipe as image
from lab.image.recipe import (
    GATEWAY,
    LOCAL_CLOUD,
    ImageRecipe,
    build_arguments,
    image_tag,
    prepare_context,
)

FILES = ("Dockerfile", "requirements.lock", "healthcheck.py")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageRecipe:
    folder = tmp_path / "gateway"
    shared = tmp_path / "build"
    folder.mkdir()
    shared.mkdir()
    for name in FILES:
        (folder / name).write_text(name)
    (shared / "install.py").write_text("pass")
    monkeypatch.setattr(image, "SHARED_FOLDER", shared)
    return ImageRecipe(folder, FILES, configured=True)


def tag(recipe: ImageRecipe, **changes: str) -> str:
    inputs = {"base_identity": "abc", "architecture": "x86_64", "config_text": "models: []"}
    return image_tag(recipe, **(inputs | changes))


def test_equal_inputs_should_give_one_tag(recipe: ImageRecipe) -> None:
    assert tag(recipe) == tag(recipe)
    assert len(tag(recipe)) == image.TAG_LENGTH


@pytest.mark.parametrize("name", FILES)
def test_each_file_should_change_the_tag(recipe: ImageRecipe, name: str) -> None:
    before = tag(recipe)
    (recipe.folder / name).write_text("other")
    assert tag(recipe) != before


def test_the_shared_scripts_should_change_the_tag(recipe: ImageRecipe) -> None:
    before = tag(recipe)
    (image.SHARED_FOLDER / "install.py").write_text("other")
    assert tag(recipe) != before


@pytest.mark.parametrize(
    "change",
    [{"base_identity": "xyz"}, {"architecture": "arm64"}, {"config_text": "models: [one]"}],
)
def test_each_value_should_change_the_tag(recipe: ImageRecipe, change: dict[str, str]) -> None:
    assert tag(recipe, **change) != tag(recipe)


@pytest.mark.parametrize("constant", ["SBOM_FORM", "PYTHON_VERSION", "GLIBC_MINOR", "TIMESTAMP"])
def test_each_constant_should_change_the_tag(
    recipe: ImageRecipe, monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    before = tag(recipe)
    monkeypatch.setattr(image, constant, 99)
    assert tag(recipe) != before


def test_the_builder_should_have_the_same_time_and_installer() -> None:
    scripts = (image.SHARED_FOLDER / "install_site.py").read_text()
    assert f"TIMESTAMP = {image.TIMESTAMP:_}\n" in scripts
    assert f'INSTALLER = "{image.INSTALLER}"\n' in scripts


def test_a_file_that_is_no_input_should_not_change_the_tag(recipe: ImageRecipe) -> None:
    before = tag(recipe)
    (recipe.folder / "requirements.in").write_text("comment")
    (recipe.folder / "Dockerfile").touch()
    assert tag(recipe) == before


def test_inputs_should_be_separated(recipe: ImageRecipe) -> None:
    first = tag(recipe, base_identity="ab", config_text="c")
    assert first != tag(recipe, base_identity="a", config_text="bc")


def test_a_missing_or_unwanted_configuration_should_be_refused(recipe: ImageRecipe) -> None:
    with pytest.raises(InvalidInputError, match="needs a configuration"):
        image_tag(recipe, base_identity="abc", architecture="x86_64")
    with pytest.raises(InvalidInputError, match="takes no configuration"):
        image_tag(LOCAL_CLOUD, base_identity="abc", architecture="x86_64", config_text="x")


def test_a_missing_or_unwanted_bill_of_materials_should_be_refused(
    recipe: ImageRecipe, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="needs a bill of materials"):
        prepare_context(recipe, tmp_path / "context", [], config_text="x")
    with pytest.raises(InvalidInputError, match="takes none"):
        prepare_context(LOCAL_CLOUD, tmp_path / "context", [], sbom_text="{}")


def test_an_unknown_architecture_should_be_refused(recipe: ImageRecipe) -> None:
    with pytest.raises(InvalidInputError, match="riscv"):
        tag(recipe, architecture="riscv")
    with pytest.raises(InvalidInputError, match="riscv"):
        build_arguments(Path(), base_reference="base", architecture="riscv")


def test_the_context_should_have_the_inputs_and_nothing_else(
    recipe: ImageRecipe, tmp_path: Path
) -> None:
    wheel = tmp_path / "one-1-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    target = tmp_path / "context"
    target.mkdir()
    (target / "left over").write_text("from an earlier build")
    prepare_context(recipe, target, [wheel], config_text="models: []", sbom_text="{}")
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert found == {
        *(*FILES, "build/install.py", f"wheels/{wheel.name}", "config.yaml", "sbom.cdx.json"),
    }
    assert (target / "config.yaml").read_text() == "models: []"
    assert (target / "sbom.cdx.json").read_text() == "{}"
    copied = [path for path in target.rglob("*") if path.is_file() and path.suffix != ".whl"]
    assert {(path.stat().st_mtime, path.stat().st_mode & 0o777) for path in copied} == {
        (image.TIMESTAMP, 0o644)
    }


def test_the_build_should_have_no_network_and_pull_nothing() -> None:
    arguments = build_arguments(Path("context"), base_reference="base:1", architecture="arm64")
    assert arguments["network_mode"] == "none"
    assert arguments["pull"] is False
    assert arguments["platform"] == "linux/arm64"
    assert arguments["buildargs"] == {"BASE": "base:1"}


@pytest.mark.parametrize("real", [GATEWAY, LOCAL_CLOUD])
def test_the_real_recipes_should_be_complete(real: ImageRecipe) -> None:
    text = "models: []" if real.configured else None
    assert image_tag(real, base_identity="abc", architecture="x86_64", config_text=text)
    locked = real.lock.read_text()
    assert "--hash=sha256:" in locked
    assert "://" not in locked
