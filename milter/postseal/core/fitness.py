"""Is a certificate fit to encrypt mail for a mailbox? CERT-1 to CERT-5 and CERT-10 to CERT-15, as findings.

This looks at one certificate and trusts nobody: whether its path is good and whether it is revoked are other questions.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from math import gcd, prod

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.x509.oid import NameOID

from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.assess import Finding
from postseal.core.certs import Certificate
from postseal.core.der import BadDer, Cursor, later
from postseal.core.errors import BadData
from postseal.core.oaep import demanded
from postseal.core.profile import Profile, algorithm_fault, extension, key_kind, profile, rsa_fault, rsa_modulus
from postseal.core.suite import FAMILIES, KeyFamily

# RFC 9598 §3: id-on-SmtpUTF8Mailbox
_SMTP_UTF8_MAILBOX = "1.3.6.1.5.5.7.8.9"
_UTF8_STRING = 0x0C
_SKEW = timedelta(minutes=5)
_SIGNING_ONLY = frozenset({"Ed25519", "Ed448", "RSA-PSS", "DSA"})


@dataclass(frozen=True, slots=True)
class Addresses:
    """The mailboxes that a certificate speaks for.

    ``in_subject`` tells that they come from the subject's emailAddress because there is no address in subjectAltName.
    ``ignored`` are names that aren't plain addresses, as text for people; they match nothing.
    """

    mailboxes: tuple[Mailbox, ...]
    in_subject: bool = False
    ignored: tuple[str, ...] = ()

    def match(self, mailbox: Mailbox) -> Mailbox | None:
        """The name that matches ``mailbox``, one with the same letters before one that differs in case (CERT-2, CERT-6)."""
        if mailbox in self.mailboxes:
            return mailbox
        return next((name for name in self.mailboxes if _matches(name, mailbox)), None)


def _matches(name: Mailbox, mailbox: Mailbox) -> bool:
    # CERT-3: a quoted local part must be the same octets; folding inside quotes is nobody's promise.
    # CERT-5, RFC 9598 §5: a local part beyond ASCII is compared exactly.
    if name.local.startswith('"') or not name.local.isascii():
        return name == mailbox
    return name.matches(mailbox)


@lru_cache(maxsize=8192)
def addresses(certificate: Certificate) -> Addresses:
    """CERT-1, RFC 8550 §3: subjectAltName decides; the subject's emailAddress only where that has no address at all."""
    names = extension(profile(certificate).extensions, x509.SubjectAlternativeName)
    found: list[Mailbox] = []
    ignored: list[str] = []
    declared = False
    for name in names or ():
        if isinstance(name, x509.RFC822Name):
            declared = True
            _take(name.value, found, ignored)
        elif isinstance(name, x509.OtherName) and name.type_id.dotted_string == _SMTP_UTF8_MAILBOX:
            declared = True
            _take_utf8(name.value, found, ignored)
    if declared:
        return Addresses(tuple(found), False, tuple(ignored))
    for attribute in certificate.x509.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
        _take(str(attribute.value), found, ignored)
    return Addresses(tuple(found), bool(found), tuple(ignored))


def _take(text: str, found: list[Mailbox], ignored: list[str]) -> None:
    """An rfc822Name: a plain Local@Domain in ASCII, or ignored (CERT-3, CERT-4)."""
    try:
        if not text.isascii():
            raise BadData("not ASCII")
        found.append(parse_mailbox(text))
    except BadData:
        ignored.append(text)


def _take_utf8(value: bytes, found: list[Mailbox], ignored: list[str]) -> None:
    """A SmtpUTF8Mailbox: local part beyond ASCII, domain in A-labels, or ignored (CERT-5, RFC 9598 §3)."""
    try:
        text = Cursor(value).content(_UTF8_STRING).decode("utf-8")
        local, _, domain = text.rpartition("@")
        if local.isascii() or not domain.isascii():
            ignored.append(text)
        else:
            found.append(parse_mailbox(unicodedata.normalize("NFC", text)))
    except (BadDer, UnicodeDecodeError):
        ignored.append(value.hex())
    except BadData:
        ignored.append(text)


def key_family(certificate: Certificate) -> KeyFamily | None:
    """How a content key is wrapped for this certificate; None when it can't be."""
    return FAMILIES.get(key_kind(certificate))


