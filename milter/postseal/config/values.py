"""Kinds of values that an option can have: what is allowed, in words, and how TOML becomes a Python value."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from postseal.core.address import domain_to_ascii
from postseal.core.errors import BadData
from postseal.core.policies import valid_oid
from postseal.core.policy import Pattern

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_TIME_UNITS = {
    "": 1.0, "ms": 0.001, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_SIZE_UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
# sun_path holds 108 octets with the final NUL (unix(7)).
_UNIX_PATH_MAX = 107


@dataclass(frozen=True, slots=True)
class Kind:
    """``allowed`` completes "must be …". ``parse`` raises ValueError; a text in it replaces the offending value shown."""

    name: str
    allowed: str
    parse: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A Unix socket at an absolute path."""

    path: Path


@dataclass(frozen=True, slots=True)
class InetSocket:
    """A TCP socket; ``host`` is an IPv4 or IPv6 address without brackets, or a host name."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Can only this machine reach it?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _typed(value: Any, *types: type) -> Any:
    # bool is an int to Python, never to an administrator.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError
    return value


def boolean() -> Kind:
    return Kind("boolean", "true or false", lambda value: _typed(value, bool))


def whole(low: int, high: int) -> Kind:
    def parse(value: Any) -> int:
        number: int = _typed(value, int)
        if not low <= number <= high:
            raise ValueError
        return number

    return Kind("whole number", f"a whole number from {low} to {high}", parse)


def duration(low: str, high: str) -> Kind:
    """Seconds as float. ``low`` and ``high`` are included."""
    least, most = parse_duration(low), parse_duration(high)

    def parse(value: Any) -> float:
        seconds = parse_duration(value)
        if not least <= seconds <= most:
            raise ValueError
        return seconds

    return Kind("time", f'a time from {low} to {high}, such as "3 s", "30 min", "24 h" or "7 d"', parse)


def parse_duration(value: Any) -> float:
    """A number of seconds, or a text with a unit. Raises ValueError."""
    if isinstance(value, str):
        match = _QUANTITY.match(value)
        if not match or match[2].lower() not in _TIME_UNITS:
            raise ValueError
        return float(match[1]) * _TIME_UNITS[match[2].lower()]
    return float(_typed(value, int, float))


def size(low: str, high: str) -> Kind:
    """Octets as int. ``low`` and ``high`` are included."""
    least, most = parse_size(low), parse_size(high)

    def parse(value: Any) -> int:
        octets = parse_size(value)
        if not least <= octets <= most:
            raise ValueError
        return octets

    return Kind("size", f'a size from {low} to {high}, such as 65536, "64 KiB" or "16 MiB"', parse)


def parse_size(value: Any) -> int:
    """A number of octets, or a text with a unit. Raises ValueError."""
    if isinstance(value, str):
        match = _QUANTITY.match(value)
        if not match or match[2].lower() not in _SIZE_UNITS:
            raise ValueError
        return int(float(match[1]) * _SIZE_UNITS[match[2].lower()])
    octets: int = _typed(value, int)
    return octets


def choice(enum: type[StrEnum]) -> Kind:
    members = " or ".join(f'"{m.value}"' for m in enum)
    return Kind("choice", members, lambda value: enum(_typed(value, str)))


def one_of(*allowed: str) -> Kind:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return Kind("choice", " or ".join(f'"{a}"' for a in allowed), parse)


def optional(kind: Kind, meaning: str) -> Kind:
    """An empty text is None, which means ``meaning``."""
    return Kind(
        kind.name, f'{kind.allowed}, or "" ({meaning})', lambda value: None if value == "" else kind.parse(value)
    )


def absolute_path() -> Kind:
    def parse(value: Any) -> Path:
        text: str = _typed(value, str)
        if not text.startswith("/") or "\0" in text or ".." in text.split("/"):
            raise ValueError
        return Path(text)

    return Kind("path", "an absolute path without '..'", parse)


def socket_path() -> Kind:
    base = absolute_path()

    def parse(value: Any) -> Path:
        path: Path = base.parse(value)
        if len(str(path).encode()) > _UNIX_PATH_MAX:
            raise ValueError
        return path

    return Kind("path", f"an absolute path of at most {_UNIX_PATH_MAX} octets", parse)


def parse_socket(value: Any) -> UnixSocket | InetSocket:
    """``unix:/path`` or ``inet:PORT@HOST``. Raises ValueError."""
    scheme, _, rest = str(_typed(value, str)).partition(":")
    if scheme == "unix":
        return UnixSocket(socket_path().parse(rest))
    if scheme == "inet":
        port, _, host = rest.partition("@")
        return InetSocket(_host(host), _port(port))
    raise ValueError


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError
    return int(text)


def _host(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if not _HOST_NAME.match(bare):
            raise ValueError from None
        return bare


def milter_socket() -> Kind:
    return Kind("socket", '"unix:/path" (at most 107 octets) or "inet:PORT@HOST"', parse_socket)


def host_port() -> Kind:
    def parse(value: Any) -> InetSocket:
        host, colon, port = str(_typed(value, str)).rpartition(":")
        if not colon or (":" in host and not host.startswith("[")):
            raise ValueError
        return InetSocket(_host(host), _port(port))

    return Kind("address", '"HOST:PORT", with an IPv6 address in brackets', parse)


def proxy_url() -> Kind:
    base = host_port()

    def parse(value: Any) -> InetSocket:
        text = str(_typed(value, str))
        if not text.lower().startswith("http://"):
            raise ValueError
        socket: InetSocket = base.parse(text[7:].removesuffix("/"))
        return socket

    return Kind("proxy", '"http://HOST:PORT", without a user name', parse)


def host_or_domain() -> Kind:
    def parse(value: Any) -> str:
        text = str(_typed(value, str)).lower()
        name = text.removeprefix(".")
        if not _HOST_NAME.match(name) and ":" not in name:
            raise ValueError
        return text if text.startswith(".") else _host(text)

    return Kind("host", 'a host such as "pki.corp.example", or ".corp.example" for all below it', parse)


def directory_server() -> Kind:
    def parse(value: Any) -> InetSocket:
        text = str(_typed(value, str))
        # A bare IPv6 address has colons but no port.
        if ":" in text and not (text.count(":") > 1 and not text.startswith("[")) and not text.endswith("]"):
            return host_port().parse(text)  # type: ignore[no-any-return]
        return InetSocket(_host(text), 389)

    return Kind("directory", '"HOST" or "HOST:PORT"', parse)


def octal_mode() -> Kind:
    def parse(value: Any) -> int:
        if not re.fullmatch(r"0?[0-7]{3}", _typed(value, str)):
            raise ValueError
        return int(value, 8)

    return Kind("mode", 'an octal mode in quotes, such as "0660"', parse)


def group_name() -> Kind:
    def parse(value: Any) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", _typed(value, str)):
            raise ValueError
        return str(value)

    return Kind("group", "the name or number of a group", parse)


def header_text() -> Kind:
    def parse(value: Any) -> str:
        if not re.fullmatch(r"[!-~](?:[ -~]{0,198}[!-~])?", _typed(value, str)):
            raise ValueError
        return str(value)

    return Kind("text", "1 to 200 printable ASCII characters", parse)


def rule_name() -> Kind:
    def parse(value: Any) -> str:
        if not _NAME.match(_typed(value, str)):
            raise ValueError
        return str(value)

    return Kind("name", "letters, digits, '.', '_' and '-', at most 64", parse)


def _domain(value: Any) -> str:
    try:
        return domain_to_ascii(_typed(value, str))
    except BadData:
        raise ValueError from None


def domain() -> Kind:
    return Kind("domain", 'a mail domain such as "example.org", without "@" or a leading dot', _domain)


def network() -> Kind:
    return Kind(
        "network", 'a network such as "192.0.2.0/24", "2001:db8::/32" or "127.0.0.1", without host bits',
        lambda value: ipaddress.ip_network(_typed(value, str)),
    )  # fmt: skip


def nat64_prefix() -> Kind:
    def parse(value: Any) -> ipaddress.IPv6Network:
        prefix = ipaddress.IPv6Network(_typed(value, str))
        # RFC 6052 §2.2 knows these lengths only.
        if prefix.prefixlen not in (32, 40, 48, 56, 64, 96):
            raise ValueError
        return prefix

    return Kind("NAT64 prefix", 'an IPv6 prefix such as "2001:db8:64::/96", its length 32, 40, 48, 56, 64 or 96', parse)


def pattern() -> Kind:
    def parse(value: Any) -> Pattern:
        try:
            return Pattern.parse(_typed(value, str))
        except BadData:
            raise ValueError from None

    return Kind("pattern", '"any", "user@domain", "domain" or ".domain" (its subdomains)', parse)


def mail_domains() -> Kind:
    """A domain, or with a leading dot those below it, in A-labels."""

    def parse(value: Any) -> str:
        dot = "." if _typed(value, str).startswith(".") else ""
        return dot + _domain(value.removeprefix("."))

    return Kind("mail domain", '"example.org", or ".example.org" for the domains below it', parse)


def certificate_name() -> Kind:
    def parse(value: Any) -> str:
        text: str = _typed(value, str)
        fingerprint = text.lower().removeprefix("sha256:").replace(":", "")
        if _FINGERPRINT.match(fingerprint):
            return fingerprint
        if not text or "/" in text or not text.isprintable() or text.startswith("."):
            raise ValueError
        return text

    return Kind(
        "certificate", "the name of a file in the folder, or the SHA-256 fingerprint of a certificate in it", parse
    )


def object_identifier() -> Kind:
    def parse(value: Any) -> str:
        if not valid_oid(_typed(value, str)):
            raise ValueError
        return str(value)

    return Kind("object identifier", 'an object identifier such as "2.23.140.1.5.3.2"', parse)


def moment() -> Kind:
    """A day, which ends with it, or a time with a zone; as a text or as TOML has them."""

    def parse(value: Any) -> datetime:
        given = value if isinstance(value, date) else _moment(_typed(value, str))
        if not isinstance(given, datetime):
            given = datetime(given.year, given.month, given.day, 23, 59, 59, tzinfo=UTC)
        if given.tzinfo is None:
            raise ValueError
        try:
            return given.astimezone(UTC)
        except OverflowError:
            raise ValueError from None

    return Kind("day or time", '"2026-06-30", of which all is meant, or a time such as "2026-06-30T12:00:00Z"', parse)


def _moment(text: str) -> date:
    return date.fromisoformat(text) if _DAY.match(text) else datetime.fromisoformat(text)


def list_of(kind: Kind, *, empty: bool = True) -> Kind:
    """A TOML array -> tuple without duplicates, in the order written."""

    def parse(value: Any) -> tuple[Any, ...]:
        items = _typed(value, list)
        if not items and not empty:
            raise ValueError
        out: dict[Any, None] = {}
        for item in items:
            try:
                out[kind.parse(item)] = None
            except ValueError:
                raise ElementError(item, kind.allowed) from None
        return tuple(out)

    least = "a list" if empty else "a list of one or more"
    return Kind(f"list of {kind.name}s", f"{least}, each entry {kind.allowed}", parse)


class ElementError(ValueError):
    """One element of a list is wrong; ``element`` is what to show, ``allowed`` completes "each must be one of"."""

    def __init__(self, element: Any, allowed: str) -> None:
        super().__init__()
        self.element = element
        self.allowed = allowed
