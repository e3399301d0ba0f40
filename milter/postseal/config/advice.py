"""A configuration that is valid may still not do what was meant; these are the questions that a colleague would ask."""

from __future__ import annotations

from collections.abc import Iterator

from postseal.config.model import Config
from postseal.config.values import InetSocket
from postseal.core.policy import Seal, WithoutCertificate
from postseal.core.revocation import Order

# RFC 2606 §3; the file that comes with postseal names one of them.
_EXAMPLES = frozenset({"example.com", "example.net", "example.org"})


def warnings(config: Config) -> tuple[str, ...]:
    """One sentence each; empty when there is nothing to say."""
    return tuple((*_mail(config), *_trust(config), *_copies(config), *_rules(config)))


def _mail(config: Config) -> Iterator[str]:
    milter = config.milter
    if not milter.internal_domains:
        yield "[milter] internal_domains is empty: no mail is outbound, so nothing will be sealed"
    for domain in sorted(_EXAMPLES & {*milter.internal_domains}):
        yield f"[milter] internal_domains names {domain}, which is nobody's: put your own mail domains there"
    if isinstance(milter.socket, InetSocket) and not milter.socket.is_loopback:
        host = milter.socket.host
        yield f"[milter] socket is on {host}: whoever reaches it can use it; use a loopback address or a Unix socket"
    if milter.socket_mode & 0o002:
        yield f'[milter] socket_mode = "{milter.socket_mode:04o}" lets every user of this machine connect'
    sealed = [r for r in config.rules if r.seal is not Seal.NEVER]
    clear = [r for r in config.rules if r.seal is Seal.NEVER or r.without_certificate is WithoutCertificate.CLEAR]
    if not milter.reinject and sealed:
        mixed = "one whom it is sealed for and one whom it isn't" if clear else "RSA and EC certificates"
        yield f"[milter] reinject is empty: a message to recipients with several outcomes ({mixed}) will be deferred"
    if any(network.prefixlen == 0 for network in milter.internal_networks):
        yield "[milter] internal_networks holds the whole Internet: every client's mail with your sender address is outbound"


def _trust(config: Config) -> Iterator[str]:
    if config.revocation.weak_keys:
        yield "[revocation] weak_keys = true: RSA keys under 2048 bits and SHA-1 can be broken"
    if config.revocation.order in (Order.OCSP_ONLY, Order.OCSP_FIRST):
        yield f'[revocation] order = "{config.revocation.order.value}" tells the CAs who writes to whom, and when'
    if config.lookup.allow_networks:
        yield "[lookup] allow_networks is set: certificates can make this machine fetch from those private networks"
    if config.lookup.request_timeout < config.milter.budget:
        yield "[lookup] request_timeout is shorter than [milter] budget: the rest of the budget is never used"


def _copies(config: Config) -> Iterator[str]:
    if config.sealing.x25519:
        yield "[sealing] x25519 = true: no common mail program opens mail for X25519 keys"
    if config.sealing.join_families:
        yield "[sealing] join_families = true: an NSS before 3.99 can't open mail for RSA and EC keys together"


def _rules(config: Config) -> Iterator[str]:
    for rule in config.rules:
        if rule.seal is Seal.NEVER:
            continue
        ciphers = rule.ciphers
        if ciphers.suite is not None and ciphers.suite.gcm:
            yield f'[[policy]] rule "{rule.name}": Outlook and Thunderbird can\'t read cipher = "{ciphers.suite}"'
        elif ciphers.unasked is None:
            words = f'[[policy]] rule "{rule.name}": floor = "{ciphers.floor}" seals only for who says that he reads it'
            if rule.without_certificate is WithoutCertificate.CLEAR:
                words += '; who has no certificate still gets mail in clear (without_certificate = "clear")'
            yield words
    if all(rule.seal is Seal.NEVER for rule in config.rules):
        yield '[[policy]] every rule says seal = "never": nothing will be sealed'
