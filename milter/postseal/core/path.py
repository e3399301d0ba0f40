"""Certification path building and validation, RFC 5280 §6.1, bounded (PRE-6).

The builder goes depth first from the leaf to an anchor and checks each certificate as it is added, so a path that reaches
an anchor is valid and nothing is checked twice. All checks of RFC 5280 §6.1 that this version makes can be made in that
direction: path length by counting what is already below. Name constraints and policies come later; see ``core.profile``
for what happens to certificates that have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from postseal.core.certs import Certificate
from postseal.core.names import NameKey
from postseal.core.profile import Profile, algorithm_fault, key_kind, profile, rsa_fault
from postseal.core.signature import verifies


@dataclass(frozen=True, slots=True)
class Anchor:
    """A trust anchor: its name and key count, not its own signature, validity or extensions (RFC 5280 §6.1.1 (d)).

    So an expired anchor is an anchor until it is taken away, and a self-signed certificate that is made an anchor has a
    path of one: itself. One limit is added, as RFC 5280 §6.2 permits: an anchor whose certificate says that it isn't a CA
    (cA FALSE, or a keyUsage without keyCertSign) vouches for itself only. Trusting one person's self-signed certificate
    must not make that person a CA.
    """

    certificate: Certificate
    label: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """A validated path, leaf first; ``anchor`` is not part of ``certificates``. Made by ``build_path`` only."""

    certificates: tuple[Certificate, ...]
    anchor: Anchor

    @property
    def leaf(self) -> Certificate:
        return self.certificates[0]

    def issuer_of(self, index: int) -> Certificate:
        """The certificate that issued ``certificates[index]``; the anchor's for the last."""
        return self.certificates[index + 1] if index + 1 < len(self.certificates) else self.anchor.certificate


@dataclass(frozen=True, slots=True)
class PathFault:
    """Why there is no valid path: the most useful fault of all paths tried. ``code`` is a ``path.*`` reason."""

    code: str
    detail: str
    certificate: Certificate | None = None
    tried: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class PathSettings:
    """``email_protection`` asks nested EKU emailProtection (CERT-11); ``weak_keys`` admits RSA under 2048 bits and SHA-1.

    ``skew`` is how far notBefore may lie ahead (CERT-15). ``max_length`` counts the certificates of a path without its
    anchor; ``max_signatures`` different signatures are verified and ``max_candidates`` issuers looked at (PRE-6).
    """

    email_protection: bool = True
    weak_keys: bool = False
    max_length: int = 10
    max_signatures: int = 100
    max_candidates: int = 300
    skew: timedelta = timedelta(minutes=5)


def build_path(
    leaf: Certificate,
    anchors: Sequence[Anchor],
    intermediates: Sequence[Certificate],
    settings: PathSettings,
    at: datetime,
) -> Path | PathFault:
    """The first valid path from ``leaf`` to one of ``anchors``, or the most useful fault. Never raises for bad input."""
    fault = _own_fault(leaf, settings, at)
    if fault is not None:
        return fault
    return _Search(anchors, intermediates, settings, at).run(leaf)


# Which fault says most when several paths were tried: the further down, the closer that path came to being valid.
_RANK = {
    code: rank
    for rank, code in enumerate(
        (
            "path.no-issuer",
            "path.untrusted-root",
            "path.bad-signature",
            "path.bad-extension",
            "path.unsupported-key",
            "path.unsupported-signature",
            "path.broken-signature",
            "path.not-ca",
            "path.no-cert-sign",
            "path.weak-key",
            "path.weak-signature",
            "path.wrong-purpose",
            "path.too-long",
            "path.unknown-extension",
            "path.unsupported-extension",
            "path.not-yet-valid",
            "path.expired",
            "path.budget",
        )
    )
}


@dataclass(slots=True)
class _Found:
    """The best fault so far. Equal rank: the deeper one wins, then the first."""

    fault: PathFault | None = None
    rank: tuple[int, int] = (-1, -1)

    def note(self, code: str, detail: str, certificate: Certificate, tried: list[Certificate]) -> None:
        rank = (_RANK[code], len(tried))
        if rank > self.rank:
            self.rank = rank
            self.fault = PathFault(code, detail, certificate, tuple(tried))


class _BudgetSpent(Exception):
    """Ends the whole search; never leaves this module."""


