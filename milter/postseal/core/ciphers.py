"""Which cipher and key transport a recipient gets, and why: keys, capabilities and the rule in, a choice out (ALG-1 to 4).

What a recipient says about itself can only raise what the rule takes for somebody of whom nothing is known, never lower it.
Pure and total: the same input gives the same choice, and where nothing fits the answer is a ``NoFit`` that says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from postseal.core.capabilities import (
    Capability,
    certificate_capabilities,
    suites,
    transports,
    weak_only,
)
from postseal.core.certs import Certificate
from postseal.core.der import NULL, BadDer, Cursor, tlv
from postseal.core.oaep import transport_of
from postseal.core.profile import key_kind, rsa_modulus
from postseal.core.suite import KeyTransport, Suite


class Pack(StrEnum):
    """A named set of what is allowed, for one kind of correspondents."""

    DEFAULT = "default"
    LEGACY = "legacy"
    BSI_ENERGY = "bsi-energy"
    FIPS = "fips"


class WeakOnly(StrEnum):
    """What is done for who lists nothing but 3DES, RC2 and the like (ALG-1: never these)."""

    REFUSE = "refuse"
    AES = "aes128-cbc"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a pack allows. ``suite`` is for recipients of whom nothing is known; ``transport`` None is PKCS #1 v1.5, or OAEP
    where the recipient says that it can read it; ``oaep_only`` forbids PKCS #1 v1.5. ``curves`` None are all."""

    suite: Suite
    allowed: frozenset[Suite]
    transport: KeyTransport | None = None
    oaep_only: bool = False
    curves: frozenset[str] | None = None


_NIST = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_BRAINPOOL = frozenset({"brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1"})
_CBC = frozenset(suite for suite in Suite if not suite.gcm)

TERMS: dict[Pack, Terms] = {
    Pack.DEFAULT: Terms(Suite.AES_256_CBC, frozenset(Suite)),
    Pack.LEGACY: Terms(Suite.AES_128_CBC, _CBC, KeyTransport.PKCS1),
    # EDI@Energy, "Regelungen zum Übertragungsweg": RSAES-OAEP only; content with AES-128-CBC or AES-256-CBC until 2025-10-01
    # (twice put off, since libraries read RFC 5084 differently), with AES-128-GCM only from then on.
    Pack.BSI_ENERGY: Terms(
        Suite.AES_128_GCM,
        frozenset({Suite.AES_128_CBC, Suite.AES_256_CBC, Suite.AES_128_GCM}),
        KeyTransport.OAEP_SHA256,
        oaep_only=True,
        curves=_NIST | _BRAINPOOL,
    ),
    # NIST SP 800-131A: key transport with PKCS #1 v1.5 is disallowed after 2023; SP 800-56A lists P-256, P-384 and P-521.
    Pack.FIPS: Terms(Suite.AES_256_CBC, frozenset(Suite), KeyTransport.OAEP_SHA256, oaep_only=True, curves=_NIST),
}


def at_least(suite: Suite, floor: Suite) -> bool:
    """Is the key at least as long, and the content authenticated where ``floor`` does that? Neither makes up for the other."""
    return suite.key_length >= floor.key_length and (suite.gcm or not floor.gcm)


def rank(suite: Suite) -> tuple[bool, int]:
    """Which of two is better where both are allowed: authenticated ones (RFC 8551 §2.7.1), then the longer key."""
    return suite.gcm, suite.key_length


