"""The hosts that a live lab lets in: by hand, and as the deployer moves."""

from __future__ import annotations

import sys

from lab import names
from tests.observe import artifacts
from tests.shared_lab import LAB, SharedLab
from workstation.targets import target_environment


def test_a_host_is_let_in_and_shut_out_without_another_task(live: SharedLab) -> None:
    """should change the firewall and the record alone, as often as it is asked for."""
    task, own = live.task().arn, live.allowed()
    for _ in range(2):
        ended = live.run("lab-allow", add=["8.8.4.4"])
        assert ended.code == 0, ended.said
        assert live.allowed() == live.record()["cidrs"] == [*own, "8.8.4.4/32"]
    ended = live.run("lab-allow", remove=["8.8.4.4"])
    assert ended.code == 0, ended.said
    assert live.allowed() == live.record()["cidrs"] == own
    nobody = live.run("lab-allow", remove=own)
    assert nobody.code != 0
    assert live.allowed() == live.record()["cidrs"] == own
    assert live.task().arn == task


def test_the_firewall_follows_the_deployer_where_that_is_wished(live: SharedLab) -> None:
    """should move the deployer's own rule, tell of it, and leave the hosts that somebody gave."""
    task, (own,) = live.task().arn, live.allowed()
    assert live.run("lab-allow", add=["8.8.4.4"]).code == 0
    _watch_from(live, "198.51.100.7", follow=False)
    assert live.allowed() == sorted([own, "8.8.4.4/32"])
    _watch_from(live, "198.51.100.7", follow=True)
    assert live.allowed() == ["198.51.100.7/32", "8.8.4.4/32"]
    assert live.record()["deployer"] == "198.51.100.7/32"
    # The scheduled watch, which does not follow, may have published meanwhile.
    published = artifacts(names.artifact_key(LAB, "endpoint"))
    assert any(f"at {own} before" in text for text in published)
    _watch_from(live, own.removesuffix("/32"), follow=True)
    assert live.run("lab-allow", remove=["8.8.4.4"]).code == 0
    assert live.allowed() == [own]
    assert live.task().arn == task


def _watch_from(live: SharedLab, address: str, *, follow: bool) -> None:
    """Run a watch of the lab, as if the deployer were at ``address``."""
    settings = {
        **target_environment("local"),
        "LAB_DEPLOYER_ADDRESS": address,
        "LAB_FOLLOW_ADDRESS": str(follow),
    }
    code = f"from flows.lab_watch import lab_watch; lab_watch(lab={LAB!r})"
    assigned = [f"{name}={value}" for name, value in settings.items()]
    ended = live.stack.command(["env", *assigned, sys.executable, "-c", code])
    assert ended.code == 0, ended.said
