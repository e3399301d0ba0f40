"""What in a file may go into the certificate store, and why the rest may not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from postseal.core.certs import Certificate, load_certificates
from postseal.core.errors import BadData
from postseal.core.fitness import addresses, fitness

# A block that has lost its end goes as far as the next one begins.
_PEM_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[^\r\n]{1,60}?)-----.*?(?:-----END (?P=label)-----|(?=-----BEGIN )|\Z)", re.DOTALL
)
_CERTIFICATE_LABEL = re.compile(rb"CERTIFICATE$|^PKCS|^CMS$")


@dataclass(frozen=True, slots=True)
class Refused:
    """One thing that isn't stored. ``code`` is a ``cert.*`` reason; ``certificate`` is None for what isn't one."""

    source: str
    code: str
    detail: str
    certificate: Certificate | None = None


def sort_out(
    source: str, blob: bytes, at: datetime, *, weak_keys: bool = False, x25519: bool = False
) -> tuple[tuple[Certificate, ...], tuple[Refused, ...]]:
    """(what may be stored, what may not) of a file or bundle. One bad block doesn't spoil the others. Never raises."""
    good: dict[str, Certificate] = {}
    bad: list[Refused] = []
    for where, block in _blocks(source, blob):
        try:
            found = load_certificates(block)
        except BadData as exc:
            bad.append(Refused(where, "cert.unreadable", str(exc)))
            continue
        for certificate in found:
            refusal = _refusal(where, certificate, at, weak_keys, x25519)
            if refusal is None:
                good.setdefault(certificate.fingerprint, certificate)
            else:
                bad.append(refusal)
    return tuple(good.values()), tuple(bad)


def _blocks(source: str, blob: bytes) -> list[tuple[str, bytes]]:
    """(name, bytes) of each PEM block, numbered if there are several; else the whole."""
    if blob[:1] == b"\x30":
        return [(source, blob)]
    blocks = [m[0] for m in _PEM_BLOCK.finditer(blob) if _CERTIFICATE_LABEL.search(m["label"])]
    if len(blocks) < 2:
        return [(source, blob)]
    return [(f"{source} (block {number})", block) for number, block in enumerate(blocks, 1)]


def _refusal(source: str, certificate: Certificate, at: datetime, weak_keys: bool, x25519: bool) -> Refused | None:
    # A certificate for next month may be stored today: it is judged as of its first moment.
    findings = fitness(certificate, None, max(at, certificate.not_before), weak_keys=weak_keys, x25519=x25519)
    for finding in findings:
        if finding.fatal:
            return Refused(source, finding.code, finding.detail, certificate)
    if not addresses(certificate).mailboxes:
        return Refused(source, "cert.no-address", "it has no mail address", certificate)
    return None