class _Search:
    """One run of the builder, with its budget."""

    def __init__(
        self, anchors: Sequence[Anchor], intermediates: Sequence[Certificate], settings: PathSettings, at: datetime
    ) -> None:
        self._anchors = _anchor_index(_Same(anchors if isinstance(anchors, tuple) else tuple(anchors)))
        self._issuers = _issuer_index(
            _Same(intermediates if isinstance(intermediates, tuple) else tuple(intermediates))
        )
        self._settings = settings
        self._at = at
        self._seen_signatures: set[tuple[bytes, bytes]] = set()
        self._candidates = 0
        self._found = _Found()

    def run(self, leaf: Certificate) -> Path | PathFault:
        try:
            path = self._extend([leaf], [], 0)
        except _BudgetSpent as spent:
            return PathFault("path.budget", str(spent), leaf, (leaf,))
        if path is not None:
            return path
        assert self._found.fault is not None
        return self._found.fault

    def _extend(self, chain: list[Certificate], links: list[tuple[NameKey, bytes]], depth: int) -> Path | None:
        """Depth first over all issuers of the last certificate in ``chain``.

        ``links`` are (name, key) of the CA certificates in the chain; ``depth`` counts those of them that aren't
        self-issued, as RFC 5280 §6.1.4 (l) does.
        """
        last = chain[-1]
        about = profile(last)
        matched = False
        for anchor in self._anchors.get(about.issuer, ()):
            matched = True
            self._count_candidate(last)
            if self._anchor_issued(chain, anchor):
                return Path(tuple(chain), anchor)
        for issuer in self._in_order(about):
            link = (profile(issuer).subject, issuer.spki)
            # RFC 5280 §6.1: no certificate twice; RFC 4158 §2.4.2: nor the same name and key in another certificate.
            if issuer in chain or link in links:
                continue
            matched = True
            self._count_candidate(last)
            if len(chain) >= self._settings.max_length:
                detail = f"the path would be longer than {self._settings.max_length} certificates"
                self._found.note("path.budget", detail, last, chain)
                continue
            if not self._issued(chain, issuer, depth):
                continue
            path = self._extend([*chain, issuer], [*links, link], depth + (not profile(issuer).self_issued))
            if path is not None:
                return path
        if not matched:
            self._note_missing(last, about, chain)
        return None

    def _note_missing(self, last: Certificate, about: Profile, chain: list[Certificate]) -> None:
        if about.self_issued:
            self._found.note("path.untrusted-root", f"{last.name} is not among the trust anchors", last, chain)
        else:
            issuer = last.x509.issuer.rfc4514_string()
            self._found.note("path.no-issuer", f"no certificate of {issuer}, the issuer of {last.name}", last, chain)

    def _count_candidate(self, last: Certificate) -> None:
        self._candidates += 1
        if self._candidates > self._settings.max_candidates:
            raise _BudgetSpent(f"gave up after looking at {self._settings.max_candidates} possible issuers")

    def _in_order(self, about: Profile) -> list[Certificate]:
        """Candidates by name. Key identifiers only order them: they are hints (RFC 4158 §3.5.12), not proof."""
        found = self._issuers.get(about.issuer, ())
        if len(found) < 2:
            return list(found)
        wanted, at = about.authority_key_id, self._at

        def order(issuer: Certificate) -> tuple[int, bool, float, str]:
            own = profile(issuer).subject_key_id
            match = 1 if wanted is None or own is None else 0 if own == wanted else 2
            current = issuer.not_before <= at <= issuer.not_after
            return match, not current, -issuer.not_after.timestamp(), issuer.fingerprint

        return sorted(found, key=order)

    def _anchor_issued(self, chain: list[Certificate], anchor: Anchor) -> bool:
        last, root = chain[-1], anchor.certificate
        if not self._signed(chain, root):
            return False
        # RFC 5280 §6.2 permits further limits on an anchor: see ``Anchor``.
        if last != root and (denial := _denies_being_ca(profile(root))):
            self._found.note("path.not-ca", f"the trust anchor {root.name} {denial}", root, chain)
            return False
        return True

    def _issued(self, chain: list[Certificate], issuer: Certificate, depth: int) -> bool:
        """May ``issuer`` stand above the chain? The signature comes first: only then it is the issuer, and worth a fault."""
        if not self._signed(chain, issuer):
            return False
        fault = _own_fault(issuer, self._settings, self._at) or _ca_fault(issuer, self._settings, depth)
        if fault is not None:
            self._found.note(fault.code, fault.detail, issuer, [*chain, issuer])
            return False
        return True

    def _signed(self, chain: list[Certificate], issuer: Certificate) -> bool:
        """RFC 5280 §6.1.3 (a)(1), with the floors of CERT-13 for the issuer's key. The child's algorithm has passed."""
        last = chain[-1]
        code, detail = _key_fault(issuer, self._settings.weak_keys)
        if code:
            self._found.note(code, detail, issuer, chain)
            return False
        self._seen_signatures.add((last.der, issuer.spki))
        if len(self._seen_signatures) > self._settings.max_signatures:
            raise _BudgetSpent(f"gave up after verifying {self._settings.max_signatures} signatures")
        if not _verified(last, issuer.spki):
            detail = f"the signature of {last.name} doesn't fit the key of {issuer.name}"
            self._found.note("path.bad-signature", detail, last, chain)
            return False
        return True


