"""The MTA's side of the milter protocol (version 6), for what miltertest can't do: octets, concurrency, cut connections.

with MilterClient("unix:/…/milter.sock") as mta:
    mta.connect(address="192.0.2.1")
    answer = mta.send("<a@home.test>", ["<b@example.test>"], fields, body, macros={"i": "4XyZ"})
    answer.body, answer.header(fields), answer.reply
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

# include/libmilter/mfdef.h of Sendmail 8.17
P_ALL = 0x1FFFFF
P_HDR_LEADSPC = 0x100000
P_NR = {"C": 0x1000, "H": 0x2000, "M": 0x4000, "R": 0x8000, "T": 0x10000, "L": 0x80, "N": 0x40000, "B": 0x80000}
P_NO = {"C": 0x1, "H": 0x2, "M": 0x4, "R": 0x8, "B": 0x10, "L": 0x20, "N": 0x40, "T": 0x200}
ACTIONS_ALL = 0x1FF
# Postfix sends at most this much in one body packet.
CHUNK = 65535
_FINAL = b"acdrty"

Fields = Sequence[tuple[bytes, bytes]]


@dataclass
class Answer:
    """What the milter said at the end of one step, and the edits before it. ``kind`` is the response's letter."""

    kind: str = "c"
    reply: str = ""
    edits: list[tuple[str, bytes]] = field(default_factory=list)
    progress: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    early: bool = False

    @property
    def accepted(self) -> bool:
        return self.kind in "ac"

    @property
    def changed(self) -> bool:
        return bool(self.edits)

    @property
    def body(self) -> bytes | None:
        blocks = [data for kind, data in self.edits if kind == "b"]
        return b"".join(blocks) if blocks else None

    @property
    def deleted(self) -> list[str]:
        """Recipients that the milter takes out."""
        return [data.rstrip(b"\0").decode("utf-8", "surrogateescape") for kind, data in self.edits if kind == "-"]

    @property
    def quarantine(self) -> str | None:
        return next((data.rstrip(b"\0").decode() for kind, data in self.edits if kind == "q"), None)

    def header(self, fields: Fields) -> list[tuple[bytes, bytes]]:
        """The header as the MTA would have it after the edits; values with their leading space, folds with LF."""
        now = list(fields)
        for kind, data in self.edits:
            if kind == "h":
                name, value = data.split(b"\0")[:2]
                now.append((name, value))
            elif kind == "m":
                (index,) = struct.unpack("!I", data[:4])
                name, value = data[4:].split(b"\0")[:2]
                places = [n for n, (other, _) in enumerate(now) if other.lower() == name.lower()]
                if len(places) < index:
                    now.append((name, value))
                elif value:
                    now[places[index - 1]] = (name, value)
                else:
                    del now[places[index - 1]]
        return now

    def message(self, fields: Fields, body: bytes) -> bytes:
        """The whole message after the edits, lines with CRLF."""
        lines = [name + b":" + value.replace(b"\n", b"\r\n") + b"\r\n" for name, value in self.header(fields)]
        return b"".join(lines) + b"\r\n" + (body if self.body is None else self.body)