def fitness(
    certificate: Certificate,
    mailbox: Mailbox | None,
    at: datetime,
    *,
    weak_keys: bool = False,
    x25519: bool = False,
) -> tuple[Finding, ...]:
    """All findings, the address first; without a fatal one the certificate may be used for ``mailbox``.

    ``mailbox`` None skips the address rules. ``weak_keys`` turns RSA keys of 1024 to 2047 bits and SHA-1 into warnings.
    ``x25519`` lets keys for X25519 pass, which hardly any mail reader opens.
    Total: any certificate gives findings, never an exception.
    """
    about = profile(certificate)
    if about.broken:
        return (Finding("cert.bad-extension", f"its extensions can't be read: {about.broken}", True),)
    found = [] if mailbox is None else _address(certificate, mailbox)
    found += _validity(certificate, at)
    found += _role(about)
    found += _key(certificate, weak_keys, x25519)
    found += _usage(about, key_family(certificate))
    found += _signature(about, weak_keys)
    return tuple(found)


def _address(certificate: Certificate, mailbox: Mailbox) -> list[Finding]:
    names = addresses(certificate)
    found = [
        Finding("cert.odd-address", f"the name {text!a} is not a plain address", False) for text in names.ignored[:5]
    ]
    if names.match(mailbox) is None:
        if not names.mailboxes:
            return [*found, Finding("cert.no-address", "it has no mail address", True)]
        listed = ", ".join(str(name) for name in names.mailboxes[:5])
        return [*found, Finding("cert.wrong-address", f"it is for {listed}, not for {mailbox}", True)]
    if names.in_subject:
        found.append(Finding("cert.address-in-subject", "its address is only in the subject", False))
    return found


def _validity(certificate: Certificate, at: datetime) -> list[Finding]:
    # CERT-15, RFC 5280 §4.1.2.5
    if certificate.not_before > later(at, _SKEW):
        return [Finding("cert.not-yet-valid", f"it is valid from {certificate.not_before:%Y-%m-%dT%H:%M:%SZ}", True)]
    if certificate.not_after < at:
        return [Finding("cert.expired", f"it expired on {certificate.not_after:%Y-%m-%dT%H:%M:%SZ}", True)]
    return []


def _role(about: Profile) -> list[Finding]:
    found = []
    # CERT-12: nobody reads mail with the key of a CA.
    if about.ca:
        found.append(Finding("cert.is-ca", "it is a CA certificate", True))
    # CERT-11, RFC 8550 §4.4.4
    if not about.serves_mail:
        listed = ", ".join(sorted(about.eku or ())[:5])
        found.append(Finding("cert.wrong-purpose", f"its extended key usage ({listed}) doesn't include mail", True))
    return found


def _usage(about: Profile, family: KeyFamily | None) -> list[Finding]:
    """CERT-10, RFC 8550 §4.4.2, RFC 5753 §3, RFC 8410 §5."""
    usage = about.key_usage
    if usage is None:
        return [Finding("cert.no-key-usage", "it has no key usage, so nothing says that it is for encryption", False)]
    if family is KeyFamily.RSA and not usage.key_encipherment:
        return [Finding("cert.no-key-encipherment", "its key usage lacks keyEncipherment", True)]
    if family in (KeyFamily.EC, KeyFamily.X25519):
        if not usage.key_agreement:
            return [Finding("cert.no-key-agreement", "its key usage lacks keyAgreement", True)]
        if usage.decipher_only:
            return [Finding("cert.no-key-agreement", "its key usage says decipherOnly", True)]
    return []


_RSA_CODES = {"oversized": "cert.oversized-key", "absurd": "cert.broken-key", "weak": "cert.weak-key"}


def _key(certificate: Certificate, weak_keys: bool, x25519: bool) -> list[Finding]:
    """CERT-13, RFC 8550 §4.3."""
    kind = key_kind(certificate)
    if kind in _SIGNING_ONLY:
        return [Finding("cert.signing-key", f"a key of kind {kind} can only sign", True)]
    fault, words = rsa_fault(certificate, weak_keys)
    if fault:
        return [Finding(_RSA_CODES[fault], f"it has {words}", True)]
    if kind == "X448" or (kind == "X25519" and not x25519):
        # RFC 8418 has them, but the mail readers of today can't open what is sealed for such a key.
        return [Finding("cert.no-reader", f"no common mail reader opens mail for a key of kind {kind}", True)]
    family = key_family(certificate)
    if family is None and kind.startswith("brainpool"):
        return [Finding("cert.brainpool", f"keys on the curve {kind} aren't supported by this version", True)]
    if family is None:
        return [Finding("cert.unsupported-key", f"a key of kind {kind} can't be used for mail", True)]
    if family is KeyFamily.X25519 and not _agrees(certificate):
        return [Finding("cert.unsupported-key", "with its X25519 key everybody would agree upon zero", True)]
    if family is KeyFamily.RSA:
        return _oaep_fault(certificate) or _rsa_weakness(certificate, weak_keys)
    return []


