"""A lab's certificate is trusted only for its own name, and is replaced only when it must be."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from lab.certificate import MARGIN, Certificate, Trust, make_certificate, renewed
from tests.unit.adapters.gateway.tls import image_program

NAME = "gateway-lab-demo.internal"
OTHER = "gateway-lab-other.internal"
AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
UNTIL = AT + timedelta(hours=72, minutes=15)
CONTEXT = image_program("serve").tls_context


def certificates(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def shake_hands(pem: str, ca: str, name: str) -> None:
    """A whole handshake in memory, as strict as in newer Pythons; raises the client's error."""
    client = ssl.create_default_context(cadata=ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        CONTEXT(pem).wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass


def fresh(name: str = NAME, hours: int = 72) -> Certificate:
    at = datetime.now(UTC)
    return make_certificate(name, at, at + timedelta(hours=hours))


def test_a_strict_client_trusts_it() -> None:
    """should pass OpenSSL's strict checks under its name, whatever the address"""
    made = fresh()
    shake_hands(made.pem, made.trust.ca, NAME)


@pytest.mark.parametrize("longest", ["gateway-lab-" + "a" * 20 + ".internal"])
def test_the_longest_name_fits(longest: str) -> None:
    """should be possible for every name that a lab can have"""
    made = fresh(longest)
    shake_hands(made.pem, made.trust.ca, longest)


def test_another_name_or_authority_is_refused() -> None:
    """should not be trusted by a client that asks for another lab or trusts another authority"""
    made, other = fresh(), fresh()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(made.pem, made.trust.ca, OTHER)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get"):
        shake_hands(made.pem, other.trust.ca, NAME)


def test_the_authority_can_sign_nothing_else() -> None:
    """should be limited to the one name and to leaves, and its key should be stored nowhere"""
    made = make_certificate(NAME, AT, UNTIL)
    (ca,) = certificates(made.trust.ca)
    constraints = ca.extensions.get_extension_for_class(x509.NameConstraints)
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [x509.DNSName(NAME)]
    assert basic.critical
    assert basic.value.path_length == 0
    assert made.pem.count("PRIVATE KEY-----") == 2
    assert "PRIVATE" not in made.trust.ca


def test_it_uses_p256_and_lasts_as_long_as_the_lab_can() -> None:
    """should begin early enough for slow clocks, and end after the longest life"""
    leaf, ca = certificates(make_certificate(NAME, AT, UNTIL).pem)
    for made in (leaf, ca):
        key = made.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
        assert made.not_valid_before_utc == AT - timedelta(minutes=5)
        assert made.not_valid_after_utc == UNTIL + MARGIN
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_key_is_not_shown() -> None:
    """should not get into a log through an error or a debugger"""
    made = make_certificate(NAME, AT, UNTIL)
    assert "PRIVATE" not in repr(made)


def test_a_good_certificate_is_kept() -> None:
    """should be kept to the last second of the time that it must cover"""
    made = make_certificate(NAME, AT, UNTIL)
    again = renewed(made.pem, made.trust, NAME, AT + timedelta(hours=5), UNTIL)
    assert again == made
    written = Trust.model_validate_json(made.trust.model_dump_json())
    assert renewed(made.pem, written, NAME, AT, UNTIL + MARGIN) == made


def held_by_another(made: Certificate, other: Certificate) -> str:
    """One certificate's leaf key with the certificates of another."""
    begin = "-----BEGIN CERTIFICATE-----"
    return other.pem.partition(begin)[0] + begin + made.pem.partition(begin)[2]


@pytest.mark.parametrize(
    "why",
    [
        *("nothing held", "nothing known", "too short", "another's key", "another's pem"),
        *("another name", "garbage", "no key", "no authority"),
    ],
)
def test_any_fault_makes_a_new_certificate(why: str) -> None:
    """should not leave a lab with a certificate that its callers would refuse"""
    made = make_certificate(NAME, AT, UNTIL)
    another = make_certificate(NAME, AT, UNTIL)
    begin = "-----BEGIN CERTIFICATE-----"
    held: str | None = made.pem
    known: Trust | None = made.trust
    until = UNTIL
    match why:
        case "nothing held":
            held = None
        case "nothing known":
            known = None
        case "too short":
            until = UNTIL + MARGIN + timedelta(seconds=1)
        case "another's key":
            held = held_by_another(made, another)
        case "another's pem":
            held = another.pem
        case "another name":
            of_other = make_certificate(OTHER, AT, UNTIL)
            held, known = of_other.pem, of_other.trust
        case "garbage":
            held = "-----BEGIN PRIVATE KEY-----"
        case "no key":
            held = begin + made.pem.partition(begin)[2]
        case "no authority":
            held = begin.join(made.pem.split(begin)[:2])
    later = AT + timedelta(minutes=1)
    new = renewed(held, known, NAME, later, until)
    assert new.pem not in (made.pem, another.pem)
    assert new.trust.version > (known.version if known else 0)
    assert certificates(new.pem)[1] == certificates(new.trust.ca)[0]
    assert certificates(new.pem)[0].not_valid_after_utc >= until
    assert renewed(new.pem, new.trust, NAME, later, until) == new


def test_versions_grow_within_a_second() -> None:
    """should make Terraform write each new certificate, even within the same second"""
    first = make_certificate(NAME, AT, UNTIL)
    second = renewed(None, first.trust, NAME, AT, UNTIL)
    third = renewed(None, second.trust, NAME, AT - timedelta(minutes=1), UNTIL)
    assert first.trust.version < second.trust.version < third.trust.version


def test_callers_keep_trusting_the_previous_task() -> None:
    """should let callers use the old task until the new one is ready, even after two crashed ups"""
    old = fresh()
    now = datetime.now(UTC)
    long = now + timedelta(days=9)
    crashed = renewed(old.pem, old.trust, NAME, now, long)
    new = renewed(old.pem, crashed.trust, NAME, now, long)
    for shown in (old, new):
        shake_hands(shown.pem, new.trust.ca, NAME)
    assert len(certificates(new.trust.ca)) == 2
    # After the secret was deleted, only the record has it.
    lost = renewed(None, new.trust, NAME, now, long)
    shake_hands(old.pem, lost.trust.ca, NAME)
    shake_hands(new.pem, lost.trust.ca, NAME)


def test_a_writer_of_the_secret_cannot_add_an_authority() -> None:
    """should trust no authority that this code did not make"""
    ours, theirs = fresh(), fresh()
    new = renewed(theirs.pem, ours.trust, NAME, datetime.now(UTC), datetime.now(UTC))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(theirs.pem, new.trust.ca, NAME)
    shake_hands(ours.pem, new.trust.ca, NAME)


def test_an_expired_authority_is_removed() -> None:
    """should not keep certificates that no client accepts"""
    old = make_certificate(NAME, AT, UNTIL)
    late = UNTIL + timedelta(days=2)
    new = renewed(old.pem, old.trust, NAME, late, late)
    assert len(certificates(new.trust.ca)) == 1
