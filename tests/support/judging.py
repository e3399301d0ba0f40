"""One certificate of a path judged by itself, as the lookup process asks: ``core.judgement`` judges whole paths."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from postseal.core.certs import Certificate
from postseal.core.crl_signers import EvidenceFor, Signers
from postseal.core.evidence import Question
from postseal.core.judgement import JudgementSettings, settings_below
from postseal.core.path import Path
from postseal.core.revocation import Verdict


def judge_question(
    question: Question,
    path: Path,
    pool: Sequence[Certificate],
    evidence_for: EvidenceFor,
    settings: JudgementSettings,
    at: datetime,
) -> Verdict:
    """The verdict on one certificate of ``path``, with all that ``pool`` and ``evidence_for`` tell of signers."""
    revocation = settings_below(path.anchor, settings.revocation)
    signers = Signers(path, pool, evidence_for, settings.path, revocation, at)
    return signers.judge(question, evidence_for(question))
