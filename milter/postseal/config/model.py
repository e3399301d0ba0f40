"""Every section and option, with its documentation. Nothing about an option is written anywhere else."""

# ruff: noqa: RUF009  (every default is made by _option, once, and is immutable)
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from postseal import __version__
from postseal.config.options import option as _option
from postseal.config.options import required as _required
from postseal.config.rule import Policy
from postseal.config.values import (
    InetSocket,
    Kind,
    Network,
    UnixSocket,
    absolute_path,
    boolean,
    certificate_name,
    choice,
    directory_server,
    domain,
    duration,
    group_name,
    header_text,
    host_or_domain,
    host_port,
    list_of,
    mail_domains,
    milter_socket,
    moment,
    nat64_prefix,
    network,
    object_identifier,
    octal_mode,
    one_of,
    optional,
    proxy_url,
    size,
    socket_path,
    whole,
)
from postseal.core.address import Mailbox
from postseal.core.doubts import OnDoubt
from postseal.core.path import AnchorSettings, PathSettings
from postseal.core.policy import (
    PolicySettings,
    Rule,
)
from postseal.core.revocation import Order, RevocationSettings, UseDeltas
from postseal.core.suite import RecipientId
from postseal.core.verdict import Nonce, OnNoneDeclared


# fmt: off
@dataclass(frozen=True, slots=True)
class General:
    """Directories that all services share."""

    state_directory: Path = _option(absolute_path(), "/var/lib/postseal", """
        What must survive a restart: fetched CRLs and OCSP answers, imported certificates, decision records, the spool.""")
    runtime_directory: Path = _option(absolute_path(), "/run/postseal", """
        Sockets between the services. May be empty after a reboot.""")


@dataclass(frozen=True, slots=True)
class Milter:
    """The service that Postfix or Sendmail speaks to."""

    socket: UnixSocket | InetSocket = _option(milter_socket(), "unix:/run/postseal/milter.sock", """
        Where the milter listens. Postfix in its chroot reaches a Unix socket only below its queue directory, for example
        "unix:/var/spool/postfix/postseal/milter.sock"; a TCP socket must be on a loopback address, because whoever
        reaches it can use it.""")
    socket_mode: int = _option(octal_mode(), "0660", "Permissions of the Unix socket.")
    socket_group: str | None = _option(optional(group_name(), "the group of the process"), "", """
        Group of the Unix socket; the group of Postfix ("postfix") lets Postfix connect.""")
    workers: int = _option(whole(0, 256), 0, "Number of worker processes. 0 is one per core.")
    pin_workers: bool = _option(boolean(), True, "Keep every worker on its own core, which is measurably faster.")
    max_messages: int = _option(whole(1, 10000), 100, """
        Messages that one worker handles at the same time. Above it the client hears 451 and tries again.""")
    memory_limit: int = _option(size("64 KiB", "4 GiB"), "12 MiB", """
        Sealed content of one message that is kept in memory. Above it a private file below spool_directory is used;
        it holds ciphertext only.""")
    spool_directory: Path | None = _option(optional(absolute_path(), "spool below state_directory"), "", """
        Directory for the ciphertext of large messages.""")
    message_size_limit: int = _option(size("0", "4 GiB"), 0, """
        Largest message after sealing, in octets; 0 is no limit of our own. Sealing adds about 40 %, and Postfix counts
        the sealed size against its own message_size_limit, so set both.""")
    drain_timeout: float = _option(duration("0 s", "10 min"), "30 s", """
        How long messages that are being worked on may take to finish when the service is stopped.""")
    internal_domains: tuple[str, ...] = _option(list_of(domain()), [], """
        Your own mail domains, without their subdomains. Only mail with a sender in them is sealed, and recipients in them
        are not sealed. Empty means that no mail is outbound, so nothing is sealed.""")
    internal_networks: tuple[Network, ...] = _option(list_of(network()), ["127.0.0.0/8", "::1/128"], """
        Clients whose mail is outbound without authentication.""")
    reinject: InetSocket | None = _option(optional(host_port(), "none"), "", """
        A listener of the same Postfix without this milter. Messages with several outcomes, for example one recipient
        sealed and one in clear, need it for the second copy; without it they are deferred with a text that says so.""")
    reinject_timeout: float = _option(duration("1 s", "5 min"), "10 s", "How long one step of such a delivery may take.")
    budget: float = _option(duration("0 s", "60 s"), "3 s", """
        How long one message may wait in all for CRLs and OCSP answers that are not stored yet. After that the rule's
        revocation setting decides.""")


