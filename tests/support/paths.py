"""A small PKI and short words for tests of path building: ``code(leaf, *intermediates)`` is the fault, or "valid"."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509

from postseal.core.path import Anchor, Path, PathFault, PathSettings, build_path
from support.pki import DAY, NOW, Authority, Leaf, authority, key, name, usage

ROOT = authority("Root")
SUB = ROOT.sub("Issuing")
ALICE = SUB.issue("alice@example.test")
CA = (x509.BasicConstraints(ca=True, path_length=None), True)
SIGNS = (usage("key_cert_sign"), True)


def build(
    leaf: Leaf, *intermediates: Leaf, anchors: Sequence[Leaf] = (ROOT,), at: datetime = NOW, **settings: Any
) -> Path | PathFault:
    return build_path(
        leaf.certificate,
        tuple(Anchor(a.certificate) for a in anchors),
        tuple(i.certificate for i in intermediates),
        PathSettings(**settings),
        at,
    )


def code(*args: Any, **settings: Any) -> str:
    found = build(*args, **settings)
    return found.code if isinstance(found, PathFault) else "valid"


def odd_ca(
    parent: Authority, common_name: str, *extensions: tuple[x509.ExtensionType, bool], private: Any = None,
    signed_by: Any = None, hash_algorithm: Any = "default",
) -> Authority:  # fmt: skip
    """A CA with exactly these extensions and any key."""
    private = private or key("rsa2048", ("ca", common_name))
    signer = Authority(parent.certificate, signed_by or parent.key, parent.subject)
    certificate = signer._sign(
        name(common_name), private.public_key(), extensions, not_before=NOW - 9 * DAY, not_after=NOW + 9 * DAY,
        hash_algorithm=hash_algorithm,
    )  # fmt: skip
    return Authority(certificate, private, name(common_name))
