"""What a certificate says about the Baseline Requirements for S/MIME of the CA/Browser Forum, as remarks (CERT-19).

They bind public CAs and nobody else, so nothing here refuses a certificate.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from postseal.core.certs import Certificate
from postseal.core.profile import profile

# S/MIME BR 7.1.6.1: 2.23.140.1.5.<what was validated>.<generation>
_ARC = "2.23.140.1.5."
_VALIDATED = {"1": "mailbox", "2": "organization", "3": "sponsor", "4": "individual"}
_GENERATIONS = {"1": "legacy", "2": "multipurpose", "3": "strict"}
# S/MIME BR 6.3.2
_LONGEST = {"legacy": timedelta(days=1185), "multipurpose": timedelta(days=825), "strict": timedelta(days=825)}
_LEGACY_ENDED = datetime(2025, 7, 15, tzinfo=UTC)


class Remark(NamedTuple):
    """One sentence, and the section behind it."""

    text: str
    clause: str


def baseline_remarks(certificate: Certificate) -> Iterator[Remark]:
    """What was validated and in which generation of the profile, and which of its limits aren't kept. Total."""
    for oid in sorted(profile(certificate).policies.policies or ()):
        validated, _, generation = oid.removeprefix(_ARC).partition(".")
        if not oid.startswith(_ARC) or validated not in _VALIDATED or generation not in _GENERATIONS:
            continue
        name = _GENERATIONS[generation]
        yield Remark(f"{_VALIDATED[validated]}-validated, {name} generation", "S/MIME BR 7.1.6.1")
        life = certificate.not_after - certificate.not_before
        if life > _LONGEST[name]:
            yield Remark(f"it lives {life.days} days, and {_LONGEST[name].days} are allowed", "S/MIME BR 6.3.2")
        if name == "legacy" and certificate.not_before > _LEGACY_ENDED:
            yield Remark(
                f"the legacy generation ended on {_LEGACY_ENDED:%Y-%m-%d}, before it was issued", "S/MIME BR 7.1.2.3"
            )