@dataclass(frozen=True, slots=True)
class Lookup:
    """The service that fetches CRLs and OCSP answers; the only one with access to the Internet."""

    socket: Path | None = _option(optional(socket_path(), "lookup.sock below runtime_directory"), "", """
        Unix socket on which the milter asks.""")
    socket_group: str | None = _option(optional(group_name(), "the group of the process"), "", """
        Group that may use the socket: the milter's.""")
    request_timeout: float = _option(duration("1 s", "5 min"), "10 s", """
        Total time for one download, from name to last octet. A CRL that keeps coming at 64 KiB/s or more may take longer.""")
    crl_max_size: int = _option(size("1 KiB", "1 GiB"), "64 MiB", "Largest CRL.")
    ocsp_max_size: int = _option(size("1 KiB", "16 MiB"), "64 KiB", "Largest OCSP answer.")
    allow_networks: tuple[Network, ...] = _option(list_of(network()), [], """
        Private networks from which evidence may be fetched although they are not public. Certificates name the
        addresses, so every network here can be reached by whoever makes a trusted certificate.""")
    nat64_prefixes: tuple[IPv6Network, ...] = _option(list_of(nat64_prefix()), [], """
        Prefixes of your network's own NAT64, where it has one. An address below such a prefix leads to an IPv4 address, and
        that one is checked. The well-known prefix 64:ff9b::/96 needs no mention.""")
    ports: tuple[int, ...] = _option(list_of(whole(1, 65535), empty=False), [80, 443], "Ports that may be connected to.")
    proxy: InetSocket | None = _option(optional(proxy_url(), "none"), "", """
        A forward proxy that everything is fetched through; https by CONNECT. It resolves the names then, so the address guard
        sees only how a name is written, not which address it has: the proxy itself must keep requests out of your networks.
        Proxy settings of the environment are ignored.""")
    no_proxy: tuple[str, ...] = _option(list_of(host_or_domain()), [], """
        Hosts, or domains with a leading dot, that are fetched from directly although there is a proxy.""")
    ldap_servers: tuple[InetSocket, ...] = _option(list_of(directory_server()), [], """
        Directories that may be asked for CRLs where a certificate names them by ldap: URLs, each as "HOST" or "HOST:PORT".
        Empty is off, unless there is an ldap_default. The search is anonymous and without TLS; the proxy isn't used,
        allow_networks counts. Needs python-ldap, which the extra "ldap" installs.""")
    ldap_default: InetSocket | None = _option(optional(directory_server(), "none"), "", """
        Directory for ldap: URLs without a host, as CAs in Windows domains write them: one of its domain controllers.""")
    user_agent: str = _option(header_text(), f"postseal/{__version__}", """
        What web servers are told. Some refuse unknown clients; a contact address helps.""")
    fetch: bool = _option(boolean(), True, """
        false is for a node without a way to the Internet: nothing is fetched and nobody waits for it; evidence comes with
        "postseal evidence import", by hand or as bundles of a node that fetches.""")
    prefetch: bool = _option(boolean(), True, "Fetch CRLs and OCSP answers again before they expire.")
    concurrency: int = _option(whole(1, 64), 8, "Downloads at the same time.")
    fetch_issuers: bool = _option(boolean(), True, """
        Fetch the certificate of an issuer that isn't known from where the certificate says (AIA), for certificates from your
        own folder, store and directories. It is kept if it completes a path to one of your anchors; it never becomes one.""")
    requests_per_message: int = _option(whole(1, 1000), 6, """
        Downloads that one message may cause. What is beyond that is unknown, and the rule's revocation setting decides.""")
    requests_per_host: int = _option(whole(1, 64), 2, "Downloads from one host at the same time.")
    requests_per_minute: int = _option(whole(1, 10000), 10, """
        Downloads from one host within a minute. Raise it for an OCSP responder of your own.""")
    traffic_per_day: int = _option(size("1 MiB", "1024 GiB"), "4 GiB", """
        Octets that may be downloaded within a day (UTC); after that nothing is fetched until the next.""")
    store_max_size: int = _option(size("16 MiB", "1024 GiB"), "4 GiB", """
        Largest size of all stored CRLs together. What was used longest ago goes first; one CA may take half of it.""")

    @property
    def ldap(self) -> bool:
        """Are directories asked for CRLs?"""
        return bool(self.ldap_servers) or self.ldap_default is not None


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where certificates are read from. Changes are seen within seconds."""

    directory: Path = _option(absolute_path(), "/etc/postseal/certificates", """
        Recipients' certificates, as PEM, DER or PKCS#7 files. "postseal cert import" fills a store beside it.""")
    anchors: Path = _option(absolute_path(), "/etc/postseal/anchors", """
        Certificates of the root CAs that you trust for mail. Nothing else is trusted, and the system's list isn't used.""")
    intermediates: Path = _option(absolute_path(), "/etc/postseal/intermediates", """
        Certificates of intermediate CAs that complete paths. They are not trusted by themselves.""")
    bundle_signers: Path = _option(absolute_path(), "/etc/postseal/bundle-signers", """
        Certificates of the nodes whose bundles of evidence "postseal evidence import" takes, as "postseal evidence
        export-key" makes them. They are trusted for nothing else; it needn't exist.""")