@dataclass(frozen=True, slots=True)
class CipherRule:
    """What a rule says about ciphers. ``suite`` and ``transport`` None leave it to the pack."""

    pack: Pack = Pack.DEFAULT
    suite: Suite | None = None
    floor: Suite = Suite.AES_128_CBC
    ceiling: Suite = Suite.AES_256_GCM
    transport: KeyTransport | None = None
    weak_only: WeakOnly = WeakOnly.AES

    @property
    def terms(self) -> Terms:
        return TERMS[self.pack]

    @property
    def allowed(self) -> frozenset[Suite]:
        """All suites between floor and ceiling that the pack has."""
        return frozenset(
            suite for suite in self.terms.allowed if at_least(suite, self.floor) and at_least(self.ceiling, suite)
        )

    @property
    def unasked(self) -> Suite | None:
        """The suite for a recipient of whom nothing is known; None when the rule wants GCM only for who says it reads it."""
        allowed, usual = self.allowed, self.terms.suite
        if self.suite is not None:
            return self.suite if self.suite in allowed else None
        if usual in allowed:
            return usual
        # ALG-3: CBC of any key length can be read by everybody; GCM isn't chosen unless pack or rule names it.
        cbc = sorted((suite for suite in allowed if not suite.gcm), key=rank)
        return next((s for s in cbc if s.key_length >= usual.key_length), cbc[-1] if cbc else None)

    def contradiction(self) -> str:
        """Why the options can't be meant together, empty when they can."""
        if not at_least(self.ceiling, self.floor):
            return f'floor = "{self.floor}" is above ceiling = "{self.ceiling}"'
        if not self.allowed:
            return f'ciphers = "{self.pack}" has no cipher from floor = "{self.floor}" to ceiling = "{self.ceiling}"'
        if self.suite is not None and self.suite not in self.terms.allowed:
            return f'cipher = "{self.suite}" isn\'t one of ciphers = "{self.pack}"'
        if self.suite is not None and not at_least(self.suite, self.floor):
            return f'cipher = "{self.suite}" is below floor = "{self.floor}"'
        if self.suite is not None and not at_least(self.ceiling, self.suite):
            return f'cipher = "{self.suite}" is above ceiling = "{self.ceiling}"'
        if self.transport is KeyTransport.PKCS1 and self.terms.oaep_only:
            return f'key_transport = "{self.transport}" isn\'t allowed by ciphers = "{self.pack}"'
        return ""


USUAL = CipherRule()


class Source(StrEnum):
    """Where capabilities are known from (ALG-2). ``NONE``: nothing is known, the rule alone decides."""

    NONE = "none"
    CERTIFICATE = "certificate"
    SIGNED = "signed"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a correspondent said in a signed message whose signature and signer's certificate were good.

    ``best`` are all suites that it ever listed, ``oaep`` whether it ever listed RSAES-OAEP: the measure of a downgrade.
    """

    capabilities: tuple[Capability, ...]
    signed_at: datetime
    signer: str
    learnt_at: datetime
    best: frozenset[Suite] = frozenset()
    oaep: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """Capabilities that count for one recipient, and where they are from."""

    capabilities: tuple[Capability, ...] = ()
    source: Source = Source.NONE
    remembered: Remembered | None = field(default=None)

    @property
    def words(self) -> str:
        """For people."""
        if self.source is Source.SIGNED and self.remembered is not None:
            return f"signed message of {self.remembered.signed_at:%Y-%m-%d %H:%M} UTC"
        return "extension of the certificate" if self.source is Source.CERTIFICATE else "nothing known"


@lru_cache(maxsize=8192)
def known_of(certificate: Certificate, remembered: Remembered | None = None) -> Known:
    """ALG-2: what was signed comes before what the CA wrote into the certificate long ago (RFC 4262 §1)."""
    if remembered is not None:
        return Known(remembered.capabilities, Source.SIGNED, remembered)
    listed = certificate_capabilities(certificate)
    return Known() if listed is None else Known(listed, Source.CERTIFICATE)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is used. ``transport`` None: the key isn't RSA, so the content key is agreed upon (ECDH). ``why`` is for people.

    ``fallen`` says what the recipient once had when this is less; ``others`` are all suites that it could get, best first;
    ``listed`` is what it says that it reads, as far as we write it.
    """

    suite: Suite
    transport: KeyTransport | None
    source: Source
    why: str
    fallen: str = ""
    others: tuple[Suite, ...] = ()
    listed: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """How the content key is wrapped, in one word for the log."""
        return self.transport.value if self.transport is not None else "ecdh"


