"""A lab's certificate: the lab's own authority signs one leaf, and its key is not kept. Pure.

A task's public address is unknown before it runs and changes when Spot takes it back, so the leaf
carries a name (:func:`lab.names.tls_name`) and callers pin the authority. This module writes
nothing: the caller gives the PEM to Terraform, which stores it in Secrets Manager.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import BaseModel, ConfigDict, field_serializer

from lab.durations import to_rfc3339

#: For clocks that are behind this machine's.
SKEW = timedelta(minutes=5)
#: Added to the longest life: a lab may still be called until it is destroyed.
MARGIN = timedelta(days=1)


class Trust(BaseModel):
    """What callers need to recognise the gateway; all of it is public. Times are UTC.

    ``ca`` is PEM: the authority of the present certificate, and after it those that an older task
    may still present. ``version`` grows with each new certificate.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    ca: str
    version: int
    not_after: datetime

    @field_serializer("not_after")
    def _rfc3339(self, moment: datetime) -> str:
        return to_rfc3339(moment)


@dataclass(frozen=True)
class Certificate:
    """A certificate for the gateway, and the trust for its callers. ``pem`` has the private key."""

    pem: str = field(repr=False)
    trust: Trust


def make_certificate(name: str, at: datetime, until: datetime, *, after: int = 0) -> Certificate:
    """A new authority and its one leaf for ``name``, valid from shortly before ``at``.

    Valid at least until ``until``, with a version above ``after``. The authority's key is not
    returned, so it is gone. ``pem`` is the leaf's key, the leaf and the authority.
    """
    version = max(int((at - SKEW).timestamp()), after + 1)
    begins = datetime.fromtimestamp(version, UTC)
    ends = (until + MARGIN).astimezone(UTC).replace(microsecond=0)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {name}")])
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), begins, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName(name)], None), critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        _builder(
            ca_name,
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            key.public_key(),
            begins,
            ends,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    ca_pem = _text(ca)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Certificate(
        pem=f"{private}{_text(leaf)}{ca_pem}",
        trust=Trust(ca=ca_pem, version=version, not_after=ends),
    )


def renewed(
    held: str | None, known: Trust | None, name: str, at: datetime, until: datetime
) -> Certificate:
    """The lab's certificate from now on: ``held`` with ``known`` if still good, else a new one.

    ``held`` is the PEM in Secrets Manager, ``known`` is in the lab's record. A new certificate
    comes with trust in the old authority too: the old task serves until the next one is ready, and
    stays if that one fails.
    """
    if held and known and _will_do(held, known, name, until):
        return Certificate(pem=held, trust=known)
    made = make_certificate(name, at, until, after=known.version if known else 0)
    trusted = _certificates(known.ca if known else "")
    # A task presents what the cloud holds; the record may be one step ahead. An authority that is
    # only in the cloud is not trusted.
    shown = [ca for ca in _certificates(held or "")[1:] if ca in trusted]
    still = "".join(_text(ca) for ca in shown or trusted if ca.not_valid_after_utc > at)
    trust = made.trust.model_copy(update={"ca": made.trust.ca + still})
    return Certificate(pem=made.pem, trust=trust)


def _will_do(held: str, known: Trust, name: str, until: datetime) -> bool:
    """Whether ``held`` is a key with a leaf for ``name`` by ``known``'s authority, to ``until``."""
    chain, trusted = _certificates(held), _certificates(known.ca)
    if len(chain) != 2 or not trusted or chain[1] != trusted[0]:
        return False
    leaf, ca = chain
    try:
        key = load_pem_private_key(held.encode(), None)
        leaf.verify_directly_issued_by(ca)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        key.public_key() == leaf.public_key()
        and names.get_values_for_type(x509.DNSName) == [name]
        and leaf.not_valid_after_utc >= until
    )


def _certificates(pem: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return []


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
