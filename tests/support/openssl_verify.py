"""What ``openssl verify`` says about a generated PKI: an independent judge of paths and CRLs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path

from support.generated import ANY_POLICY, Cert, Listing, World, write_pem
from support.pki import NOW

REVOKED = 23


@dataclass(frozen=True)
class Opinion:
    """The errors as (depth, code) in the order in which OpenSSL met them."""

    errors: tuple[tuple[int, int], ...]
    text: str = ""
    forgiven: bool = False
    """The command line tool, not the library, passes over some errors in the path of a CRL's signer."""

    @property
    def ok(self) -> bool:
        return not self.errors

    @property
    def codes(self) -> frozenset[int]:
        return frozenset(code for _, code in self.errors)

    def status(self, depth: int) -> str:
        """good, revoked or unknown; "" for a certificate that OpenSSL didn't come to, because it stops at most errors."""
        here = [code for at, code in self.errors if at == depth]
        if REVOKED in here:
            return "revoked"
        if here or self.forgiven:
            return "unknown"
        return "" if self.errors and depth > self.errors[-1][0] else "good"


def openssl_verify(
    folder: Path,
    leaf: Cert,
    anchors: Sequence[Cert],
    pool: Sequence[Cert] = (),
    listings: Sequence[Listing] | None = None,
    *options: str,
    at: datetime = NOW,
) -> Opinion:
    """One run. ``listings`` None leaves revocation out; an empty list asks for CRLs that aren't there."""
    command = [
        "openssl",
        "verify",
        "-attime",
        str(int(at.timestamp())),
        "-policy_check",
        "-policy",
        ANY_POLICY,
        *options,
    ]
    # With -trusted OpenSSL 3.0 doesn't find the anchor of a CRL signer's path.
    anchors_file = write_pem(folder / "anchors.pem", "CERTIFICATE", [c.der for c in anchors])
    command += ["-no-CApath", "-no-CAstore", "-CAfile", str(anchors_file)]
    if pool:
        command += ["-untrusted", str(write_pem(folder / "pool.pem", "CERTIFICATE", [c.der for c in pool]))]
    if listings is not None:
        command += ["-crl_check_all", "-extended_crl", "-use_deltas"]
        if listings:
            command += ["-CRLfile", str(write_pem(folder / "crls.pem", "X509 CRL", [c.der for c in listings]))]
    command.append(str(write_pem(folder / "leaf.pem", "CERTIFICATE", [leaf.der])))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    errors = tuple((int(depth), int(code)) for code, depth in re.findall(r"(?m)^error (\d+) at (\d+) depth", said))
    forgiven = "[CRL path] error" in said
    if bool(errors) == (done.returncode == 0):
        raise AssertionError(f"openssl verify is at odds with itself ({done.returncode}): {said}")
    return Opinion(errors, said, forgiven)


MOST_TOGETHER = 3


def opinions_by_part(folder: Path, world: World) -> Iterator[tuple[tuple[Listing, ...], str]]:
    """The status of the leaf from every small set of the CRLs that may concern it, with all others at hand.

    OpenSSL picks one CRL for each set of reasons and believes that alone. What each CRL means to it shows when it has no
    choice.
    """
    target = world.leaf
    issuers = {target.issuer, *(p.issuer for p in target.points if p.issuer)}
    near = [c for c in world.listings if c.issuer in issuers]
    rest = [c for c in world.listings if c.issuer not in issuers]
    for size in range(min(MOST_TOGETHER, len(near)) + 1):
        for some in combinations(near, size):
            said = openssl_verify(folder, target, world.anchors, world.pool, [*rest, *some])
            yield some, said.status(0)
