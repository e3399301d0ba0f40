"""What is checked of each certificate of a path and of its anchor, RFC 5280 §6.1.3 to §6.1.5. ``path`` puts it together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from cryptography.x509.oid import NameOID

from postseal.core.certs import Certificate
from postseal.core.der import BadDer, later
from postseal.core.name_constraints import (
    OID_SUBJECT_ALT_NAME,
    Name,
    NameConstraints,
    mail_constraints,
    presented_names,
    violation,
)
from postseal.core.path_values import Anchor, PathFault, PathSettings
from postseal.core.profile import algorithm_fault, key_kind, profile, rsa_fault


def own_fault(certificate: Certificate, settings: PathSettings, at: datetime) -> PathFault | None:
    """What is wrong with a certificate of the path wherever it stands in it."""
    first, last = _lasting_faults(certificate, settings.weak_keys)
    if first is not None:
        return first
    # RFC 5280 §6.1.3 (a)(2); CERT-15: a little patience for notBefore, none for notAfter.
    begin, end = certificate.not_before, certificate.not_after
    if begin > later(at, settings.skew):
        detail = f"{certificate.name} is valid from {begin:%Y-%m-%dT%H:%M:%SZ}"
        return PathFault("path.not-yet-valid", detail, certificate, (certificate,))
    if end < at:
        detail = f"{certificate.name} expired on {end:%Y-%m-%dT%H:%M:%SZ}"
        return PathFault("path.expired", detail, certificate, (certificate,))
    return last


@lru_cache(maxsize=8192)
def _lasting_faults(certificate: Certificate, weak_keys: bool) -> tuple[PathFault | None, PathFault | None]:
    """What is wrong at any time: what is told before a word about the time, and what after it."""
    about, name = profile(certificate), certificate.name

    def fault(code: str, detail: str) -> PathFault:
        return PathFault(code, detail, certificate, (certificate,))

    if about.broken:
        return fault("path.bad-extension", f"the extensions of {name} can't be read: {about.broken}"), None
    code, detail = algorithm_fault(about, weak_keys)
    if code:
        return fault(f"path.{code}", f"{name}: {detail}"), None
    # RFC 5280 §6.1.4 (o), §6.1.5 (f); CERT-18.
    if about.unknown:
        words = f"{name} has the unknown critical extension {', '.join(about.unknown)}"
        return None, fault("path.unknown-extension", words)
    limits = about.name_constraints
    if limits is not None:
        # RFC 5280 §4.2.1.10: only in a CA certificate, and what of it isn't processed refuses it.
        if not about.ca:
            return None, fault("path.bad-extension", f"{name} has nameConstraints, which only a CA may have")
        if limits.unsupported:
            words = f"{name} has {limits.unsupported}, which isn't processed"
            return None, fault("path.unsupported-extension", words)
    return None, _size_fault(certificate, weak_keys)


def _size_fault(certificate: Certificate, weak_keys: bool) -> PathFault | None:
    """CERT-13: RSA limits hold for every key in the path. Which other kinds a leaf may have is asked in core.fitness."""
    code, detail = key_fault(certificate, weak_keys)
    return PathFault(code, detail, certificate, (certificate,)) if code == "path.weak-key" else None


# Keys that may sign certificates: RFC 8550 §4.3 and RFC 8551 §2.2, with P-521.
_SIGNING_KINDS = frozenset({"RSA", "RSA-PSS", "secp256r1", "secp384r1", "secp521r1", "Ed25519", "Ed448"})


@lru_cache(maxsize=8192)
def key_fault(certificate: Certificate, weak_keys: bool) -> tuple[str, str]:
    """Code and words when this key mustn't verify a signature, else two empty strings (CERT-13)."""
    kind, words = rsa_fault(certificate, weak_keys)
    if kind:
        return "path.weak-key", f"{certificate.name} has {words}"
    kind = key_kind(certificate)
    if kind not in _SIGNING_KINDS:
        return "path.unsupported-key", f"{certificate.name} has a key that can't sign certificates here: {kind}"
    return "", ""


def ca_fault(issuer: Certificate, settings: PathSettings, depth: int) -> PathFault | None:
    """What a certificate must have in order to stand above others. ``depth``: CAs below it that aren't self-issued."""
    about, name = profile(issuer), issuer.name

    def fault(code: str, detail: str) -> PathFault:
        return PathFault(code, detail, issuer, (issuer,))

    # RFC 5280 §4.1.2.4, §4.1.2.6: an issuer has a name; without one it would be the issuer of everybody who names none.
    if not about.subject:
        return fault("path.not-ca", f"{name} has an empty subject, so it can't be anybody's issuer")
    # RFC 5280 §6.1.4 (k): v3 needs cA TRUE; v1 and v2 may only be believed by other means, and there are none.
    if about.version < 3:
        return fault(
            "path.not-ca", f"{name} is an X.509 version {about.version} certificate and can't show that it is a CA"
        )
    if not about.ca:
        why = "has no basicConstraints" if about.ca is None else "says cA FALSE in its basicConstraints"
        return fault("path.not-ca", f"{name} {why}")
    # RFC 5280 §6.1.4 (n)
    if about.key_usage is not None and not about.key_usage.key_cert_sign:
        return fault("path.no-cert-sign", f"{name} has a keyUsage without keyCertSign")
    # RFC 5280 §6.1.4 (l), (m): the last certificate and self-issued ones don't count.
    if about.path_length is not None and depth > about.path_length:
        return fault("path.too-long", f"{name} allows {about.path_length} CAs below it, and there are {depth}")
    # CERT-11: extended key usage is nested; RFC 5280 §4.2.1.12 leaves that to the application, every S/MIME CA relies on it.
    if settings.email_protection and not about.serves_mail:
        return fault("path.wrong-purpose", f"{name} is a CA for other purposes than mail")
    return None


