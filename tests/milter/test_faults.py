"""An exception in each callback: 4xx at the next answer, nothing changed, the next message on the connection unharmed.

The real libmilter in a process of its own, with a job that fails where it is told to.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from postseal.app.outbound import Client
from postseal.app.seal import MessageJob
from support.mailworld import World
from support.milterclient import P_ALL, MilterClient
from support.scratch import answers, scratch, wait_for

FIELDS = [(b"Subject", b" x")]
A, B = "<a@home.test>", "<b@example.test>"
SECRET = "canary-31"


class FaultyJob:
    """A real job that raises at the step that the sender's local part names."""

    def __init__(self, job: MessageJob, step: str) -> None:
        self._job = job
        self._step = step

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._job, name)
        if name == self._step:
            # What an exception says may quote the message: it must not be logged.
            raise ValueError(SECRET)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "queue_id":
            self._job.queue_id = value
        else:
            object.__setattr__(self, name, value)


class FaultySealing:
    """A real ``Sealing`` whose jobs fail on demand."""

    def __init__(self, world: World) -> None:
        self._real = world.sealing()
        self.log = self._real.log

    def begin(self, sender: str, client: Client, options: Sequence[str] = ()) -> FaultyJob:
        step = sender.strip("<>").partition("+")[0]
        if step == "begin":
            raise ValueError(SECRET)
        return FaultyJob(self._real.begin(A, client, options), step)


def serve(path: Path, log_file: Path) -> None:
    """Never returns: the body of the server process."""
    import milter
    from postseal.shell.milterd import Session, install

    class FileLog:
        def write(self, text: str) -> None:
            with log_file.open("a") as file:
                file.write(text + "\n")

        def info(self, text: str, fields: object = None) -> None:
            self.write(text)

        warning = error = info

    world = World()
    world.add("b@example.test")
    world.publish()
    world.memory = 1 << 30
    world.log = FileLog()  # type: ignore[assignment]
    sealing: Any = FaultySealing(world)

    connect = Session.connect

    def faulty_connect(own: Session, ctx: Any, name: str, family: int, where: Any) -> int:
        if name == "fail.test":
            raise ValueError(SECRET)
        return connect(own, ctx, name, family, where)

    Session.connect = faulty_connect  # type: ignore[method-assign]
    install(lambda: Session(sealing), world.log)
    milter.setconn(f"unix:{path}")
    milter.opensocket(True)
    milter.main()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Path]]:
    with scratch() as directory:
        path, log_file = directory / "milter.sock", directory / "log"
        log_file.touch()
        pid = os.fork()
        if pid == 0:
            try:
                serve(path, log_file)
            finally:
                sys.stdout.flush()
                os._exit(1)
        try:
            wait_for(lambda: answers(f"unix:{path}"), "the server")
            yield f"unix:{path}", log_file
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.parametrize("protocol", [P_ALL, 0x7F])
@pytest.mark.parametrize("step", ["begin", "recipient", "header", "end_of_headers", "body", "finish", "sent"])
def test_an_exception_is_a_temporary_failure(server: tuple[str, Path], step: str, protocol: int) -> None:
    """Whatever the step, and whether or not the MTA waits for its answer."""
    address, log_file = server
    with MilterClient(address, protocol=protocol) as mta:
        mta.connect()
        answer = mta.send(f"<{step}+x@home.test>", [B], FIELDS, b"x\r\n")
        replies = [answer.reply, *answer.refused.values()]
        assert answer.kind in "yt"
        if step != "begin":
            assert any(r.startswith("451 4.3.0 an internal error") for r in replies), replies
        if step != "sent":
            assert not answer.changed
        again = mta.send(A, [B], FIELDS, b"x\r\n")
        assert again.changed, again
    assert "ValueError at test_faults.py" in log_file.read_text()
    assert SECRET not in log_file.read_text()
    assert not any(SECRET in r for r in replies)


def test_a_failure_at_connect_never_lets_mail_pass(server: tuple[str, Path]) -> None:
    """Who the client is wasn't learnt, so nothing of it may be taken for mail that isn't outbound."""
    with MilterClient(server[0]) as mta:
        mta.connect("fail.test")
        for _ in range(2):
            mta.mail(A)
            assert mta.rcpt(B).reply.startswith("451 4.3.0")
            mta.abort()


def test_an_mta_that_goes_away_during_the_edits(server: tuple[str, Path]) -> None:
    """The burst can't be finished: logged as not delivered, no line that says sealed."""
    address, log_file = server
    before = log_file.read_text().count("action=sealed")
    mta = MilterClient(address)
    mta.connect()
    mta.mail(A)
    mta.rcpt(B)
    mta.command("N")
    for _ in range(120):
        mta.write("B", os.urandom(60_000).replace(b"\r", b"r").replace(b"\n", b"n"))
    mta.write("E")
    mta.read()
    mta.close()
    wait_for(lambda: "internal error, deferred: error at" in log_file.read_text(), "the line of the failure", 10)
    assert log_file.read_text().count("action=sealed") == before
