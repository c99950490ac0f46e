"""A wheel may install only its own package. Files that would run by themselves are refused."""

from __future__ import annotations

import base64
import hashlib
import stat
import zipfile
from pathlib import Path

import pytest

from adapters.image.wheel_check import WheelRules, check_wheels, load_wheel_rules
from lab.errors import InvalidInputError, PermanentError
from lab.settings import WHEEL_RULES_PATH

RECORD = "demo-1.0.dist-info/RECORD"
HOOK = "import os; os.system('id')\n"


class Wheel:
    """A wheel that is being made: its files, and the content of its RECORD."""

    def __init__(self, folder: Path, name: str = "demo", version: str = "1.0") -> None:
        self.path = folder / f"{name}-{version}-py3-none-any.whl"
        self.info = f"{name}-{version}.dist-info"
        self.files = {f"{name}/__init__.py": "", f"{self.info}/METADATA": "Name: demo\n"}
        self.modes: dict[str, int] = {}
        self.unrecorded: set[str] = set()
        self.record_says: dict[str, str] = {}

    def write(self) -> Path:
        rows = [f"{self.info}/RECORD,,"]
        for name, text in self.files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            says = self.record_says.get(name, f"sha256={digest.decode()}")
            if name not in self.unrecorded:
                rows.append(f'"{name}",{says},{len(text)}')
        with zipfile.ZipFile(self.path, "w") as archive:
            for name, text in {**self.files, f"{self.info}/RECORD": "\n".join(rows)}.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = self.modes.get(name, stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, text)
        return self.path


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    return Wheel(tmp_path)


def refused(*wheels: Wheel, rules: WheelRules | None = None) -> str:
    with pytest.raises(PermanentError) as caught:
        check_wheels([wheel.write() for wheel in wheels], rules or WheelRules(), print)
    assert "config/wheels.yaml" in caught.value.hint
    return caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        *("demo.py", "demo/deep/inside.pth", "demo.so", "demo.libs/libone-12ab.so.1"),
        *("demo.cpython-311-x86_64-linux-gnu.so", "demo.abi3.so", "demo-1.0.data/scripts/demo"),
        *("demo-1.0.data/purelib/demo/more.py", "DEMO/case.py", "demo-1.0.dist-info/licenses/MIT"),
    ],
)
def test_files_of_the_package_are_accepted(wheel: Wheel, name: str) -> None:
    """should find no fault with an honest wheel"""
    wheel.files[name] = "content"
    logged: list[str] = []
    check_wheels([wheel.write()], WheelRules(), logged.append)
    assert logged[0].startswith("1 wheels with")


@pytest.mark.parametrize(
    "name",
    [
        *("demo_init.pth", "demo-1.0.data/purelib/demo_init.pth", "demo-1.0.data/platlib/x.pth"),
        *("sitecustomize.py", "usercustomize.py", "sitecustomize/__init__.py", "usercustomize.so"),
    ],
)
def test_files_that_run_at_every_start_are_refused(wheel: Wheel, name: str) -> None:
    """should name file and wheel: litellm 1.82.8 stole credentials in this way"""
    wheel.files[name] = HOOK
    said = refused(wheel)
    assert wheel.path.name in said
    assert name.rpartition("lib/")[2] in said
    assert "every start of Python" in said


def test_a_start_up_hook_with_a_reason_is_accepted(wheel: Wheel) -> None:
    """should accept it by its wheel and path, and no other"""
    wheel.files["demo.pth"] = "import demo\n"
    reason = {"demo.pth": "finds the parts of a namespace package"}
    check_wheels([wheel.write()], WheelRules(startup_hooks={"demo": reason}), print)
    assert "demo.pth" in refused(wheel, rules=WheelRules(startup_hooks={"other": reason}))
    wheel.files["demo2.pth"] = HOOK
    assert "demo2.pth" in refused(wheel, rules=WheelRules(startup_hooks={"demo": reason}))


@pytest.mark.parametrize(
    "name",
    [
        *("other/__init__.py", "other.py", "README.md", "tests/test_demo.py", "bin/demo"),
        *("demo2/__init__.py", "demo-1.0.data/data/etc/demo.conf", "other.libs/libone.so"),
        *("demo-1.0.data/headers/demo.h", "other-1.0.data/scripts/demo", "demo-1.0.data/loose"),
        *("other-1.0.data/purelib/demo/x.py", "demo.json.py"),
    ],
)
def test_a_file_outside_the_package_is_refused(wheel: Wheel, name: str) -> None:
    """should refuse it unless the rules name it"""
    wheel.files[name] = "content"
    assert "outside the package" in refused(wheel)


def test_another_package_is_accepted_if_the_rules_say_so(wheel: Wheel) -> None:
    """should accept it for this wheel only"""
    wheel.files["other/__init__.py"] = ""
    check_wheels([wheel.write()], WheelRules(installs={"Demo": ("other",)}), print)
    refused(wheel, rules=WheelRules(installs={"third": ("other",)}))