@lru_cache(maxsize=8192)
def _verified(certificate: Certificate, spki: bytes) -> bool:
    """Remembered for good: bytes and key decide it alone."""
    parts, algorithm = certificate.parts, profile(certificate).algorithm
    return algorithm is not None and verifies(algorithm, parts.signature, parts.tbs, spki)


def _own_fault(certificate: Certificate, settings: PathSettings, at: datetime) -> PathFault | None:
    """What is wrong with a certificate of the path wherever it stands in it."""
    about, name = profile(certificate), certificate.name

    def fault(code: str, detail: str) -> PathFault:
        return PathFault(code, detail, certificate, (certificate,))

    if about.broken:
        return fault("path.bad-extension", f"the extensions of {name} can't be read: {about.broken}")
    code, detail = algorithm_fault(about, settings.weak_keys)
    if code:
        return fault(f"path.{code}", f"{name}: {detail}")
    # RFC 5280 §6.1.3 (a)(2); CERT-15: a little patience for notBefore, none for notAfter.
    if certificate.not_before > at + settings.skew:
        return fault("path.not-yet-valid", f"{name} is valid from {certificate.not_before:%Y-%m-%dT%H:%M:%SZ}")
    if certificate.not_after < at:
        return fault("path.expired", f"{name} expired on {certificate.not_after:%Y-%m-%dT%H:%M:%SZ}")
    # RFC 5280 §6.1.4 (o), §6.1.5 (f); CERT-18.
    if about.unknown:
        return fault("path.unknown-extension", f"{name} has the unknown critical extension {', '.join(about.unknown)}")
    if about.unprocessed:
        listed = ", ".join(about.unprocessed)
        return fault("path.unsupported-extension", f"{name} has {listed}, which this version doesn't process")
    return _size_fault(certificate, settings)


def _size_fault(certificate: Certificate, settings: PathSettings) -> PathFault | None:
    """CERT-13: RSA limits hold for every key in the path. Which other kinds a leaf may have is asked in core.fitness."""
    code, detail = _key_fault(certificate, settings.weak_keys)
    return PathFault(code, detail, certificate, (certificate,)) if code == "path.weak-key" else None


# Keys that may sign certificates: RFC 8550 §4.3 and RFC 8551 §2.2, with P-521.
_SIGNING_KINDS = frozenset({"RSA", "RSA-PSS", "secp256r1", "secp384r1", "secp521r1", "Ed25519", "Ed448"})


@lru_cache(maxsize=8192)
def _key_fault(certificate: Certificate, weak_keys: bool) -> tuple[str, str]:
    """Code and words when this key mustn't verify a signature, else two empty strings (CERT-13)."""
    kind, words = rsa_fault(certificate, weak_keys)
    if kind:
        return "path.weak-key", f"{certificate.name} has {words}"
    kind = key_kind(certificate)
    if kind not in _SIGNING_KINDS:
        return "path.unsupported-key", f"{certificate.name} has a key that can't sign certificates here: {kind}"
    return "", ""


def _ca_fault(issuer: Certificate, settings: PathSettings, depth: int) -> PathFault | None:
    """What a certificate must have in order to stand above others. ``depth``: CAs below it that aren't self-issued."""
    about, name = profile(issuer), issuer.name

    def fault(code: str, detail: str) -> PathFault:
        return PathFault(code, detail, issuer, (issuer,))

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


def _denies_being_ca(about: Profile) -> str:
    if about.ca is False:
        return "says cA FALSE in its basicConstraints, so it vouches for itself only"
    if about.key_usage is not None and not about.key_usage.key_cert_sign:
        return "has a keyUsage without keyCertSign, so it vouches for itself only"
    return ""


class _Same:
    """A tuple as a cache key by identity: the trust store hands out the same tuple as long as nothing changes."""

    __slots__ = ("items",)

    def __init__(self, items: tuple[object, ...]) -> None:
        self.items = items

    def __hash__(self) -> int:
        return id(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.items is other.items


@lru_cache(maxsize=16)
def _anchor_index(anchors: _Same) -> dict[NameKey, tuple[Anchor, ...]]:
    index: dict[NameKey, tuple[Anchor, ...]] = {}
    for anchor in anchors.items:
        assert isinstance(anchor, Anchor)
        subject = profile(anchor.certificate).subject
        index[subject] = (*index.get(subject, ()), anchor)
    return index


@lru_cache(maxsize=16)
def _issuer_index(intermediates: _Same) -> dict[NameKey, tuple[Certificate, ...]]:
    index: dict[NameKey, dict[Certificate, None]] = {}
    for certificate in intermediates.items:
        assert isinstance(certificate, Certificate)
        index.setdefault(profile(certificate).subject, {})[certificate] = None
    return {subject: tuple(found) for subject, found in index.items()}
