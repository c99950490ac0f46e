"""``lab-allow``: a request that changes nothing is refused before the firewall changes."""

from __future__ import annotations

import pytest

from flows.lab_allow import lab_allow
from lab.errors import InvalidInputError
from tests.flows.recorder import Story

HOST, OTHER = "8.8.4.4/32", "8.8.8.8/32"


def test_the_story_of_an_allow(story: Story) -> None:
    """should change the firewall while it holds the lab"""
    lab_allow.fn("demo", add=[HOST], remove=[OTHER])
    assert story.names == ["find_site", "hold_lease", "change_allowed", "release_lease"]
    change = story.only("change_allowed")
    assert (change["lab"], change["add"], change["remove"]) == ("demo", [HOST], [OTHER])
    assert story.only("hold_lease")["doing"] == "lab-allow"


@pytest.mark.parametrize("given", [{"add": [HOST]}, {"remove": [HOST]}])
def test_hosts_to_add_or_to_remove_are_enough(story: Story, given: dict[str, list[str]]) -> None:
    """should leave the other list empty"""
    lab_allow.fn("demo", **given)
    change = story.only("change_allowed")
    assert {"add": change["add"], "remove": change["remove"]} == {"add": [], "remove": [], **given}


@pytest.mark.parametrize(
    "given", [{}, {"add": [], "remove": []}, {"add": [HOST], "remove": [HOST]}]
)
def test_a_request_that_changes_nothing_is_refused_first(
    story: Story, given: dict[str, list[str]]
) -> None:
    """should not even open the site"""
    with pytest.raises(InvalidInputError):
        lab_allow.fn("demo", **given)
    assert story.calls == []


def test_it_waits_for_other_runs(story: Story) -> None:
    """should change the firewall after they have ended"""
    story.hold("demo", "lab-allow")
    lab_allow.fn("demo", add=[HOST])
    story.assert_order("wait_for_holder", "hold_lease", "change_allowed")
