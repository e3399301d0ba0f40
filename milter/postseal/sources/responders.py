"""Certificates of OCSP responders that the administrator trusts, read from the files that the configuration names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from postseal.core.certs import Certificate, load_certificates
from postseal.core.errors import BadData, CannotCreate
from postseal.core.revocation import Responder

_MAX_FILE = 64 * 1024


def read_responders(pairs: Iterable[tuple[Path, Path]]) -> tuple[Responder, ...]:
    """From (file of the responder, file of the CA). Raises CannotCreate with a sentence that names the file and the cause."""
    return tuple(Responder(_only(issuer).key_id, _only(certificate)) for certificate, issuer in pairs)


def _only(file: Path) -> Certificate:
    what = f"[[responder]] {file}"
    try:
        with open(file, "rb") as opened:
            found = load_certificates(opened.read(_MAX_FILE), limit=10)
    except OSError as exc:
        raise CannotCreate(f"{what}: can't be read: {exc.strerror}") from exc
    except BadData as exc:
        raise CannotCreate(f"{what}: {exc}") from exc
    if len(found) != 1:
        raise CannotCreate(f"{what}: holds {len(found)} certificates, must be one")
    return found[0]
