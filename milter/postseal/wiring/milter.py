"""``Config`` -> what a milter worker needs. Call it after a fork: it opens databases and may start threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from postseal.app.journal import Journal
from postseal.app.outbound import Boundary
from postseal.app.seal import Sealing, SealSettings, Workload
from postseal.config import Config
from postseal.core.errors import CannotCreate
from postseal.sources.clock import SystemClock
from postseal.sources.decisions import DecisionStore
from postseal.sources.doubts import DoubtStore
from postseal.sources.log import MailLog, open_log
from postseal.sources.reinject import SmtpReinjector
from postseal.sources.spool import Spool
from postseal.wiring.assess import build_assessor
from postseal.wiring.metrics import build_meter

IDENTIFIER = "postseal/milter"


@dataclass(frozen=True, slots=True)
class MilterGraph:
    """The object graph of one worker; ``close`` writes what still waits."""

    sealing: Sealing
    log: MailLog
    clock: SystemClock
    close: Callable[[], None]


def milter_log(config: Config) -> MailLog:
    return open_log(IDENTIFIER, config.log.facility, config.log.socket, config.log.level)


def seal_settings(config: Config) -> SealSettings:
    return SealSettings(
        rules=config.rules,
        boundary=Boundary(frozenset(config.milter.internal_domains), config.milter.internal_networks),
        policy=config.policy_settings,
        budget=config.milter.budget,
        message_size_limit=config.milter.message_size_limit,
        max_messages=config.milter.max_messages,
    )


def build_milter(config: Config, number: int = 0) -> MilterGraph:
    """The graph of worker ``number``. Raises a PostsealError of one sentence when a directory or store can't be used."""
    clock = SystemClock()
    log = milter_log(config)
    spool = config.spool_directory
    try:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise CannotCreate(f"can't make the spool directory {spool}: {exc.strerror}") from exc
    keep = timedelta(seconds=config.decisions.keep)
    meter = build_meter(config, "milter", number, log.warning)
    journal = Journal(log, DecisionStore(config.decision_store, keep, on_error=log.error), clock, meter)
    settings = seal_settings(config)
    reinject = config.milter.reinject
    sealing = Sealing(
        settings=settings,
        assessor=build_assessor(config, clock, log.warning),
        journal=journal,
        log=log,
        clock=clock,
        new_spool=lambda: Spool(config.milter.memory_limit, spool),
        reinjector=SmtpReinjector(reinject.host, reinject.port, config.milter.reinject_timeout) if reinject else None,
        workload=Workload(settings.max_messages),
        doubts=DoubtStore(config.doubt_store, config.policy_settings.give_up),
    )
    return MilterGraph(sealing, log, clock, journal.close)
