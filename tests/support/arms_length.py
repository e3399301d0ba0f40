"""A call in a child process whose memory is limited and whose processor time is measured."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from postseal.core.errors import BadData

HALF_A_SECOND = 0.5
MEMORY = 300 * 1024 * 1024
_CPU = 20


@dataclass(frozen=True, slots=True)
class Account:
    """``refused`` is the sentence of a BadData, empty when the call returned; ``failed`` is whatever else happened."""

    refused: str
    failed: str
    cpu: float


def at_arms_length(call: Callable[[], object], memory: int = MEMORY) -> Account:
    """Run ``call`` in a fork of this process that may take ``memory`` octets more than there are now."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as answer:
            try:
                answer.write(json.dumps(_run(call, memory)))
                answer.flush()
            finally:
                os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if not said:
        return Account("", f"the process ended with status {status}", float("inf"))
    return Account(**json.loads(said))


def bounded(call: Callable[[], object]) -> Account:
    """T-15: within half a second and 300 MB, and nothing raised but BadData.

    What others do on the machine makes it slower, never faster: the best of three counts.
    """
    for _ in range(3):
        account = at_arms_length(call)
        assert account.failed == ""
        if account.cpu < HALF_A_SECOND:
            break
    assert account.cpu < HALF_A_SECOND
    return account


def _run(call: Callable[[], object], memory: int) -> dict[str, object]:
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU))
    refused = failed = ""
    start = time.process_time()
    try:
        call()
    except BadData as exc:
        refused = str(exc) or "refused without a word"
    except BaseException as exc:
        failed = f"{type(exc).__name__}: {str(exc)[:200]}"
    return {"refused": refused, "failed": failed, "cpu": time.process_time() - start}
