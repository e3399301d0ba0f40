"""How signers of mail are judged for ``postseal cert learn``: by the configured trust, with evidence as the milter has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from postseal.app.ports import Lookup
from postseal.app.verify import Request
from postseal.config import Config
from postseal.core.errors import BadData
from postseal.core.evidence import Evidence, Question
from postseal.core.path import Anchor
from postseal.sources.clock import SystemClock
from postseal.sources.evidence import EvidenceStore
from postseal.sources.lookup_client import LookupClient
from postseal.sources.trust import FolderTrust

T = TypeVar("T")


@dataclass
class Judge:
    """``request`` looks for evidence in the store; what it asked for is fetched by the lookup service where that runs."""

    request: Request
    lookup: Lookup
    budget: float
    asked: dict[Question, None] = field(default_factory=dict)

    def twice(self, attempt: Callable[[Request], T]) -> T:
        """``attempt``, and once more after fetching when it raised BadData: perhaps for want of evidence."""
        self.asked.clear()
        try:
            return attempt(self.request)
        except BadData:
            if not self.asked or self.budget <= 0:
                raise
        self.lookup.ask(tuple(self.asked), self.budget).result()
        return attempt(self.request)


def build_judge(config: Config, warn: Callable[[str], None], anchors: Sequence[Anchor] = ()) -> Judge:
    """``anchors`` are trusted besides the configured ones."""
    clock = SystemClock()
    own = config.certificates
    trust = FolderTrust(own.anchors, own.intermediates, clock, warn, config.anchor_settings)
    store = EvidenceStore(config.evidence_directory, readonly=True)
    asked: dict[Question, None] = {}

    def find(question: Question, known: Sequence[Evidence]) -> Sequence[Evidence]:
        asked[question] = None
        return store.evidence(question) if store.exists() else ()

    fetched = store.intermediates() if store.exists() else ()
    request = Request(
        anchors=(*trust.anchors(), *anchors),
        intermediates=(*trust.intermediates(), *fetched),
        weak_keys=config.revocation.weak_keys,
        find=find,
    )
    budget = config.milter.budget if config.lookup.fetch else 0.0
    return Judge(request, LookupClient(config.lookup_socket), budget, asked)