@dataclass(frozen=True, slots=True)
class Anchor:
    """Settings for one of the trusted CAs in the folder of anchors; [[anchor]] is written once for each that needs some. What
    the certificate says of itself, such as name constraints, holds in any case."""

    certificate: str = _required(certificate_name(), """
        Which one: a file, with all certificates in it, or a single certificate. Must be given.""")
    domains: tuple[str, ...] = _option(list_of(mail_domains()), [], """
        Mail domains whose addresses it may certify; a certificate with another address too isn't trusted. Empty is all.""")
    excluded_domains: tuple[str, ...] = _option(list_of(mail_domains()), [], """
        Mail domains whose addresses it must not certify, your own for example.""")
    required_policies: tuple[str, ...] = _option(list_of(object_identifier()), [], """
        Certificate policies, of which a path must be valid under one. Empty is any, or none.""")
    distrust_after: datetime | None = _option(optional(moment(), "never"), "", """
        Certificates issued later aren't trusted. A CA that is being given up keeps vouching for what is in use.""")
    expired: bool = _option(boolean(), False, "Trust it also after its own certificate has expired.")
    public: bool = _option(boolean(), False, """
        It is a public CA: its OCSP responders must be exempt from revocation or provably not revoked.""")
    order: Order | None = _option(optional(choice(Order), "that of [revocation]"), "", """
        Which source is asked first, or alone, whether a certificate below it has been revoked.""")
    on_none_declared: OnNoneDeclared | None = _option(optional(choice(OnNoneDeclared), "that of [revocation]"), "", """
        What to do when a certificate below it names neither a CRL nor an OCSP responder.""")

    # fmt: on
    def settings(self) -> AnchorSettings:
        return AnchorSettings(
            domains=self.domains,
            excluded_domains=self.excluded_domains,
            order=self.order,
            distrust_after=self.distrust_after,
            required_policies=frozenset(self.required_policies),
            expired=self.expired,
            public=self.public,
            on_none_declared=self.on_none_declared,
        )

    # fmt: off