@pytest.mark.parametrize("name", ["json/__init__.py", "ssl.py", "_ssl.so"])
def test_a_module_that_replaces_pythons_own_is_refused(wheel: Wheel, name: str) -> None:
    """should refuse it even if the rules name it: the image's packages are imported first"""
    wheel.files[name] = ""
    top = name.partition("/")[0].partition(".")[0]
    rules = WheelRules(installs={"demo": (top,)})
    assert f"replace Python's own {top}" in refused(wheel, rules=rules)


@pytest.mark.parametrize("name", ["../x.py", "/etc/x", "demo/../../x", "demo\\x.py", "C:/x.py"])
def test_a_path_out_of_the_folder_is_refused(wheel: Wheel, name: str) -> None:
    """should refuse it whatever the installer would do with it"""
    wheel.files[name] = ""
    assert "leads out" in refused(wheel)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (stat.S_IFREG | 0o4755, "set-user-id"),
        (stat.S_IFREG | 0o2755, "set-group-id"),
        (stat.S_IFLNK | 0o777, "neither a file nor a folder"),
        (stat.S_IFCHR | 0o666, "neither a file nor a folder"),
    ],
)
def test_a_special_file_is_refused(wheel: Wheel, mode: int, said: str) -> None:
    """should refuse it by its mode"""
    wheel.modes["demo/__init__.py"] = mode
    assert said in refused(wheel)


def test_a_file_that_differs_from_its_record_is_refused(wheel: Wheel) -> None:
    """should refuse it: the publisher's RECORD does not have it"""
    wheel.record_says["demo/__init__.py"] = "sha256=" + "A" * 43
    assert "demo/__init__.py: is not the file" in refused(wheel)


@pytest.mark.parametrize("says", ["", "md5=1B2M2Y8AsgTpgAmY7PhCfg", "sha256=%%%"])
def test_a_weak_or_missing_hash_is_refused(wheel: Wheel, says: str) -> None:
    """should not count as a matching hash"""
    wheel.record_says["demo/__init__.py"] = says
    assert "is not the file" in refused(wheel)


def test_a_file_that_is_not_recorded_is_refused(wheel: Wheel) -> None:
    """should refuse it: it was added after the wheel was made"""
    wheel.files["demo/late.py"] = HOOK
    wheel.unrecorded.add("demo/late.py")
    assert "demo/late.py: is not in the wheel's RECORD" in refused(wheel)


def test_a_recorded_file_that_is_missing_is_refused(wheel: Wheel, tmp_path: Path) -> None:
    """should refuse it: the file was removed after the wheel was made"""
    wheel.files["demo/gone.py"] = ""
    whole = wheel.write()
    less = tmp_path / "less"
    less.mkdir()
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(less / whole.name, "w") as new:
        for entry in old.infolist():
            if entry.filename != "demo/gone.py":
                new.writestr(entry, old.read(entry))
    with pytest.raises(PermanentError, match=r"demo/gone\.py: is in the wheel's RECORD only"):
        check_wheels([less / whole.name], WheelRules(), print)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_duplicate_name_is_refused(wheel: Wheel) -> None:
    """should refuse it: programs differ in which of the two files they install"""
    with zipfile.ZipFile(wheel.write(), "a") as archive:
        archive.writestr("demo/__init__.py", HOOK)
    with pytest.raises(PermanentError, match="more than once"):
        check_wheels([wheel.path], WheelRules(), print)


def test_two_wheels_with_the_same_file_are_refused(tmp_path: Path) -> None:
    """should name both: one would overwrite the other"""
    one, two = Wheel(tmp_path, "one"), Wheel(tmp_path, "two")
    two.files["one/__init__.py"] = HOOK
    rules = WheelRules(installs={"two": ("one",)})
    said = refused(one, two, rules=rules)
    assert f"{two.path.name}: one/__init__.py: {one.path.name} brings it too" in said


@pytest.mark.parametrize("info", ["demo-2.0.dist-info", "other-1.0.dist-info", "demo.dist-info"])
def test_the_metadata_of_another_release_is_refused(wheel: Wheel, info: str) -> None:
    """should refuse it: the file's name and its metadata differ"""
    wheel.files[f"{info}/METADATA"] = wheel.files.pop(f"{wheel.info}/METADATA")
    wheel.info = info
    assert "not the metadata of this one release" in refused(wheel)


def test_a_file_that_is_no_archive_is_refused(wheel: Wheel) -> None:
    """should report it like any other fault"""
    wheel.path.write_bytes(b"no archive")
    with pytest.raises(PermanentError, match="cannot be read"):
        check_wheels([wheel.path], WheelRules(), print)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("installs: [attr]", "installs"),
        ("hooks: {}", "hooks"),
        ("startup_hooks: {demo: {x.pth: ''}}", "startup_hooks.demo.x.pth"),
        ("installs: {", "not the rules"),
    ],
)
def test_faulty_rules_are_refused(text: str, said: str, tmp_path: Path) -> None:
    """should name file and field"""
    path = tmp_path / "wheels.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=r"wheels\.yaml") as caught:
        load_wheel_rules(path)
    assert said in caught.value.message


def test_the_projects_rules_can_be_read() -> None:
    """should allow no start-up hook today"""
    assert not load_wheel_rules(WHEEL_RULES_PATH).startup_hooks