class MilterClient:
    """One connection. After ``connect`` any number of messages; ``command`` sends single packets for odd dialogues."""

    def __init__(
        self, address: str, *, protocol: int = P_ALL, actions: int = ACTIONS_ALL, timeout: float = 30.0
    ) -> None:
        if address.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            where: object = address.removeprefix("unix:")
        else:
            port, _, host = address.removeprefix("inet:").partition("@")
            self._socket = socket.socket(socket.AF_INET)
            where = (host or "127.0.0.1", int(port))
        self._socket.settimeout(timeout)
        self._socket.connect(where)  # type: ignore[arg-type]
        self.write("O", struct.pack("!III", 6, actions, protocol))
        kind, data = self.read()
        assert kind == "O", (kind, data)
        self.version, self.actions, self.protocol = struct.unpack("!III", data[:12])
        self.symbols = data[12:]

    def __enter__(self) -> MilterClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up without a word."""
        self._socket.close()

    def hung_up(self) -> bool:
        """Has the milter closed the connection?"""
        try:
            return self._socket.recv(1) == b""
        except ConnectionError:
            return True

    # --- packets

    def write(self, kind: str, data: bytes = b"") -> None:
        self._socket.sendall(struct.pack("!I", len(data) + 1) + kind.encode() + data)

    def read(self) -> tuple[str, bytes]:
        (length,) = struct.unpack("!I", self._exactly(4))
        packet = self._exactly(length)
        return packet[:1].decode(), packet[1:]

    def _exactly(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            more = self._socket.recv(count - len(parts))
            if not more:
                raise ConnectionError("the milter hung up")
            parts += more
        return parts

    def answer(self) -> Answer:
        """Read to the end of one step's answer."""
        found = Answer()
        while True:
            kind, data = self.read()
            if kind == "p":
                found.progress += 1
            elif kind.encode() in (b"a", b"c", b"d", b"r", b"t", b"y"):
                found.kind = kind
                # On the wire a percent sign is doubled; the MTA takes it for a format.
                found.reply = data.rstrip(b"\0").decode().replace("%%", "%")
                return found
            else:
                found.edits.append((kind, data))

    def command(self, kind: str, data: bytes = b"", macros: Mapping[str, str | bytes] | None = None) -> Answer | None:
        """One packet with its macros; the answer, or None for a step that has none."""
        if self.protocol & P_NO.get(kind, 0):
            return None
        if macros:
            pairs = b"".join(
                (f"{{{name}}}" if len(name) > 1 else name).encode()
                + b"\0"
                + (v if isinstance(v, bytes) else v.encode())
                + b"\0"
                for name, v in macros.items()
            )
            self.write("D", kind.encode() + pairs)
        self.write(kind, data)
        if self.protocol & P_NR.get(kind, 0):
            return None
        return self.answer()

    # --- the dialogue

    def connect(self, name: str = "client.test", address: str = "127.0.0.1", port: int = 4321) -> Answer | None:
        family = b"6" if ":" in address else b"4"
        data = name.encode() + b"\0" + family + struct.pack("!H", port) + address.encode() + b"\0"
        return self.command("C", data)

    def mail(self, sender: str, *options: str, macros: Mapping[str, str | bytes] | None = None) -> Answer | None:
        return self.command("M", _strings(sender, *options), macros)

    def rcpt(self, recipient: str, *options: str) -> Answer:
        answer = self.command("R", _strings(recipient, *options))
        assert answer is not None
        return answer

    def send(
        self,
        sender: str,
        recipients: Sequence[str],
        fields: Fields,
        body: bytes,
        *,
        macros: Mapping[str, str | bytes] | None = None,
        mail_options: Sequence[str] = (),
        chunk: int = CHUNK,
    ) -> Answer:
        """One message as Postfix would send it. ``refused`` has the recipients that got a reply of their own."""
        refused: dict[str, str] = {}
        first = self.mail(sender, *mail_options, macros=macros)
        if first is not None and not first.accepted:
            return first
        for recipient in recipients:
            answer = self.rcpt(recipient)
            if not answer.accepted:
                refused[recipient] = answer.reply or answer.kind
        if len(refused) == len(recipients):
            self.abort()
            return Answer("y", refused=refused)
        answer = self.message(fields, body, macros=macros, chunk=chunk)
        answer.refused = refused
        return answer

    def message(
        self, fields: Fields, body: bytes, *, macros: Mapping[str, str | bytes] | None = None, chunk: int = CHUNK
    ) -> Answer:
        """Header, body and end of a message whose envelope has been sent."""
        self.command("T", b"", macros)
        for name, value in fields:
            self.command("L", name + b"\0" + value + b"\0", macros)
        answer = self.command("N", b"", macros)
        if answer is not None and answer.kind != "c":
            answer.early = True
            return answer
        for start in range(0, len(body), chunk):
            self.command("B", body[start : start + chunk])
        answer = self.command("E", b"", macros)
        assert answer is not None
        return answer

    def abort(self) -> None:
        self.write("A")

    def quit(self) -> None:
        self.write("Q")


def _strings(*texts: str) -> bytes:
    return b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in texts)