@dataclass(frozen=True, slots=True)
class NoFit:
    """Nothing fits. ``code`` is a ``cipher.*`` reason, ``detail`` the words for it."""

    code: str
    detail: str


@lru_cache(maxsize=8192)
def choose(rule: CipherRule, certificate: Certificate, known: Known) -> Choice | NoFit:
    """The best that the rule allows and the recipient is known to read, never less than the rule's own."""
    transport = _transport(rule, certificate, known)
    if isinstance(transport, NoFit):
        return transport
    found = _suite(rule, known)
    if isinstance(found, NoFit):
        return found
    suite, others, reason = found
    if transport is not None:
        reason = f"{reason}; {transport[1]}"
    fallen = _fallen(rule, suite, transport[0] if transport else None, known)
    return Choice(
        suite, transport[0] if transport else None, known.source, reason, fallen, others, listed(known.capabilities)
    )


def listed(capabilities: Iterable[Capability]) -> tuple[str, ...]:
    """What of them we write, best first, for people."""
    every = tuple(capabilities)
    return (*sorted(suites(every), key=rank, reverse=True), *sorted(transports(every)))


def _suite(rule: CipherRule, known: Known) -> tuple[Suite, tuple[Suite, ...], str] | NoFit:
    """The suite, all that it could have been, and why."""
    allowed, unasked = rule.allowed, rule.unasked
    if weak_only(known.capabilities):
        # ALG-1: 3DES and RC2 never; every client that has been alive in this decade reads AES.
        if rule.weak_only is WeakOnly.REFUSE:
            return NoFit(
                "cipher.weak-only", f"{known.words}: only 3DES or weaker is listed (weak_only={rule.weak_only})"
            )
        lowest = min((suite for suite in allowed if not suite.gcm), key=rank, default=None)
        if lowest is not None and rule.suite is None:
            words = f"{known.words}: only 3DES or weaker is listed, which is never used (weak_only={rule.weak_only})"
            return lowest, (lowest,), f"{lowest} because of the {words}"
    listed = suites(known.capabilities) & allowed
    better = [s for s in listed if unasked is None or rank(s) > rank(unasked)]
    order = tuple(sorted({*better, *([unasked] if unasked else [])}, key=rank, reverse=True))
    if not order:
        return NoFit(
            "cipher.none-fits",
            f"the rule allows only {', '.join(sorted(allowed))}, and the recipient isn't known to read that "
            f"(capabilities: {known.words})",
        )
    if order[0] in better:
        return order[0], order, f"{order[0]} because the recipient reads it ({known.words})"
    return order[0], order, f"{order[0]} because {_whose(rule, order[0])}"


def _whose(rule: CipherRule, suite: Suite) -> str:
    """Who wants the suite for somebody of whom nothing better is known."""
    usual = rule.terms.suite
    if rule.suite is not None:
        return "the rule says so"
    if suite is usual:
        return f"that is usual under ciphers={rule.pack}"
    bound = f"ceiling={rule.ceiling}" if at_least(usual, rule.floor) else f"floor={rule.floor}"
    return f"{bound} excludes {usual}, which is usual under ciphers={rule.pack}"