@dataclass(frozen=True, slots=True)
class Revocation:
    """How it is found out whether a certificate has been revoked."""

    order: Order = _option(choice(Order), "crl-first", """
        Which source is asked first, or alone. A CRL doesn't tell the CA who writes to whom. "both" asks for both.""")
    skew: float = _option(duration("0 s", "1 h"), "5 min", "How wrong clocks may be.")
    on_unavailable: OnDoubt = _option(choice(OnDoubt), "warn", """
        What to do under revocation = "soft" when no evidence is to be had: servers that can't be reached, evidence that is
        out of date or of a kind that isn't understood. "warn" seals and warns, "defer" answers 451, "refuse" doesn't use
        the certificate. revocation = "strict" defers where this says "warn".""")
    on_suspicious: OnDoubt = _option(choice(OnDoubt), "warn", """
        The same when evidence looks forged: a bad signature, the wrong issuer, an older CRL in place of a newer one. "warn"
        logs an error. Who can forge evidence on the way can also hold it back, so to refuse buys little.""")
    on_none_declared: OnNoneDeclared = _option(choice(OnNoneDeclared), "warn", """
        What to do when a certificate names neither a CRL nor an OCSP responder. "accept" seals without a word, "refuse"
        doesn't use the certificate. revocation = "strict" doesn't use it unless its rule or its trust anchor says so.""")
    on_ocsp_unknown: OnDoubt = _option(choice(OnDoubt), "refuse", """
        What to do when an OCSP responder says that it doesn't know the certificate, and no CRL knows better. CAs say so of
        certificates that they never issued.""")
    give_up: float = _option(duration("1 min", "10 d"), "24 h", """
        How long mail to one recipient for one certificate is deferred because of doubt, counted from the first 451. After
        that it is refused, so that the sender hears of it, and until the status is known again.""")
    stale_grace: float = _option(duration("0 s", "30 d"), "24 h", """
        How long after its end a CRL still lets mail pass with a warning under revocation = "soft", whatever on_unavailable
        says. Then on_unavailable decides, and the log has an error. There is no such time for OCSP answers.""")
    ca_stale_grace: float = _option(duration("0 s", "60 d"), "7 d", """
        The same for the CRLs on which CA certificates would be.""")
    ocsp_nonce: Nonce = _option(choice(Nonce), "off", """
        A number in each OCSP request that the answer repeats, so that it can't be an old one. It makes answers from caches
        impossible, and many responders leave it out: "on" takes such answers too, and stops asking that responder for it;
        "require" takes none. "postseal verify --online" and "postseal evidence refresh" always ask for it.""")
    max_age_without_next_update: float = _option(duration("1 min", "30 d"), "24 h", """
        How long evidence that doesn't say when it expires is used.""")
    use_deltas: UseDeltas = _option(choice(UseDeltas), "yes", """
        Delta CRLs, where a certificate or a CRL points to them. "require" doesn't believe a CRL alone that announces deltas;
        "no" never fetches one.""")
    short_lived: float = _option(duration("0 s", "30 d"), "0 s", """
        Certificates that say that they won't be revoked (RFC 9608) are good without evidence if they live no longer than
        this. 0 believes none.""")
    weak_keys: bool = _option(boolean(), False, """
        Accept RSA keys from 1024 to 2047 bits and signatures with SHA-1. For old private CAs only.""")


@dataclass(frozen=True, slots=True)
class Sealing:
    """How sealed copies are made, whatever the rule. What they are encrypted with is a matter of [[policy]]."""

    recipient_id: RecipientId = _option(choice(RecipientId), "issuer", """
        How certificates are named in a message. "issuer": by issuer and serial number, which every mail program understands.
        "key-id": by their subject key identifier, which tells strangers less, and which gpgsm 2.2 doesn't understand; a
        certificate without one is named by its issuer.""")
    join_families: bool = _option(boolean(), False, """
        Seal for RSA, EC and X25519 keys in one message. It saves a copy, and mail programs with an old NSS (before 3.99)
        can't open such a message, not even with their RSA key.""")
    x25519: bool = _option(boolean(), False, """
        Seal for X25519 keys. No common mail program opens such mail, so a certificate with one can't be used otherwise.""")


@dataclass(frozen=True, slots=True)
class Responder:
    """An OCSP responder that is believed about the certificates of one CA although that CA didn't appoint it, for example one
    that a company runs for all of its CAs; [[responder]] is written once for each pair. Files are read at the start."""

    certificate: Path = _required(absolute_path(), "File with the certificate that signs the answers, PEM or DER.")
    issuer: Path = _required(absolute_path(), """
        File with the certificate of the CA. What counts is its key.""")


@dataclass(frozen=True, slots=True)
class Log:
    """The mail log."""

    facility: str = _option(
        one_of("mail", "daemon", "user", *(f"local{n}" for n in range(8))), "mail", "Syslog facility.")
    socket: str | Path = _option(Kind("log target", '"auto", "stderr" or the absolute path of a syslog socket',
        lambda v: v if v in ("auto", "stderr") else socket_path().parse(v)), "auto", """
        "auto" writes to the journal, with fields, where systemd-journald runs, and to /dev/log elsewhere.""")
    level: str = _option(one_of("debug", "info", "warning", "error"), "info", """
        The least important lines that are written. "warning" drops the line per recipient.""")


