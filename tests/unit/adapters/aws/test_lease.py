"""At most one run holds a lab; a dead run frees it within a minute, a living run keeps it."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from adapters.aws.lease import (
    LEASE_SECONDS,
    RENEW_SECONDS,
    LabHeldError,
    LeaseLostError,
    lease_key,
)
from lab.errors import TransientError
from tests.unit.adapters.aws.fake_lease import KEY, Setting

FAR = 1e9


@pytest.fixture
def at() -> Setting:
    return Setting()


def test_a_free_lab_is_held_within_the_block(at: Setting) -> None:
    """should hold it at once, and give it back"""
    assert at.held_by is None
    with at.hold("mine"):
        assert at.held_by == "mine"
        assert at.clock.now == 1000.0
    assert at.held_by is None
    with at.hold("next"):
        assert at.held_by == "next"


@pytest.mark.parametrize("before", [None, b'{"holder": null}'])
def test_of_two_takers_one_wins(at: Setting, before: bytes | None) -> None:
    """should not overwrite a run that was faster between its read and its write"""
    if before:
        at.store.objects[KEY] = before

    def faster() -> None:
        at.store.before = lambda: None
        at.renewing("other")

    at.store.before = faster
    with pytest.raises(LabHeldError), at.hold("mine"):
        pytest.fail("both hold the lab")
    assert at.held_by == "other"


def test_without_patience_the_holder_is_named(at: Setting) -> None:
    """should refuse as soon as the holder renews, and say which run it is and what it does"""
    at.renewing("other")
    with pytest.raises(LabHeldError) as caught, at.hold("mine"):
        pytest.fail("held by two")
    assert caught.value.holder == at.holder("other")
    said = "lab demo is held by lab-up (run other on here, since 2030-01-31T12:00:00Z)"
    assert caught.value.message == said
    assert at.clock.now - 1000 < RENEW_SECONDS + 5
    assert at.held_by == "other"


def test_patience_ends(at: Setting) -> None:
    """should wait for the given time, and log once which run it waits for"""
    at.renewing("other")
    with pytest.raises(LabHeldError), at.hold("mine", patience=300):
        pytest.fail("held by two")
    assert 300 <= at.clock.now - 1000 < 305
    assert len([line for line in at.said if "is held by" in line]) == 1


def test_a_lab_that_is_given_back_is_taken(at: Setting) -> None:
    """should take the lab when it is given back"""
    at.renewing("other")
    renew = at.clock.meanwhile

    def give_back() -> None:
        renew()
        if at.clock.now >= 1200:
            at.store.objects[KEY] = b'{"holder": null}'

    at.clock.meanwhile = give_back
    with at.hold("mine", patience=300):
        assert at.held_by == "mine"
        assert 1200 <= at.clock.now < 1205


@pytest.mark.parametrize("patience", [0.0, FAR])
def test_a_dead_holder_frees_the_lab_in_a_minute(at: Setting, patience: float) -> None:
    """should take over after a minute of silence, not before, also without patience"""
    at.put("dead", renewals=7)
    with at.hold("mine", patience=patience):
        assert at.held_by == "mine"
        assert LEASE_SECONDS <= at.clock.now - 1000 < LEASE_SECONDS + 5
    assert any("taking lab demo over from lab-up (run dead" in line for line in at.said)


def test_the_minute_counts_from_the_last_sign_of_life(at: Setting) -> None:
    """should start again with each renewal of the holder"""
    at.renewing("other")
    renew = at.clock.meanwhile
    at.clock.meanwhile = lambda: renew() if at.clock.now < 1500 else None
    with at.hold("mine", patience=FAR):
        # The last renewal can be up to one period older than the holder's death.
        assert 1500 - RENEW_SECONDS + LEASE_SECONDS <= at.clock.now < 1505 + LEASE_SECONDS


def test_a_renewing_holder_is_never_taken_over(at: Setting) -> None:
    """should wait for hours while the other run lives"""
    at.renewing("other")
    with pytest.raises(LabHeldError), at.hold("mine", patience=7200):
        pytest.fail("taken from a run that lives")
    assert at.held_by == "other"


def test_a_takeover_needs_a_successful_write(at: Setting) -> None:
    """should not overwrite another run that took over the dead run's lab first"""
    at.put("dead")

    def faster() -> None:
        at.store.before = lambda: None
        at.renewing("faster")

    at.store.before = faster
    with pytest.raises(LabHeldError) as caught, at.hold("mine"):
        pytest.fail("held by two")
    assert caught.value.holder.run == "faster"


def test_a_holder_renews(at: Setting) -> None:
    """should change the object with every renewal, which shows other runs that it lives"""
    with at.hold("mine", renew_every=0.001):
        seen = set()
        for _ in range(4):
            at.store.until_writes(1)
            seen.add(at.store.objects[KEY])
            assert at.held_by == "mine"
        assert len(seen) >= 4
    assert at.held_by is None
    assert not at.lost.is_set()


def test_a_lost_lease_fails_the_run(at: Setting) -> None:
    """should stop the work and fail, and leave the lease to the run that has it now"""
    with pytest.raises(LeaseLostError, match="lab demo"), at.hold("mine", renew_every=0.001):  # noqa: PT012
        at.put("other")
        assert at.lost.wait(10)
    assert at.held_by == "other"


def test_a_lease_that_is_gone_is_lost(at: Setting) -> None:
    """should not go on if somebody has removed the object"""
    with pytest.raises(LeaseLostError), at.hold("mine", renew_every=0.001):  # noqa: PT012
        with at.store.changed:
            del at.store.objects[KEY]
        assert at.lost.wait(10)
    assert at.held_by is None