def _transport(rule: CipherRule, certificate: Certificate, known: Known) -> tuple[KeyTransport, str] | NoFit | None:
    """The transport and why; None for a key that agrees (ECDH)."""
    kind, terms = key_kind(certificate), rule.terms
    if kind not in ("RSA", "RSA-OAEP"):
        if terms.curves is not None and kind not in terms.curves:
            return NoFit("cipher.key-excluded", f"ciphers={rule.pack} doesn't allow keys of kind {kind}")
        return None
    only_oaep, parameters = kind == "RSA-OAEP", b""
    if only_oaep:
        # ALG-4, RFC 4055 §4.1: such a key is used with OAEP only, and with the parameters that it names.
        parameters = _key_parameters(certificate)
        asked = transport_of(parameters)
        if asked is None:
            return NoFit(
                "cipher.key-excluded", "its key asks for RSAES-OAEP with parameters that postseal doesn't write"
            )
        # RFC 4055 §1.2: where it names none, the sender chooses the hash.
        if parameters not in (b"", tlv(NULL)):
            return _fitting(asked, certificate, "the key asks for it")
    if rule.transport is not None and not (only_oaep and rule.transport is KeyTransport.PKCS1):
        return _fitting(rule.transport, certificate, "the rule says so")
    listed = {t for t in transports(known.capabilities) if _fits(t, certificate)}
    if only_oaep or terms.oaep_only or (listed and terms.transport is None):
        # ALG-4: SHA-256 unless the recipient names only a longer one.
        best = next((t for t in _OAEP if t in listed), KeyTransport.OAEP_SHA256)
        demand = "the key asks for it" if only_oaep else f"ciphers={rule.pack} demands it"
        return best, f"{best} because {f'the recipient reads it ({known.words})' if listed else demand}"
    usual = f"that is usual under ciphers={rule.pack}"
    why = usual if terms.transport is KeyTransport.PKCS1 else "nothing says that the recipient reads OAEP"
    return KeyTransport.PKCS1, f"{KeyTransport.PKCS1} because {why}"


_OAEP = (KeyTransport.OAEP_SHA256, KeyTransport.OAEP_SHA384, KeyTransport.OAEP_SHA512)


def _fitting(transport: KeyTransport, certificate: Certificate, why: str) -> tuple[KeyTransport, str] | NoFit:
    if _fits(transport, certificate):
        return transport, f"{transport} because {why}"
    bits = rsa_modulus(certificate).bit_length()
    return NoFit("cipher.key-excluded", f"its RSA key of {bits} bits is too short for {transport}, but {why}")


def _fits(transport: KeyTransport, certificate: Certificate) -> bool:
    """RFC 8017 §7.1.1: is the modulus long enough for the padding around the longest content key? 2048 bits always are."""
    if transport is KeyTransport.PKCS1:
        return True
    longest = max(suite.key_length for suite in Suite)
    return -(-rsa_modulus(certificate).bit_length() // 8) >= longest + 2 * (int(transport[-3:]) // 8) + 2


def _key_parameters(certificate: Certificate) -> bytes:
    """The parameters of the key's algorithm (RFC 4055 §4.1); what can't be read counts as broken parameters."""
    try:
        algorithm = Cursor(certificate.spki).enter().enter()
        algorithm.oid()
        return algorithm.raw() if algorithm.peek() >= 0 else b""
    except BadDer:
        return b"\x30"


def _fallen(rule: CipherRule, suite: Suite, transport: KeyTransport | None, known: Known) -> str:
    """What the correspondent would get had it not lost a capability, when that is more than it gets now."""
    past = known.remembered
    if past is None:
        return ""
    once = max((s for s in past.best & rule.allowed), key=rank, default=None)
    if once is not None and rank(once) > rank(suite) and once not in suites(known.capabilities):
        return f"{suite}, though the recipient once said that it reads {once}"
    lost_oaep = past.oaep and not transports(known.capabilities)
    if transport is KeyTransport.PKCS1 and rule.transport is None and rule.terms.transport is None and lost_oaep:
        return f"{transport}, though the recipient once said that it reads RSAES-OAEP"
    return ""


def common(options: Iterable[tuple[Suite, ...]]) -> Suite | None:
    """ALG-3: the best suite that all of several recipients can get, where they must share one copy; None without one."""
    sets = [frozenset(each) for each in options]
    shared = frozenset.intersection(*sets) if sets else frozenset()
    return max(shared, key=rank, default=None)
