"""The demo's messages: who gets one, what is expected of each, and how what arrived is looked at."""

from __future__ import annotations

import re
import smtplib
import subprocess
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

from world import LOGIN, SENDER, Site

from support.scratch import wait_for
from support.sink import Delivery

ATTACHMENT = bytes(range(256)) * 120


@dataclass(frozen=True)
class Case:
    """One message. ``expected`` maps each recipient to sealed, clear, refused or deferred."""

    title: str
    expected: dict[str, str]
    warning: str = ""


CASES = (
    Case("valid certificate, RSA key", {"rsa@partner.test": "sealed"}),
    Case("valid certificate, EC key", {"ec@partner.test": "sealed"}),
    Case("revoked, says the CRL", {"revoked@partner.test": "refused"}),
    Case("revoked, says OCSP, the only source that its certificate names", {"revoked-ocsp@partner.test": "refused"}),
    Case("CRL and OCSP can't be reached, a soft rule", {"unreachable@partner.test": "sealed"}, "refused"),
    Case("CRL and OCSP can't be reached, a strict rule", {"unreachable@strict.test": "deferred"}),
    Case("expired certificate, a rule that lets mail go in clear", {"expired@open.test": "clear"}),
    Case("certificate of an issuer that isn't trusted", {"untrusted@partner.test": "refused"}),
    Case("no certificate, a rule that needs one", {"nobody@partner.test": "refused"}),
    Case("no certificate, a rule that lets mail go in clear", {"nobody@open.test": "clear"}),
    Case(
        "a mixed message: two sealed, one in clear",
        {"rsa@partner.test": "sealed", "ec@partner.test": "sealed", "nobody@open.test": "clear"},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one recipient: ``kind`` as in ``Case.expected`` (or what went wrong), in words, and the log lines."""

    kind: str
    words: str
    log: tuple[str, ...]


def message(number: int, case: Case) -> bytes:
    """A message with text and an attachment."""
    mail = EmailMessage()
    mail["From"] = f"Joe <{SENDER}>"
    mail["To"] = ", ".join(case.expected)
    mail["Subject"] = f"Demo {number}: {case.title}"
    mail["Message-ID"] = f"<demo-{number}@home.test>"
    mail.set_content(
        f"Dear recipient,\n\nthis is message {number}. Grüße!\n.\nA line that begins with a dot is above.\n"
    )
    mail.add_attachment(ATTACHMENT, maintype="application", subtype="pdf", filename="report.pdf")
    return mail.as_bytes(policy=SMTP)


def run(site: Site, number: int, case: Case) -> dict[str, Outcome]:
    """Send the message of a case and find out what each recipient got."""
    log_before = len(site.daemon.log())
    before = len(site.sink.deliveries)
    sent = message(number, case)
    refused: dict[str, tuple[int, bytes]] = {}
    try:
        refused = site.postfix.send(SENDER, list(case.expected), sent, login=LOGIN)
    except smtplib.SMTPRecipientsRefused as exc:
        refused = exc.recipients
    except smtplib.SMTPResponseException as exc:
        error = exc.smtp_error if isinstance(exc.smtp_error, bytes) else exc.smtp_error.encode()
        refused = dict.fromkeys(case.expected, (exc.smtp_code, error))
    outcomes = {}
    for recipient in case.expected:
        log = _log_of(site, recipient, log_before)
        if recipient in refused:
            code, text = refused[recipient]
            kind = "refused" if code >= 500 else "deferred"
            outcomes[recipient] = Outcome(kind, f"the sender was told: {code} {text.decode(errors='replace')}", log)
            if any(recipient in d.recipients for d in site.sink.deliveries[before:]):
                outcomes[recipient] = Outcome("refused and delivered", "it arrived all the same", log)
        else:
            outcomes[recipient] = Outcome(*_arrived(site, recipient, before, sent), log)
    return outcomes


def _log_of(site: Site, recipient: str, start: int) -> tuple[str, ...]:
    """postseal's log lines about a recipient that were written since ``start``."""

    def lines() -> tuple[str, ...]:
        return tuple(line for line in site.daemon.log()[start:].splitlines() if f"to=<{recipient}>" in line)

    try:
        wait_for(lambda: any("action=" in line for line in lines()), "the log line", 5)
    except AssertionError:
        return lines()
    return lines()


def _arrived(site: Site, recipient: str, before: int, sent: bytes) -> tuple[str, str]:
    def found() -> list[Delivery]:
        return [d for d in site.sink.deliveries[before:] if recipient in d.recipients]

    try:
        wait_for(found, "the mail", 15)
    except AssertionError:
        return "nothing arrived", "no mail within 15 seconds"
    delivery = found()[0]
    if delivery.parsed.get_content_type() != "application/pkcs7-mime":
        same = delivery.body == sent.partition(b"\r\n\r\n")[2]
        return ("clear", "in clear, as it was sent") if same else ("altered", "in clear, but not as it was sent")
    return _opened(site, recipient, delivery, sent)


def _opened(site: Site, recipient: str, delivery: Delivery, sent: bytes) -> tuple[str, str]:
    """Open a sealed message with the recipient's key, by a program that shares nothing with postseal."""
    if b"report.pdf" in delivery.data:
        return "leaked", "the content is readable without a key"
    done = subprocess.run(
        ["openssl", "cms", "-decrypt", "-binary", "-inkey", str(site.key_of(recipient))],
        input=delivery.data, capture_output=True, timeout=30,
    )  # fmt: skip
    if done.returncode:
        return "unreadable", done.stderr.decode(errors="replace").strip().splitlines()[-1]
    if done.stdout.partition(b"\r\n\r\n")[2] != sent.partition(b"\r\n\r\n")[2]:
        return "altered", "sealed, but what is inside isn't what was sent"
    inner = message_from_bytes(done.stdout)
    files = [f"{p.get_filename()} ({len(p.get_payload(decode=True))} bytes)" for p in inner.walk() if p.get_filename()]
    cipher = _cipher(delivery)
    return "sealed", f"S/MIME, {cipher}; opened with the recipient's key by openssl cms: text and {', '.join(files)}"


def _cipher(delivery: Delivery) -> str:
    done = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print"], input=delivery.data, capture_output=True, text=False, timeout=30
    )
    found = re.search(rb"contentEncryptionAlgorithm:\s+algorithm: (\S+)", done.stdout)
    return found[1].decode() if found else "unknown cipher"
