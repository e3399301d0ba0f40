"""The milter's end of the lookup socket: ask and go on; whatever happens there, nothing is raised here."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from postseal.core.errors import BadData, Unavailable
from postseal.core.evidence import Orphan, Question
from postseal.sources import lookup_wire as wire
from postseal.sources.clock import SystemClock

_THREADS = 32
_CONNECT = 1.0
_TELL = 2.0
# The lookup process answers within the budget; this is for the way back.
_GRACE = 0.2


class LookupClient:
    """Fulfils ``Lookup``. May be made before a fork: threads are made on first use, in the process that uses them."""

    def __init__(self, socket_path: Path | str) -> None:
        self._path = str(socket_path)
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0

    def ask(self, questions: Sequence[Question | Orphan], budget: float, message: str = "") -> Future[None]:
        """Done when the lookup process has stored what it could get, is seen to be dead, or ``budget`` seconds are over."""
        deadline = self._clock.monotonic() + budget
        if questions and budget > 0:
            try:
                return self._threads().submit(self._ask, tuple(questions), deadline, message)
            except RuntimeError:
                # The interpreter is going down and takes no new work.
                pass
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def tell(self, questions: Sequence[Question]) -> None:
        """Asked like any question, but nobody waits for the answer."""
        self.ask(questions, _TELL)

    def refresh(self, names: Sequence[str], budget: float) -> dict[str, Any]:
        """Have stored evidence fetched again, now; the reply with one result per URL. Raises Unavailable."""
        try:
            return self._exchange(wire.encode_refresh(names, budget), self._clock.monotonic() + budget)
        except FileNotFoundError as exc:
            raise Unavailable(f"postseal lookup isn't running: no socket {self._path}") from exc
        except BadData as exc:
            raise Unavailable(f"postseal lookup: {exc}") from exc
        except OSError as exc:
            raise Unavailable(f"postseal lookup doesn't answer on {self._path}: {exc.strerror or exc}") from exc

    def _ask(self, questions: tuple[Question | Orphan, ...], deadline: float, message: str) -> None:
        try:
            left = max(0.0, deadline - self._clock.monotonic())
            self._exchange(wire.encode_ask(questions, left, message), deadline)
        except Exception:
            # A dead lookup process is seen as evidence that is still missing; the milter's log line says that.
            return

    def _exchange(self, request: bytes, deadline: float) -> dict[str, Any]:
        def left() -> float:
            return deadline - self._clock.monotonic() + _GRACE

        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(max(0.001, min(_CONNECT, left())))
            channel.connect(self._path)
            wire.send(channel, request, left)
            reply = wire.decode_reply(wire.receive(channel, wire.MAX_REPLY, left))
        if "error" in reply:
            raise BadData(str(reply["error"]))
        return reply

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                self._pool, self._pid = ThreadPoolExecutor(_THREADS, "lookup"), os.getpid()
            return self._pool
