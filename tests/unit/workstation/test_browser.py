"""A browser and Node are found, or installed as root, or the error says what to install."""

from __future__ import annotations

import os
import shutil

import pytest

from adapters import process
from lab.errors import PermanentError, TransientError
from workstation import packages
from workstation.browser import ensure_browser
from workstation.node import ensure_node


class Machine:
    """The programs on PATH, the user, and the behaviour of apt-get."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs: set[str] = set()
        self.ran: list[list[str]] = []
        self.brings: set[str] = {"chromium"}
        self.fails = ""
        monkeypatch.setattr(
            shutil, "which", lambda name: f"/usr/bin/{name}" if name in self.programs else None
        )
        monkeypatch.setattr(packages, "run_child", self._run)

    def _run(self, argv: list[str], **_: object) -> process.Finished:
        self.ran.append(argv)
        if "install" in argv and not self.fails:
            self.programs |= self.brings
        return process.Finished(100 if self.fails else 0, "", self.fails)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Machine(monkeypatch)


def test_an_installed_browser_is_used(machine: Machine) -> None:
    """should use an installed browser and install nothing"""
    machine.programs = {"google-chrome"}
    assert ensure_browser(print) == "/usr/bin/google-chrome"
    assert machine.ran == []


def test_debians_browser_is_installed_by_root(machine: Machine) -> None:
    """should install Debian's package, and log it"""
    machine.programs = {"apt-get"}
    said: list[str] = []
    assert ensure_browser(said.append) == "/usr/bin/chromium"
    assert [argv[1] for argv in machine.ran] == ["update", "install"]
    assert said == ["Installing chromium with apt-get"]


def test_without_root_the_error_says_what_to_install(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should change nothing and name the package"""
    machine.programs = {"apt-get"}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermanentError, match="apt-get install chromium"):
        ensure_browser(print)
    assert machine.ran == []


def test_without_apt_the_browsers_are_named(machine: Machine) -> None:
    """should name the browsers that work"""
    with pytest.raises(PermanentError, match="Install Chromium or Google Chrome"):
        ensure_browser(print)


def test_apts_last_lines_are_in_the_error(machine: Machine) -> None:
    """should be worth another try, with apt-get's message"""
    machine.programs = {"apt-get"}
    machine.fails = "W: hm\nE: no such mirror\n"
    with pytest.raises(TransientError, match=r"apt-get update failed \(exit 100\): E: no such"):
        ensure_browser(print)


def test_a_package_without_a_browser_is_an_error(machine: Machine) -> None:
    """should not return a path that does not exist"""
    machine.programs = {"apt-get"}
    machine.brings = {"something-else"}
    with pytest.raises(PermanentError, match="brought none of chromium"):
        ensure_browser(print)


def test_missing_node_or_npm_is_installed(machine: Machine) -> None:
    """should install the missing one of the two, and nothing if both are there"""
    machine.programs = {"node", "npm"}
    assert ensure_node(print) == ("/usr/bin/node", "/usr/bin/npm")
    assert machine.ran == []
    machine.programs = {"node", "apt-get"}
    machine.brings = {"npm"}
    assert ensure_node(print) == ("/usr/bin/node", "/usr/bin/npm")
    assert [argv[-1] for argv in machine.ran] == ["--quiet=2", "npm"]


def test_without_node_the_packages_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should name the package to users who may not install it"""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermanentError, match="apt-get install nodejs"):
        ensure_node(print)
