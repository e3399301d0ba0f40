"""Certification path building and validation, RFC 5280 §6.1, bounded (PRE-6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from postseal.core.certs import Certificate


@dataclass(frozen=True, slots=True)
class Anchor:
    """A trust anchor: its name and key count, not its own signature or extensions (RFC 5280 §6.1.1 (d))."""

    certificate: Certificate
    label: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """A validated path, leaf first; ``anchor`` is not part of ``certificates``. Made by ``build_path`` only."""

    certificates: tuple[Certificate, ...]
    anchor: Anchor

    @property
    def leaf(self) -> Certificate:
        return self.certificates[0]

    def issuer_of(self, index: int) -> Certificate:
        """The certificate that issued ``certificates[index]``; the anchor's for the last."""
        return self.certificates[index + 1] if index + 1 < len(self.certificates) else self.anchor.certificate


@dataclass(frozen=True, slots=True)
class PathFault:
    """Why there is no valid path: the most useful fault of all paths tried. ``code`` is a ``path.*`` reason."""

    code: str
    detail: str
    certificate: Certificate | None = None
    tried: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class PathSettings:
    """``email_protection`` asks nested EKU emailProtection (CERT-11); ``weak_keys`` admits RSA under 2048 bits and SHA-1."""

    email_protection: bool = True
    weak_keys: bool = False
    max_length: int = 10
    max_signatures: int = 100
    max_candidates: int = 300


def build_path(
    leaf: Certificate,
    anchors: Sequence[Anchor],
    intermediates: Sequence[Certificate],
    settings: PathSettings,
    at: datetime,
) -> Path | PathFault:
    """The first valid path from ``leaf`` to one of ``anchors``, or the most useful fault. Never raises for bad input."""
    raise NotImplementedError  # owner: pki
