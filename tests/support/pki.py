"""A small certificate authority for tests: real keys, real DER, nothing shared with the code under test.

root = authority("Root")
sub = root.sub("Issuing")
alice = sub.issue("alice@example.test", crl_urls=["http://…"])
crl = sub.crl(revoked=[alice])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from postseal.core.certs import Certificate, load_certificate

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
_CURVES = {
    "p256": ec.SECP256R1,
    "p384": ec.SECP384R1,
    "p521": ec.SECP521R1,
    "bp256": ec.BrainpoolP256R1,
    "bp384": ec.BrainpoolP384R1,
    "bp512": ec.BrainpoolP512R1,
}


@cache
def key(kind: str = "rsa2048", slot: object = 0) -> Any:
    """A private key, made once per (kind, slot): rsaNNNN, p256, p384, p521, bp256, bp384, bp512, ed25519 or x25519."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind[3:]))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "x25519":
        return x25519.X25519PrivateKey.generate()
    return ec.generate_private_key(_CURVES[kind]())


def hash_for(private_key: Any) -> Any:
    return None if isinstance(private_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def name(common_name: str, **more: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if "email" in more:
        attributes.append(x509.NameAttribute(NameOID.EMAIL_ADDRESS, more["email"]))
    return x509.Name(attributes)


def usage(*bits: str) -> x509.KeyUsage:
    fields = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
              "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{f: f in bits for f in fields})


@dataclass
class Leaf:
    """An end entity: its certificate and key."""

    certificate: Certificate
    key: Any = field(repr=False)

    @property
    def pem(self) -> bytes:
        return self.certificate.x509.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@dataclass
class Authority(Leaf):
    """A CA. ``sub`` makes a CA below it, ``issue`` an end entity, ``crl`` a CRL."""

    subject: x509.Name
    serials: int = 100

    def _sign(
        self,
        subject: x509.Name,
        public_key: Any,
        extensions: Iterable[tuple[x509.ExtensionType, bool]],
        *,
        not_before: datetime,
        not_after: datetime,
        serial: int | None = None,
        hash_algorithm: Any = "default",
    ) -> Certificate:
        self.serials += 1
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(public_key)
            .serial_number(serial or self.serials)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        algorithm = hash_for(self.key) if hash_algorithm == "default" else hash_algorithm
        der = builder.sign(self.key, algorithm).public_bytes(serialization.Encoding.DER)
        return load_certificate(der)

    def sub(
        self,
        common_name: str,
        *,
        kind: str = "rsa2048",
        path_length: int | None = None,
        crl_urls: Sequence[str] = (),
        ocsp_urls: Sequence[str] = (),
        not_before: datetime = NOW - 400 * DAY,
        not_after: datetime = NOW + 2000 * DAY,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> Authority:
        private = key(kind, ("ca", common_name))
        extensions = [
            (x509.BasicConstraints(ca=True, path_length=path_length), True),
            (usage("key_cert_sign", "crl_sign"), True),
            (x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
            *pointers(crl_urls, ocsp_urls),
            *extra,
        ]
        certificate = self._sign(
            name(common_name), private.public_key(), extensions, not_before=not_before, not_after=not_after
        )
        return Authority(certificate, private, name(common_name))

    def issue(
        self,
        address: str | None,
        *,
        kind: str = "rsa2048",
        slot: object = 0,
        common_name: str | None = None,
        crl_urls: Sequence[str] = (),
        ocsp_urls: Sequence[str] = (),
        key_usage: x509.KeyUsage | str | None = "default",
        eku: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.EMAIL_PROTECTION,),
        not_before: datetime = NOW - 30 * DAY,
        not_after: datetime = NOW + 335 * DAY,
        serial: int | None = None,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        hash_algorithm: Any = "default",
    ) -> Leaf:
        """``address`` None makes a certificate without subjectAltName."""
        private = key(kind, ("leaf", slot))
        if key_usage == "default":
            key_usage = usage("digital_signature", "key_encipherment" if kind.startswith("rsa") else "key_agreement")
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
            *pointers(crl_urls, ocsp_urls),
            *extra,
        ]
        if address is not None:
            extensions.append((x509.SubjectAlternativeName([x509.RFC822Name(address)]), False))
        if isinstance(key_usage, x509.KeyUsage):
            extensions.append((key_usage, True))
        if eku is not None:
            extensions.append((x509.ExtendedKeyUsage(list(eku)), False))
        certificate = self._sign(
            name(common_name or address or "leaf"), private.public_key(), extensions,
            not_before=not_before, not_after=not_after, serial=serial, hash_algorithm=hash_algorithm,
        )  # fmt: skip
        return Leaf(certificate, private)

    def crl(
        self,
        revoked: Sequence[Leaf | int] = (),
        *,
        this_update: datetime = NOW - HOUR,
        next_update: datetime = NOW + 7 * DAY,
        number: int | None = 1,
        reason: x509.ReasonFlags | None = x509.ReasonFlags.key_compromise,
        revoked_at: datetime = NOW - DAY,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """DER of a CRL signed by this CA."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.subject)
            .last_update(this_update)
            .next_update(next_update)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical)
        for entry in revoked:
            serial = entry if isinstance(entry, int) else entry.certificate.serial
            item = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(revoked_at)
            if reason is not None:
                item = item.add_extension(x509.CRLReason(reason), False)
            builder = builder.add_revoked_certificate(item.build())
        return builder.sign(self.key, hash_for(self.key)).public_bytes(serialization.Encoding.DER)


def pointers(crl_urls: Sequence[str], ocsp_urls: Sequence[str]) -> list[tuple[x509.ExtensionType, bool]]:
    """CRL distribution points (one per URL) and AIA OCSP entries."""
    found: list[tuple[x509.ExtensionType, bool]] = []
    if crl_urls:
        uris = [x509.UniformResourceIdentifier(u) for u in crl_urls]
        found.append((x509.CRLDistributionPoints([x509.DistributionPoint([u], None, None, None) for u in uris]), False))
    if ocsp_urls:
        entries = [
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(u))
            for u in ocsp_urls
        ]
        found.append((x509.AuthorityInformationAccess(entries), False))
    return found


def authority(
    common_name: str,
    *,
    kind: str = "rsa2048",
    not_before: datetime = NOW - 400 * DAY,
    not_after: datetime = NOW + 3000 * DAY,
) -> Authority:
    """A self-signed root."""
    private = key(kind, ("ca", common_name))
    subject = name(common_name)
    extensions = [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (usage("key_cert_sign", "crl_sign"), True),
        (x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False),
    ]
    blank = Authority(Certificate(b"", None), private, subject)  # type: ignore[arg-type]
    certificate = blank._sign(subject, private.public_key(), extensions, not_before=not_before, not_after=not_after)
    # Its own certificate has a number already.
    return Authority(certificate, private, subject, serials=1000)
