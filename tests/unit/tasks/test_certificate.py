"""A lab's certificate through the ups of its life: interrupted at any point, and repeated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lab import names
from lab.certificate import Certificate
from lab.errors import PermanentError
from lab.record import LabRecord
from lab.settings import Settings
from tasks import certificate
from tests.unit.tasks.sites import FakeSite, MemoryBucket

SETTINGS = Settings()


class World(MemoryBucket):
    """The parts of the cloud that a certificate needs: the bucket's record, and the secrets."""

    def __init__(self) -> None:
        self.made = datetime.now(UTC).replace(microsecond=0)
        super().__init__(LabRecord(lab="demo", created_at=self.made, expires_at=self.made))
        self.secrets: dict[str, str] = {}
        self.doomed: set[str] = set()
        self.said: list[str] = []

    def certify(self, settings: Settings = SETTINGS) -> Certificate:
        site = FakeSite(settings, bucket=self, secrets=Manager(self))
        return certificate.certify("demo", site)

    def applied(self, made: Certificate) -> None:
        """Terraform's effect on it."""
        self.secrets[names.tls_secret("demo")] = made.pem

    def up(self) -> Certificate:
        made = self.certify()
        self.applied(made)
        return made


class Manager:
    """Secrets Manager, whose secrets in deletion can be restored but not read."""

    def __init__(self, world: World) -> None:
        self._world = world

    def read(self, name: str) -> str | None:
        return None if name in self._world.doomed else self._world.secrets.get(name)

    def restore(self, name: str) -> bool:
        doomed = name in self._world.doomed
        self._world.doomed.discard(name)
        return doomed


@pytest.fixture
def world(logged: list[str]) -> World:
    made = World()
    made.said = logged
    return made


def test_the_first_up_makes_one_for_the_longest_life(world: World) -> None:
    """should give callers the authority before the gateway runs, and show the key nowhere"""
    made = world.certify()
    assert world.record("demo").trust == made.trust
    assert made.trust.not_after >= world.made + SETTINGS.longest_life + SETTINGS.stop_grace
    assert "PRIVATE" not in str(world.objects)
    assert "PRIVATE" not in "".join(world.said)


def test_another_up_keeps_it(world: World) -> None:
    """should neither write a record nor make callers fetch another authority"""
    made = world.up()
    before = dict(world.objects)
    assert world.up() == made
    assert world.up() == made
    assert world.objects == before


def test_the_next_up_repairs_a_crash_before_terraform(world: World) -> None:
    """should not trust a certificate that never reached the cloud"""
    lost = world.certify()
    made = world.up()
    assert made.pem != lost.pem
    assert made.trust.version > lost.trust.version
    assert world.record("demo").trust == made.trust
    assert world.up() == made


def test_while_terraform_is_retried_the_running_task_can_be_called(world: World) -> None:
    """should keep trust in the old task through any number of tries"""
    old = world.up()
    longer = Settings(longest_life=SETTINGS.longest_life + timedelta(days=9))
    for _ in range(3):
        new = world.certify(longer)
        trust = world.record("demo").trust
        assert trust is not None
        assert trust.ca.endswith(old.trust.ca)
        assert trust.ca.count("BEGIN") == 2
    world.applied(new)
    assert world.certify(longer) == new


@pytest.mark.parametrize("value", [None, "garbage"])
def test_a_lost_secret_is_replaced(world: World, value: str | None) -> None:
    """should make another if the cloud's is gone or is not the lab's"""
    old = world.up()
    world.secrets.clear()
    if value:
        world.secrets[names.tls_secret("demo")] = value
    made = world.up()
    assert made.pem != old.pem
    assert old.trust.ca in made.trust.ca
    assert world.up() == made


def test_secrets_that_wait_for_their_deletion_are_kept(world: World) -> None:
    """should restore both, and with them the certificate that they have"""
    made = world.up()
    both = {names.key_secret("demo"), names.tls_secret("demo")}
    world.doomed |= both
    assert world.up() == made
    assert world.doomed == set()
    assert {line.split()[2] for line in world.said if "kept" in line} == both


def test_a_lab_without_a_record_gets_none(world: World) -> None:
    """should make nothing that no later run would find"""
    world.objects.clear()
    with pytest.raises(PermanentError, match="no lab demo"):
        world.certify()