@dataclass(frozen=True, slots=True)
class Decisions:
    """Records behind "postseal explain"."""

    keep: float = _option(duration("0 s", "3650 d"), "30 d", """
        How long records are kept; they hold addresses, no content. 0 writes none.""")


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers for Prometheus, served by "postseal metrics". They tell how much mail you send and what becomes of it, but no
    addresses."""

    listen: InetSocket | None = _option(optional(host_port(), "nothing is counted"), "", """
        Where metrics are served by HTTP, for example "127.0.0.1:9463". There is no password, so only a loopback address is
        accepted unless allow_remote says otherwise.""")
    allow_remote: bool = _option(boolean(), False, "Let listen be an address that other machines can reach.")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. ``rules`` are the ``[[policy]]`` entries as core takes them, the catch-all last."""

    path: str
    general: General
    milter: Milter
    lookup: Lookup
    certificates: Certificates
    revocation: Revocation
    sealing: Sealing
    log: Log
    decisions: Decisions
    metrics: Metrics
    rules: tuple[Rule, ...]
    anchors: tuple[Anchor, ...] = ()
    responders: tuple[Responder, ...] = ()

    @staticmethod
    def default(**sections: Any) -> Config:
        """The defaults, with what a TOML file would say laid over them: ``Config.default(milter={"workers": 2},
        policy=[{"name": "all", "seal": "must"}])``. Paths may be given as Path. Raises ConfigProblems."""
        from postseal.config.load import from_mapping

        return from_mapping(_plain(sections), "(built in)", {})

    @property
    def evidence_directory(self) -> Path:
        return self.general.state_directory / "evidence"

    @property
    def certificate_store(self) -> Path:
        return self.general.state_directory / "certificates.sqlite"

    @property
    def doubt_store(self) -> Path:
        return self.general.state_directory / "doubts.sqlite"

    @property
    def decision_store(self) -> Path:
        return self.general.state_directory / "decisions.sqlite"

    @property
    def spool_directory(self) -> Path:
        return self.milter.spool_directory or self.general.state_directory / "spool"

    @property
    def lookup_socket(self) -> Path:
        return self.lookup.socket or self.general.runtime_directory / "lookup.sock"

    def metrics_directory(self, service: str) -> Path:
        """Where the processes of one service count."""
        return self.general.runtime_directory / f"metrics-{service}"

    @property
    def anchor_settings(self) -> Mapping[str, AnchorSettings]:
        """File name or fingerprint -> what ``[[anchor]]`` says about it."""
        return {anchor.certificate: anchor.settings() for anchor in self.anchors}

    @property
    def path_settings(self) -> PathSettings:
        return PathSettings(weak_keys=self.revocation.weak_keys)

    @property
    def revocation_settings(self) -> RevocationSettings:
        return RevocationSettings(
            order=self.revocation.order,
            skew=timedelta(seconds=self.revocation.skew),
            max_age_without_next_update=timedelta(seconds=self.revocation.max_age_without_next_update),
            weak_keys=self.revocation.weak_keys,
            use_deltas=self.revocation.use_deltas,
            ldap=self.lookup.ldap,
            short_lived=timedelta(seconds=self.revocation.short_lived),
            nonce=self.revocation.ocsp_nonce,
        )

    @property
    def policy_settings(self) -> PolicySettings:
        own = self.revocation
        return PolicySettings(
            own.on_suspicious, own.on_none_declared, own.on_unavailable, own.on_ocsp_unknown,
            give_up=timedelta(seconds=own.give_up), stale_grace=timedelta(seconds=own.stale_grace),
            ca_stale_grace=timedelta(seconds=own.ca_stale_grace),
            join_families=self.sealing.join_families, recipient_id=self.sealing.recipient_id,
        )  # fmt: skip

    def is_internal(self, mailbox: Mailbox | None) -> bool:
        """Is the mailbox in one of ``internal_domains``?"""
        return mailbox is not None and mailbox.domain in self.milter.internal_domains


# Section name in the file -> its dataclass. All are tables but those of ``ARRAYS``.
SECTIONS: Mapping[str, type] = {
    "general": General,
    "milter": Milter,
    "lookup": Lookup,
    "certificates": Certificates,
    "anchor": Anchor,
    "revocation": Revocation,
    "sealing": Sealing,
    "responder": Responder,
    "log": Log,
    "decisions": Decisions,
    "metrics": Metrics,
    "policy": Policy,
}
ARRAYS = ("anchor", "responder", "policy")
"""Sections that are arrays of tables, written ``[[name]]``."""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
