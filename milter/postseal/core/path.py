"""Certification path building and validation, RFC 5280 §6.1, bounded (PRE-6).

The builder goes depth first from the leaf to an anchor and checks each certificate as it is added, so a path that reaches
an anchor is valid but for its policies, and nothing is checked twice: path length and name constraints need only what is
already below. Policies are decided when the anchor is reached, since their processing begins there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from postseal.core.certs import Certificate
from postseal.core.names import NameKey
from postseal.core.path_checks import anchor_fault, ca_fault, constrained, key_fault, names_fault, names_of, own_fault
from postseal.core.path_values import SKEW as SKEW
from postseal.core.path_values import Anchor as Anchor
from postseal.core.path_values import AnchorSettings as AnchorSettings
from postseal.core.path_values import Path as Path
from postseal.core.path_values import PathFault as PathFault
from postseal.core.path_values import PathSettings as PathSettings
from postseal.core.policies import ANY_POLICY, Policies, PolicyFault, PolicyInputs, evaluate
from postseal.core.profile import Profile, profile
from postseal.core.signature import verifies


def build_path(
    leaf: Certificate,
    anchors: Sequence[Anchor],
    intermediates: Sequence[Certificate],
    settings: PathSettings,
    at: datetime,
) -> Path | PathFault:
    """The first valid path from ``leaf`` to one of ``anchors``, or the most useful fault. Never raises for bad input."""
    return next(build_paths(leaf, anchors, intermediates, settings, at))


def build_paths(
    leaf: Certificate,
    anchors: Sequence[Anchor],
    intermediates: Sequence[Certificate],
    settings: PathSettings,
    at: datetime,
) -> Iterator[Path | PathFault]:
    """All valid paths within the budget, in the order in which they are found; if there is none, one fault.

    Work is done as the caller goes on, so who takes the first path pays for that one only. Never raises for bad input.
    """
    fault = own_fault(leaf, settings, at)
    if fault is not None:
        yield fault
    else:
        yield from _Search(anchors, intermediates, settings, at).run(leaf)


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
            "path.name-constraints",
            "path.distrusted",
            "path.policy",
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


_FAR = 1 << 30


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
        self._comparisons = 0
        self._distances: dict[NameKey, int] | None = None
        self._found = _Found()

    def run(self, leaf: Certificate) -> Iterator[Path | PathFault]:
        found = False
        try:
            for path in self._extend([leaf], [], 0):
                found = True
                yield path
        except _BudgetSpent as spent:
            if not found:
                yield PathFault("path.budget", str(spent), leaf, (leaf,))
            return
        if not found:
            assert self._found.fault is not None
            yield self._found.fault

    def _extend(self, chain: list[Certificate], links: list[tuple[NameKey, bytes]], depth: int) -> Iterator[Path]:
        """Depth first over all issuers of the last certificate in ``chain``.

        ``links`` are (name, key) of the CA certificates in the chain; ``depth`` counts those of them that aren't
        self-issued, as RFC 5280 §6.1.4 (l) does.
        """
        last = chain[-1]
        about = profile(last)
        matched = False
        if not links:
            # Who is an anchor needs nobody to vouch for it, whoever issued it.
            for anchor in self._anchors.get(about.subject, ()):
                path = self._anchored(chain, anchor, depth) if anchor.certificate == last else None
                if path is not None:
                    yield path
                    return
        for anchor in self._anchors.get(about.issuer, ()):
            matched = True
            self._count_candidate(last)
            path = self._anchored(chain, anchor, depth)
            if path is not None:
                yield path
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
            if self._issued(chain, issuer, depth):
                yield from self._extend([*chain, issuer], [*links, link], depth + (not profile(issuer).self_issued))
        if not matched:
            self._note_missing(last, about, chain)

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

        steps = self._steps()

        def order(issuer: Certificate) -> tuple[int, bool, int, float, str]:
            own = profile(issuer).subject_key_id
            match = 1 if wanted is None or own is None else 0 if own == wanted else 2
            current = issuer.not_before <= at <= issuer.not_after
            far = steps.get(profile(issuer).issuer, _FAR)
            return match, not current, far, -issuer.not_after.timestamp(), issuer.fingerprint

        return sorted(found, key=order)

    def _steps(self) -> dict[NameKey, int]:
        """Names -> how many certificates are at least between them and an anchor, going by names alone.

        A mesh of cross certificates has more paths than can be tried; this leads the search to the way out (PRE-6).
        """
        if self._distances is None:
            below: dict[NameKey, set[NameKey]] = {}
            for subject, found in self._issuers.items():
                for certificate in found:
                    below.setdefault(profile(certificate).issuer, set()).add(subject)
            self._distances = dict.fromkeys(self._anchors, 0)
            reached = list(self._anchors)
            for name in reached:
                for subject in below.get(name, ()):
                    if subject not in self._distances:
                        self._distances[subject] = self._distances[name] + 1
                        reached.append(subject)
        return self._distances

    def _anchored(self, chain: list[Certificate], anchor: Anchor, depth: int) -> Path | None:
        """The path that ends at ``anchor``, if it vouches for the chain and all its limits are kept."""
        if chain[-1] != anchor.certificate and not self._signed(chain, anchor.certificate):
            return None
        fault = anchor_fault(anchor, chain, depth, self._settings, self._at)
        if fault is None and chain[-1] != anchor.certificate:
            fault = self._names_fault(chain, anchor.certificate, "the trust anchor ")
        if fault is not None:
            self._found.note(fault.code, fault.detail, fault.certificate or chain[-1], chain)
            return None
        inputs = self._settings.policies
        if self._settings.email_protection and anchor.settings.required_policies:
            inputs = _inputs(inputs, anchor.settings.required_policies)
        found = _policies(tuple(chain), inputs)
        if isinstance(found, PolicyFault):
            blamed = chain[-1 - found.index]
            self._found.note("path.policy", f"{blamed.name}: {found.detail}", blamed, chain)
            return None
        return Path(tuple(chain), anchor, found)

    def _issued(self, chain: list[Certificate], issuer: Certificate, depth: int) -> bool:
        """May ``issuer`` stand above the chain? The signature comes first: only then it is the issuer, and worth a fault."""
        if not self._signed(chain, issuer):
            return False
        fault = own_fault(issuer, self._settings, self._at) or ca_fault(issuer, self._settings, depth)
        if fault is None:
            fault = self._names_fault(chain, issuer)
        if fault is not None:
            self._found.note(fault.code, fault.detail, fault.certificate or issuer, [*chain, issuer])
            return False
        return True

    def _names_fault(self, chain: list[Certificate], issuer: Certificate, word: str = "") -> PathFault | None:
        """CERT-16: the constraints of ``issuer`` hold for all names below it. They cost, so they have a budget (PRE-6)."""
        limits = profile(issuer).name_constraints
        if limits is None:
            return None
        for certificate in constrained(chain):
            self._comparisons += limits.size * len(names_of(certificate))
            if self._comparisons > self._settings.max_comparisons:
                raise _BudgetSpent(f"gave up at {self._settings.max_comparisons} comparisons of names and constraints")
            fault = names_fault(limits, certificate, f"{word}{issuer.name}")
            if fault is not None:
                return fault
        return None

    def _signed(self, chain: list[Certificate], issuer: Certificate) -> bool:
        """RFC 5280 §6.1.3 (a)(1), with the floors of CERT-13 for the issuer's key. The child's algorithm has passed."""
        last = chain[-1]
        code, detail = key_fault(issuer, self._settings.weak_keys)
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


def _inputs(asked: PolicyInputs, required: frozenset[str]) -> PolicyInputs:
    """The caller's inputs, narrowed by what the anchor's settings require (CERT-17)."""
    initial = required if ANY_POLICY in asked.initial else required & asked.initial
    return replace(asked, initial=initial, explicit=True)


@lru_cache(maxsize=8192)
def _policies(chain: tuple[Certificate, ...], inputs: PolicyInputs) -> Policies | PolicyFault:
    """The outcome for a chain, leaf first. Remembered, since mail asks about the same few again and again."""
    abouts = [profile(certificate) for certificate in reversed(chain)]
    return evaluate([(about.policies, about.self_issued) for about in abouts], inputs)


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