def _agrees(certificate: Certificate) -> bool:
    """RFC 7748 §6.1: with a point of small order the shared secret is zero, whoever agrees with it."""
    public = certificate.x509.public_key()
    try:
        # The scalar is of no importance.
        return isinstance(public, X25519PublicKey) and bool(_ANYBODY.exchange(public))
    except ValueError:
        return False


_ANYBODY = X25519PrivateKey.from_private_bytes(bytes(range(32)))


def _oaep_fault(certificate: Certificate) -> list[Finding]:
    """RFC 4055 §4: what an id-RSAES-OAEP key demands must be something that we can do."""
    try:
        demanded(certificate.spki)
    except BadDer as exc:
        return [Finding("cert.unsupported-key", f"its key asks for parameters that can't be used: {exc}", True)]
    return []


def _rsa_weakness(certificate: Certificate, weak_keys: bool) -> list[Finding]:
    known = _known_weakness(rsa_modulus(certificate))
    if known:
        return [Finding("cert.broken-key", known, True)]
    words = rsa_fault(certificate, False)[1] if weak_keys else ""
    return [Finding("cert.weak-key", f"it has {words}", False)] if words else []


_PRIMES = tuple(n for n in range(3, 2000) if all(n % d for d in range(2, int(n**0.5) + 1)))
_SMALL_PRODUCT = prod(_PRIMES)
_ROCA_PRIMES = tuple(p for p in _PRIMES if p <= 167)


@lru_cache(maxsize=1)
def _roca_residues() -> tuple[tuple[int, frozenset[int]], ...]:
    """For each prime the powers of 65537: a modulus made by the faulty generator is one of them for every prime."""
    return tuple((p, frozenset(pow(65537, k, p) for k in range(p - 1))) for p in _ROCA_PRIMES)


@lru_cache(maxsize=8192)
def _known_weakness(modulus: int) -> str:
    """Keys that anybody can break: small factors, and ROCA (CVE-2017-15361, by its fingerprint)."""
    if gcd(modulus, _SMALL_PRODUCT) != 1:
        return "its RSA modulus has a small factor, anybody can open what is sealed for it"
    if all(modulus % prime in residues for prime, residues in _roca_residues()):
        return "its RSA key was made by a faulty generator (ROCA, CVE-2017-15361)"
    return ""


def _signature(about: Profile, weak_keys: bool) -> list[Finding]:
    # CERT-14, RFC 8550 §4.3
    code, words = algorithm_fault(about, weak_keys)
    if code:
        return [Finding(f"cert.{code}", f"it is {words}" if words.startswith("signed") else words, True)]
    code, words = algorithm_fault(about, False)
    return [Finding(f"cert.{code}", f"it is {words}", False)] if code else []


def signing_fitness(certificate: Certificate, at: datetime, *, weak_keys: bool = False) -> tuple[Finding, ...]:
    """All findings about signing mail with the certificate's key; without a fatal one it may be done. Total.

    ``weak_keys`` as for ``fitness``.
    """
    about = profile(certificate)
    if about.broken:
        return (Finding("cert.bad-extension", f"its extensions can't be read: {about.broken}", True),)
    found = _validity(certificate, at) + _role(about)
    fault, words = rsa_fault(certificate, weak_keys)
    if fault:
        found.append(Finding(_RSA_CODES[fault], f"it has {words}", True))
    elif key_kind(certificate).startswith("RSA"):
        found += _rsa_weakness(certificate, weak_keys)
    usage = about.key_usage
    if usage is None:
        found.append(Finding("cert.no-key-usage", "it has no key usage, so nothing says that it is for signing", False))
    elif not (usage.digital_signature or usage.content_commitment):
        # RFC 8550 §4.4.2: one of the two, or the signature isn't one.
        found.append(
            Finding("cert.no-digital-signature", "its key usage has neither digitalSignature nor nonRepudiation", True)
        )
    return tuple(found + _signature(about, weak_keys))
