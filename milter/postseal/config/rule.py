"""The options of a ``[[policy]]`` entry, with their documentation."""

# ruff: noqa: RUF009  (every default is made by option, once, and is immutable)
from __future__ import annotations

from dataclasses import dataclass

from postseal.config.options import option, required
from postseal.config.values import Kind, choice, list_of, object_identifier, optional, pattern, rule_name
from postseal.core.ciphers import CipherRule, Pack, WeakOnly
from postseal.core.doubts import DoubtKnobs, OnDoubt
from postseal.core.policy import Pattern, Rule, Seal, Strictness, WithoutCertificate
from postseal.core.suite import KeyTransport, Suite
from postseal.core.verdict import OnNoneDeclared


# fmt: off
@dataclass(frozen=True, slots=True)
class Policy:
    """A rule; [[policy]] is written once for each. The first one that matches sender and recipient decides. Without a
    last rule for "any" one named "default" is added: seal = "may", without_certificate = "clear", revocation = "soft"."""

    name: str = required(rule_name(), "Name of the rule in the log. Must be given, and given only once.")
    recipients: tuple[Pattern, ...] = option(list_of(pattern(), empty=False), ["any"], "Recipients to which the rule applies.")
    senders: tuple[Pattern, ...] = option(list_of(pattern(), empty=False), ["any"], """
        Senders to which the rule applies. "any" includes the empty sender of bounces.""")
    seal: Seal = option(choice(Seal), "may", """
        "must": never in clear. "may": sealed when the recipient has a usable certificate. "never": in clear, and
        certificates are not looked at.""")
    without_certificate: WithoutCertificate | None = option(
        optional(choice(WithoutCertificate), 'clear for seal = "may", refuse for seal = "must"'), "", """
        What happens when the recipient has no usable certificate. "hold" puts the message on hold in the queue. "clear"
        contradicts seal = "must". "refuse" and "defer" answer as soon as the recipient is named, before the message is
        seen, so they also turn away mail that the sender has encrypted himself; "hold" lets it pass.""")
    revocation: Strictness = option(choice(Strictness), "soft", """
        When it can't be found out whether a certificate is revoked: "soft" seals and warns, "strict" defers until
        give_up, then refuses. The options on_... decide about single causes, also under "strict". A certificate that is
        revoked is never used, and doubt never lets mail go in clear.""")
    on_unavailable: OnDoubt | None = option(optional(choice(OnDoubt), "as in [revocation]"), "", """
        As in [revocation], for this rule.""")
    on_suspicious: OnDoubt | None = option(optional(choice(OnDoubt), "as in [revocation]"), "", """
        As in [revocation], for this rule.""")
    on_none_declared: OnNoneDeclared | None = option(optional(choice(OnNoneDeclared), "as in [revocation]"), "", """
        As in [revocation], for this rule.""")
    on_ocsp_unknown: OnDoubt | None = option(optional(choice(OnDoubt), "as in [revocation]"), "", """
        As in [revocation], for this rule.""")
    certificate_policies: frozenset[str] = option(
        Kind("list of object identifiers", list_of(object_identifier()).allowed,
            lambda v: frozenset(list_of(object_identifier()).parse(v))), [], """
        Certificate policies, of which a recipient's certificate must be valid under one, for example "2.23.140.1.5.3.3" for
        certificates that name a person and a company and were validated strictly. Empty is any, or none.""")
    ciphers: Pack = option(choice(Pack), "default", """
        What is usual among these correspondents. "default": AES-256-CBC, and RSA keys with PKCS #1 v1.5, which all clients
        read; AES-GCM and RSA-OAEP for who says that he reads them. "legacy": AES-128-CBC, never GCM, no OAEP unless the key or
        key_transport demands it. "bsi-energy": AES-128-GCM and RSA-OAEP with SHA-256, as EDI@Energy demands since October
        2025, and EC keys on NIST and Brainpool curves; cipher = "aes256-cbc" for partners who aren't there yet. "fips": AES,
        RSA-OAEP, EC keys on P-256, P-384 and P-521; no PKCS #1 v1.5.""")
    cipher: Suite | None = option(optional(choice(Suite), "as in ciphers"), "", """
        Content cipher for recipients of whom nothing better is known. Outlook and Thunderbird can't read "aes256-gcm".""")
    floor: Suite = option(choice(Suite), "aes128-cbc", """
        No shorter key, and with a GCM no CBC: whom that doesn't suit gets nothing, not even in clear. "aes128-gcm" alone
        seals only for who says that he reads GCM. Of who has no certificate without_certificate says what happens.""")
    ceiling: Suite = option(choice(Suite), "aes256-gcm", """
        No longer key, and with a CBC no GCM, whatever the recipient says that he reads.""")
    key_transport: KeyTransport | None = option(optional(choice(KeyTransport), "as in ciphers"), "", """
        How the content key is encrypted with RSA keys. A key that is for RSA-OAEP only is used so in any case.""")
    weak_only: WeakOnly = option(choice(WeakOnly), "aes128-cbc", """
        What happens when a recipient lists only ciphers that are broken, such as 3DES and RC2. These are never used; clients
        that list them read AES all the same. "refuse" doesn't use the certificate.""")

    # fmt: on
    def rule(self) -> Rule:
        fallback = WithoutCertificate.REFUSE if self.seal is Seal.MUST else WithoutCertificate.CLEAR
        return Rule(
            name=self.name,
            recipients=self.recipients,
            senders=self.senders,
            seal=self.seal,
            without_certificate=self.without_certificate or fallback,
            revocation=self.revocation,
            ciphers=CipherRule(
                self.ciphers, self.cipher, self.floor, self.ceiling, self.key_transport, self.weak_only
            ),
            certificate_policies=self.certificate_policies,
            doubt=DoubtKnobs(
                self.on_unavailable, self.on_suspicious, self.on_none_declared, self.on_ocsp_unknown
            ),
        )
