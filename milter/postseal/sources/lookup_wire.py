"""What milter and command line say to ``postseal lookup``: one request and one reply per connection on its Unix socket.

A message is its length (4 octets, big-endian) and that many octets of JSON. Certificates are base64 DER, each once, and are
referred to by number. URLs are not sent: the lookup process reads them from the certificates after it validated these, so a
client can't make it fetch what no trusted CA wrote (PRE-1). The one exception, an orphan's caIssuers, can be switched off.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from postseal.core.certs import Certificate, load_certificate
from postseal.core.errors import BadData
from postseal.core.evidence import Orphan, Question, question_for

MAX_REQUEST = 1024 * 1024
MAX_REPLY = 16 * 1024 * 1024
MAX_QUESTIONS = 64
MAX_CERTIFICATES = 256
_MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class Ask:
    """Fetch what these questions need, and issuers of ``orphans``, within ``budget`` seconds.

    ``message`` is any short name under which asks for one message share their budget of requests; empty: this ask is alone.
    """

    questions: tuple[Question, ...]
    budget: float
    orphans: tuple[Orphan, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class Refresh:
    """Fetch stored evidence of these names or URLs again (all if empty), within ``budget`` seconds."""

    names: tuple[str, ...]
    budget: float


def encode_ask(questions: Sequence[Question | Orphan], budget: float, message: str = "") -> bytes:
    """The request for ``Ask``."""
    numbers: dict[bytes, int] = {}

    def number(certificate: Certificate) -> int:
        return numbers.setdefault(certificate.der, len(numbers))

    asked = [
        {"certificate": number(q.certificate), "issuer": number(q.issuer), "chain": [number(c) for c in q.chain]}
        for q in questions[:MAX_QUESTIONS]
        if isinstance(q, Question)
    ]
    orphans = [number(q.certificate) for q in questions[:MAX_QUESTIONS] if isinstance(q, Orphan)]
    certificates = [base64.b64encode(der).decode() for der in numbers]
    values = {"op": "ask", "budget": budget, "certificates": certificates, "questions": asked}
    return _encode({**values, "orphans": orphans, "message": message[:_MAX_NAME]})


def encode_refresh(names: Sequence[str], budget: float) -> bytes:
    """The request for ``Refresh``."""
    return _encode({"op": "refresh", "budget": budget, "names": list(names)})


def decode_request(blob: bytes) -> Ask | Refresh:
    """The inverse. Raises BadData for anything that the two functions above can't have made."""
    try:
        data = json.loads(blob)
        budget = float(data["budget"])
        if not 0 <= budget <= 3600:
            raise ValueError("budget")
        if data["op"] == "refresh":
            return Refresh(tuple(str(name) for name in data["names"]), budget)
        if data["op"] != "ask" or len(data["questions"]) > MAX_QUESTIONS:
            raise ValueError("op")
        if len(data["certificates"]) > MAX_CERTIFICATES:
            raise ValueError("certificates")
        certificates = [load_certificate(base64.b64decode(text, validate=True)) for text in data["certificates"]]
        orphans = tuple(Orphan(certificates[int(n)]) for n in data.get("orphans", ())[:MAX_QUESTIONS])
        questions = tuple(_question(item, certificates) for item in data["questions"])
        return Ask(questions, budget, orphans, str(data.get("message", ""))[:_MAX_NAME])
    except BadData:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as exc:
        raise BadData(f"not a request that postseal lookup knows ({type(exc).__name__})") from exc


def _question(item: Mapping[str, Any], certificates: Sequence[Certificate]) -> Question:
    question = question_for(certificates[int(item["certificate"])], certificates[int(item["issuer"])])
    return replace(question, chain=tuple(certificates[int(n)] for n in item["chain"][:16]))


def encode_reply(values: Mapping[str, Any]) -> bytes:
    """A reply: plain JSON values."""
    return _encode(values)


def decode_reply(blob: bytes) -> dict[str, Any]:
    """The inverse. Raises BadData."""
    try:
        data = json.loads(blob)
    except ValueError as exc:
        raise BadData("the reply of postseal lookup is not JSON") from exc
    if not isinstance(data, dict):
        raise BadData("the reply of postseal lookup is not an object")
    return data


def _encode(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


def send(channel: socket.socket, message: bytes, left: Callable[[], float]) -> None:
    """Write one message; ``left`` gives the seconds that remain. Raises OSError (TimeoutError included)."""
    channel.settimeout(max(0.001, left()))
    channel.sendall(struct.pack(">I", len(message)) + message)


def receive(channel: socket.socket, limit: int, left: Callable[[], float]) -> bytes:
    """Read one message of at most ``limit`` octets. Raises OSError (TimeoutError included) or BadData."""
    (size,) = struct.unpack(">I", _exactly(channel, 4, left))
    if size > limit:
        raise BadData(f"a message of {size} octets, the limit is {limit}")
    return _exactly(channel, size, left)


def _exactly(channel: socket.socket, size: int, left: Callable[[], float]) -> bytes:
    received = bytearray()
    while len(received) < size:
        seconds = left()
        if seconds <= 0:
            raise TimeoutError("no complete message in time")
        channel.settimeout(seconds)
        part = channel.recv(min(65536, size - len(received)))
        if not part:
            raise ConnectionResetError("the connection was closed within a message")
        received += part
    return bytes(received)
