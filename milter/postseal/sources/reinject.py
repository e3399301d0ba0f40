"""Hand a copy of a message to a second listener of the same MTA, one without this milter (THR-13), by SMTP (RFC 5321)."""

from __future__ import annotations

import contextlib
import smtplib
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence

from postseal.core.errors import BadData, Unavailable

# Extension keyword of EHLO -> the parameters of MAIL and RCPT that need it (RFC 6152, RFC 6531, RFC 3461).
_NEEDS = {
    "BODY": "8bitmime",
    "SMTPUTF8": "smtputf8",
    "RET": "dsn",
    "ENVID": "dsn",
    "NOTIFY": "dsn",
    "ORCPT": "dsn",
}


def dot_stuffed(message: Iterable[bytes]) -> Iterator[bytes]:
    """The message as DATA wants it: lines that start with a dot get another, and CRLF "." CRLF ends it.

    RFC 5321 §4.5.2. Octets are otherwise untouched; chunks may be cut anywhere.
    """
    # The two octets before what comes next; the message starts at the start of a line.
    before = b"\r\n"
    for chunk in message:
        if not chunk:
            continue
        text = (before + chunk).replace(b"\r\n.", b"\r\n..")
        yield text[len(before) :]
        before = (before + chunk)[-2:]
    yield b".\r\n" if before == b"\r\n" else b"\r\n.\r\n"


class SmtpReinjector:
    """A fresh connection for each message, so that a dead listener is noticed before anything is promised."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        """``timeout`` is seconds for each step of the dialogue."""
        self._host = host
        self._port = port
        self._timeout = timeout
        self._name = f"{host}:{port}"

    def send(
        self,
        sender: str,
        recipients: Sequence[str],
        message: Iterable[bytes],
        *,
        mail_options: Sequence[str] = (),
        rcpt_options: Mapping[str, Sequence[str]] | None = None,
    ) -> str:
        """Deliver one message; returns the server's reply to its end. All recipients are accepted or none.

        Addresses with or without angle brackets. ``mail_options`` such as ``BODY=8BITMIME`` and ``rcpt_options`` (by
        recipient) are passed on where the server offers the extension. Raises Unavailable or BadData.
        """
        try:
            with contextlib.closing(_Dialogue(self._host, self._port, self._timeout)) as dialogue:
                dialogue.open()
                dialogue.envelope(sender, recipients, mail_options, rcpt_options or {})
                return dialogue.data(message)
        except (OSError, smtplib.SMTPException) as exc:
            cause = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
            raise Unavailable(f"re-injection to {self._name}: {cause}") from exc


class _Dialogue:
    """One SMTP session."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._where = (host, port)
        self._name = f"{host}:{port}"
        self._client = smtplib.SMTP(timeout=timeout, local_hostname=socket.gethostname() or "localhost")

    def close(self) -> None:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            self._client.sock and self._client.docmd("QUIT")
        self._client.close()

    def open(self) -> None:
        self._expect(2, "the greeting", self._client.connect(*self._where))
        self._expect(2, "EHLO", self._client.ehlo())

    def envelope(
        self,
        sender: str,
        recipients: Sequence[str],
        mail_options: Sequence[str],
        rcpt_options: Mapping[str, Sequence[str]],
    ) -> None:
        utf8 = any(not address.isascii() for address in (sender, *recipients))
        if utf8 or "SMTPUTF8" in (option.upper() for option in mail_options):
            if not self._client.has_extn("smtputf8"):
                raise BadData(f"re-injection to {self._name}: the listener doesn't offer SMTPUTF8")
            mail_options = (*(o for o in mail_options if o.upper() != "SMTPUTF8"), "SMTPUTF8")
            # smtplib would encode commands in ASCII.
            self._client.command_encoding = "utf-8"
        self._expect(2, "MAIL", self._command(f"MAIL FROM:{_path(sender)}", mail_options))
        for recipient in recipients:
            reply = self._command(f"RCPT TO:{_path(recipient)}", rcpt_options.get(recipient, ()))
            if reply[0] // 100 != 2:
                # One recipient less would be mail lost in silence: nobody gets this copy, and the caller decides.
                self._client.docmd("RSET")
            self._expect(2, f"RCPT TO:{_path(recipient)}", reply)

    def data(self, message: Iterable[bytes]) -> str:
        self._expect(3, "DATA", self._client.docmd("DATA"))
        try:
            for block in dot_stuffed(message):
                self._client.send(block)
        except BaseException:
            # Without its final dot the message doesn't exist for the server.
            self._client.close()
            raise
        return self._expect(2, "the message", self._client.getreply())

    def _command(self, text: str, options: Sequence[str]) -> tuple[int, bytes]:
        if "\r" in text or "\n" in text:
            raise BadData("an address contains a line break")
        offered = [o for o in options if self._client.has_extn(_NEEDS.get(o.partition("=")[0].upper(), "-"))]
        return self._client.docmd(" ".join((text, *offered)))

    def _expect(self, kind: int, what: str, reply: tuple[int, bytes]) -> str:
        code, text = reply
        said = f"{code} {text.decode('ascii', 'replace')}".replace("\n", " ")
        if code // 100 == kind:
            return said
        sentence = f"re-injection to {self._name}: the listener answered {what} with {said}"
        raise BadData(sentence) if code // 100 == 5 else Unavailable(sentence)


def _path(address: str) -> str:
    return address if address.startswith("<") else f"<{address}>"