def test_the_blocks_own_failure_wins(at: Setting) -> None:
    """should raise the work's own error, not the loss of the lease"""
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError),
        at.hold("mine", renew_every=0.001),
    ):
        at.put("other")
        assert at.lost.wait(10)
        raise ZeroDivisionError


def refused() -> None:
    raise TransientError("the store is away")


@pytest.mark.parametrize("raises", [True, False])
def test_a_renewal_whose_answer_was_lost_keeps_the_lease(at: Setting, raises: bool) -> None:
    """should find out that the renewal was written, and go on"""

    def lose(etag: str | None) -> str | None:
        at.store.after = lambda etag: etag
        if raises:
            raise TransientError("the answer was lost")
        return None

    with at.hold("mine", renew_every=0.001):
        at.store.after = lose
        at.store.until_writes(5)
        assert at.held_by == "mine"
    assert not at.lost.is_set()
    assert at.held_by is None


def test_it_waits_for_an_unreachable_store(at: Setting) -> None:
    """should keep the lease as long as nobody can take it over"""
    with at.hold("mine", renew_every=0.001):
        at.store.before = refused
        at.clock.now += LEASE_SECONDS - 1
        at.store.until_writes(3)
        assert not at.lost.is_set()
        at.store.before = lambda: None
        at.store.until_writes(2)
    assert not at.lost.is_set()
    assert at.held_by is None


def test_it_waits_if_a_rejected_renewal_cannot_be_checked(
    at: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should not take a failed read for another run's lease"""
    reads: list[str] = []

    def away(key: str) -> None:
        reads.append(key)
        monkeypatch.undo()
        refused()

    def lose(etag: str | None) -> None:
        at.store.after = lambda etag: etag

    with at.hold("mine", renew_every=0.001):
        monkeypatch.setattr(at.store, "read", away)
        at.store.after = lose
        at.store.until_writes(5)
    assert reads
    assert not at.lost.is_set()


def test_a_store_that_stays_unreachable_ends_the_work(at: Setting) -> None:
    """should have ended the work before other runs take over"""
    every = 0.02
    with pytest.raises(LeaseLostError), at.hold("mine", renew_every=every):  # noqa: PT012
        at.store.before = refused
        at.clock.now += LEASE_SECONDS - every / 2
        assert at.lost.wait(10)


def test_a_slow_renewal_counts_from_its_beginning(at: Setting) -> None:
    """should not count on more time than other runs grant it"""
    slow = threading.Event()

    def took_long(etag: str | None) -> str | None:
        at.clock.now += LEASE_SECONDS - 10
        at.store.after = lambda etag: etag
        at.store.before = refused
        slow.set()
        return etag

    with pytest.raises(LeaseLostError), at.hold("mine", renew_every=0.001):  # noqa: PT012
        at.store.after = took_long
        assert slow.wait(10)
        at.clock.now += 10
        assert at.lost.wait(10)


def test_given_back_when_the_work_fails(at: Setting) -> None:
    """should not make the next run wait for a minute"""
    with suppress(ZeroDivisionError), at.hold("mine"):
        raise ZeroDivisionError
    assert at.held_by is None


def test_only_an_own_lease_is_given_back(at: Setting) -> None:
    """should not free the lab if another run has taken over unnoticed"""
    with at.hold("mine"):
        at.put("other")
    assert at.held_by == "other"


def test_a_lease_that_cannot_be_given_back_fails_nothing(at: Setting) -> None:
    """should log it and go on: the lease ends by itself"""
    with at.hold("mine"):
        at.store.before = refused
    assert any("could not be given back" in line for line in at.said)


def test_the_same_run_may_take_it_again(at: Setting) -> None:
    """should not make a retry wait for the lease of its own first try"""
    at.put("mine", renewals=3)
    with at.hold("mine"):
        assert at.clock.now == 1000.0
        assert at.held_by == "mine"
    assert at.held_by is None


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff", b"nonsense", b"null", b"[]", b"{}", b'{"holder": 3}', b'{"holder": {"run": 1}}'],
)
def test_an_unreadable_lease_is_free(at: Setting, garbage: bytes) -> None:
    """should not be locked out forever by an object with unknown content"""
    at.store.objects[KEY] = garbage
    assert at.held_by is None
    with at.hold("mine"):
        assert at.held_by == "mine"


def test_a_later_versions_holder_is_understood(at: Setting) -> None:
    """should not take a held lab because of a field that it does not know"""
    known = at.holder("other").model_dump_json()[:-1]
    at.store.objects[KEY] = f'{{"holder": {known}, "more": 1}}, "version": 2}}'.encode()
    assert at.held_by == "other"


def test_labs_do_not_hold_each_other(at: Setting) -> None:
    """should be one lease a lab, outside the objects that a teardown removes"""
    assert lease_key("demo") != lease_key("demo-2")
    assert not KEY.startswith("labs/")


def test_never_two_at_once(at: Setting) -> None:
    """should let many runs have the lab, one after another"""
    inside: list[str] = []
    most: list[int] = []
    failed: list[BaseException] = []

    def pause(_: float) -> None:
        with at.store.changed:
            at.store.changed.wait(0.02)

    def work(number: int) -> None:
        try:
            for turn in range(3):
                run = f"{number}-{turn}"
                with at.hold(run, patience=FAR, renew_every=0.002, sleep=pause):
                    inside.append(run)
                    most.append(len(inside))
                    assert at.held_by == run
                    at.store.until_writes(2)
                    most.append(len(inside))
                    inside.remove(run)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert len(most) == 2 * 3 * 10
    assert set(most) == {1}
