"""Which mail is outbound, and who a recipient is: the envelope as the MTA tells it, taken apart once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from postseal.core.address import Mailbox, domain_to_ascii, parse_path
from postseal.core.errors import BadData
from postseal.core.text import escape

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Client:
    """Who submits: host name and address as the MTA says, ``login`` the SASL name ({auth_authen}), empty without."""

    name: str = ""
    address: str = ""
    port: int | None = None
    login: str = ""

    @property
    def local(self) -> bool:
        """Injected on this host with sendmail(1): Postfix says so of non_smtpd_milters by a port that TCP doesn't have."""
        return self.port == 0 and self.name == "localhost"

    def __str__(self) -> str:
        return f"{escape(self.name, 255)}[{escape(self.address, 64)}]"


@dataclass(frozen=True, slots=True)
class Sender:
    """The envelope sender. ``mailbox`` None is the null sender, or with ``fault`` one that can't be parsed."""

    mailbox: Mailbox | None
    domain: str
    fault: str = ""

    @classmethod
    def parse(cls, raw: str) -> Sender:
        """A path as the MTA gives it. Never raises: also of a broken one the domain counts."""
        try:
            mailbox = parse_path(raw)
        except BadData as exc:
            return cls(None, _domain(raw), str(exc))
        return cls(mailbox, mailbox.domain if mailbox else "")


def _domain(raw: str) -> str:
    try:
        return domain_to_ascii(raw.rstrip("> \t").rpartition("@")[2])
    except BadData:
        return ""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where inside ends: ``internal_domains`` in A-labels, ``internal_networks`` of clients that need no login."""

    domains: Collection[str]
    networks: Sequence[Network]

    def why_not_outbound(self, sender: Sender, client: Client) -> str:
        """Empty for outbound mail; else the reason, for the log."""
        # THR-15: only a client that is known may have its mail sealed, or decide by its envelope that it isn't.
        if not (client.login or client.local or self._near(client.address)):
            return f"client {client} is neither authenticated nor in internal_networks"
        if sender.domain not in self.domains:
            return "the sender is not in internal_domains"
        return ""

    def _near(self, address: str) -> bool:
        try:
            ip = ip_address(address.removeprefix("IPv6:"))
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self.networks)

    def recipient(self, raw: str) -> tuple[Mailbox | None, bool]:
        """(mailbox or None when it can't be parsed, is it internal). CERT-7: of the recipient as the MTA names it."""
        bare = raw[1:-1] if raw.startswith("<") and raw.endswith(">") else raw
        local = bare.rpartition("@")[0] if "@" in bare else bare
        # The MTA may still route by these (allow_percent_hack, swap_bangpath): an inside address that leads outside.
        routed = any(character in local for character in "%!@")
        if "@" not in bare:
            # RFC 5321 §2.3.5 allows only postmaster without a domain; the MTA completes others with its own.
            return None, bool(bare) and not routed
        try:
            mailbox = parse_path(raw)
        except BadData:
            return None, False
        if mailbox is None or mailbox.domain not in self.domains:
            return mailbox, False
        return (None, False) if routed else (mailbox, True)