@lru_cache(maxsize=8192)
def names_of(certificate: Certificate) -> tuple[Name, ...]:
    """The names of a certificate that constraints may be about."""
    try:
        found = certificate.raw_extensions.get(OID_SUBJECT_ALT_NAME)
        alternative = None if found is None else found.value
    except BadDer:
        alternative = b""
    mails = certificate.x509.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
    return presented_names(certificate.subject, [str(mail.value) for mail in mails], alternative)


def names_fault(limits: NameConstraints, certificate: Certificate, whose: str) -> PathFault | None:
    """CERT-16: which name of ``certificate`` the constraints of ``whose`` don't allow."""
    found = violation(limits, names_of(certificate), whose)
    return None if found is None else PathFault(found.code, f"{certificate.name}: {found.detail}", certificate)


def constrained(chain: Sequence[Certificate]) -> list[Certificate]:
    """RFC 5280 §6.1.3 (b), (c): the certificates whose names count: self-issued ones don't, unless they are the last."""
    return [c for index, c in enumerate(chain) if index == 0 or not profile(c).self_issued]


def anchor_fault(
    anchor: Anchor, chain: Sequence[Certificate], depth: int, settings: PathSettings, at: datetime
) -> PathFault | None:
    """Which limit of the anchor, stated by its certificate or its settings, ``chain`` below it doesn't keep."""
    if settings.email_protection:
        fault = _trust_fault(anchor, chain[0])
        if fault is not None:
            return fault
    # A certificate that is trusted itself needs nobody to vouch for it.
    return None if chain[-1] == anchor.certificate else _stated_fault(anchor, depth, settings, at)


def anchor_doubt(anchor: Anchor, settings: PathSettings, at: datetime) -> PathFault | None:
    """Why nobody is trusted for the sake of this anchor now, whatever is below it; None if somebody may be."""
    code, detail = key_fault(anchor.certificate, settings.weak_keys)
    if code:
        return PathFault(code, detail, anchor.certificate)
    return _stated_fault(anchor, 0, settings, at)


def _trust_fault(anchor: Anchor, leaf: Certificate) -> PathFault | None:
    """What the administrator trusts an anchor for, where mail is meant. Who signs CRLs or answers for it isn't meant."""
    root, allowed = anchor.certificate, anchor.settings
    until = allowed.distrust_after
    # PRE-4: an anchor that is given up keeps vouching for what it issued before.
    if until is not None and leaf.not_before > until:
        issued = f"{leaf.name} was issued on {leaf.not_before:%Y-%m-%d}"
        detail = f"{issued}, and the trust anchor {root.name} isn't trusted for certificates after {until:%Y-%m-%d}"
        return PathFault("path.distrusted", detail, leaf)
    if (allowed.domains or allowed.excluded_domains) and not profile(leaf).ca:
        # RFC 5280 §6.1.1 (h), (i): initial subtrees, for the addresses of the certificate in question.
        limits = mail_constraints(allowed.domains, allowed.excluded_domains)
        return names_fault(limits, leaf, f"the settings for the trust anchor {root.name}")
    return None


def _stated_fault(anchor: Anchor, depth: int, settings: PathSettings, at: datetime) -> PathFault | None:
    """RFC 5280 §6.2 permits further limits on an anchor: those of RFC 5937, and that it says of itself to be a CA."""
    root = anchor.certificate
    about, name = profile(root), f"the trust anchor {root.name}"

    def fault(code: str, detail: str) -> PathFault:
        return PathFault(code, f"{name} {detail}", root)

    if about.broken:
        return fault("path.bad-extension", f"has extensions that can't be read: {about.broken}")
    if root.not_before > at + settings.skew:
        return fault("path.not-yet-valid", f"is valid from {root.not_before:%Y-%m-%dT%H:%M:%SZ}")
    if root.not_after < at and not anchor.settings.expired:
        return fault("path.expired", f"expired on {root.not_after:%Y-%m-%dT%H:%M:%SZ}")
    if about.unknown:
        return fault("path.unknown-extension", f"has the unknown critical extension {', '.join(about.unknown)}")
    if not about.subject:
        return fault("path.not-ca", "has an empty subject, so it vouches for itself only")
    # A version 1 certificate can't say what it is; who makes it an anchor says it.
    if about.version >= 3 and not about.ca:
        why = "has no basicConstraints" if about.ca is None else "says cA FALSE in its basicConstraints"
        return fault("path.not-ca", f"{why}, so it vouches for itself only")
    if about.name_constraints is not None and about.name_constraints.unsupported:
        return fault("path.unsupported-extension", f"has {about.name_constraints.unsupported}, which isn't processed")
    if about.key_usage is not None and not about.key_usage.key_cert_sign:
        return fault("path.not-ca", "has a keyUsage without keyCertSign, so it vouches for itself only")
    if about.path_length is not None and depth > about.path_length:
        return fault("path.too-long", f"allows {about.path_length} CAs below it, and there are {depth}")
    if settings.email_protection and not about.serves_mail:
        return fault("path.wrong-purpose", "is a CA for other purposes than mail")
    return None
