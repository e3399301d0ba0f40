"""The milter protocol's edge: pymilter's callbacks, converted to calls of a ``MessageJob`` and back. No decision is made here.

The raw ``milter`` module is used rather than its ``Milter.Base``: 15 to 20 % less time per message, and the octets come as
octets. A ``Session`` belongs to one connection of the MTA, which may carry many messages; libmilter never runs two callbacks
of one connection at the same time, but may run them on different threads (P1), so nothing here is bound to a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import milter
from postseal.app.outbound import Client
from postseal.app.ports import MailLog
from postseal.app.seal import Accept, Edits, MessageJob, Outcome, Sealing, traceback_text
from postseal.core.errors import BadData, PostsealError
from postseal.core.plan import Reply

NAME = "postseal"

# What we do to messages; the MTA refuses a milter that asks for more than it offers.
ACTIONS = milter.ADDHDRS | milter.CHGHDRS | milter.CHGBODY | milter.DELRCPT | milter.QUARANTINE
# Not asked for, or not waited for. Only RCPT, the end of the header and the end of the message get answers.
_UNUSED = milter.P_NOHELO | milter.P_NODATA | milter.P_NOUNKNOWN
_NO_REPLY = milter.P_NR_CONN | milter.P_NR_MAIL | milter.P_NR_HDR | milter.P_NR_BODY
# (stage, macros) that an MTA doesn't send by itself.
_MACROS = (
    (milter.M_CONNECT, "{client_addr} {client_port}"),
    (milter.M_ENVFROM, "i {auth_authen}"),
    (milter.M_ENVRCPT, "i"),
    (milter.M_EOH, "i"),
    (milter.M_EOM, "i"),
)
# libmilter: a line of a reply has at most 980 octets, a reply 32 lines.
_LINE_MAX, _LINES_MAX = 900, 32


class Session:
    """One connection of the MTA."""

    def __init__(self, sealing: Sealing) -> None:
        self._sealing = sealing
        self._protocol = 0
        self._client = Client()
        self._job: MessageJob | None = None
        # Why nothing that this connection brings can be judged; a milter that shrugs would let plain text out.
        self._broken: BaseException | None = None

    # --- the connection

    def negotiate(self, ctx: Any, options: list[int]) -> int:
        """``options`` are what the MTA offers: [actions, protocol steps, 0, 0]; changed in place to what we want."""
        actions, offered = options[0], options[1]
        self._protocol = offered & (_UNUSED | _NO_REPLY | milter.P_HDR_LEADSPC)
        options[:] = [ACTIONS & actions, self._protocol, 0, 0]
        if actions & milter.SETSYMLIST:
            for stage, names in _MACROS:
                # P6: str, whatever pymilter's own wrapper does.
                ctx.setsymlist(stage, names)
            options[0] |= milter.SETSYMLIST
        missing = ACTIONS & ~actions
        if missing:
            self._broken = BadData(f"the MTA doesn't allow what sealing needs (milter actions {missing:#x})")
        return int(milter.CONTINUE)

    def connect(self, ctx: Any, name: str, family: int, where: Any) -> int:
        """``where`` is (address, port …), the path of a Unix socket, or None when the MTA doesn't know."""
        if isinstance(where, tuple):
            self._client = Client(name, str(where[0]), int(where[1]))
        else:
            self._client = Client(name, _macro(ctx, "{client_addr}"), 0 if name == "localhost" else None)
        return self._quiet(milter.P_NR_CONN)

    def close(self) -> int:
        """The MTA has gone, perhaps in the middle of a message."""
        self._end()
        return int(milter.CONTINUE)

    # --- one message

    def envfrom(self, ctx: Any, sender: bytes, *options: bytes) -> int:
        self._end()
        client = Client(self._client.name, self._client.address, self._client.port, _macro(ctx, "{auth_authen}"))
        self._job = self._sealing.begin(_text(sender), client, [_text(o) for o in options])
        if self._broken is not None:
            self._job.fail(self._broken)
        return self._quiet(milter.P_NR_MAIL)

    def envrcpt(self, ctx: Any, recipient: bytes, *options: bytes) -> int:
        job = self._current(ctx)
        refusal = job.recipient(_text(recipient), [_text(o) for o in options])
        return int(milter.CONTINUE) if refusal is None else _answer(ctx, refusal)

    def header(self, ctx: Any, name: str, value: bytes) -> int:
        leading = b"" if self._protocol & milter.P_HDR_LEADSPC else b" "
        self._current(ctx).header(name.encode(), leading + value)
        return self._quiet(milter.P_NR_HDR)

    def eoh(self, ctx: Any) -> int:
        job = self._current(ctx)
        outcome = job.end_of_headers()
        return int(milter.CONTINUE) if outcome is None else self._conclude(ctx, job, outcome)

    def body(self, ctx: Any, chunk: bytes) -> int:
        self._current(ctx).body(chunk)
        return self._quiet(milter.P_NR_BODY)

    def eom(self, ctx: Any) -> int:
        job = self._current(ctx)
        return self._conclude(ctx, job, job.finish(ctx.progress))

    def abort(self) -> int:
        """The client gave up, or all its recipients were refused; the connection may go on with another message."""
        self._end()
        return int(milter.CONTINUE)

    # --- helpers

    def failed(self, ctx: Any, step: str, exc: BaseException, may_answer: bool) -> int:
        """An exception in a callback: 4xx now where an answer is allowed, else at the next one that is."""
        if self._job is None:
            if step in _FIRST:
                self._broken = exc
            self._sealing.log.error(f"internal error in {step}: {traceback_text(exc)}")
            return int(milter.TEMPFAIL) if may_answer else self._quiet(_NR_OF.get(step, 0))
        reply = self._job.fail(exc)
        if not may_answer:
            return self._quiet(_NR_OF.get(step, 0))
        code = _answer(ctx, reply)
        if step in _LAST:
            self._end()
        return code

    def _current(self, ctx: Any) -> MessageJob:
        if self._job is None:
            raise PostsealError("the MTA sent a part of a message that didn't begin")
        if not self._job.queue_id:
            self._job.queue_id = _macro(ctx, "i")
        return self._job

    def _conclude(self, ctx: Any, job: MessageJob, outcome: Outcome) -> int:
        code = int(milter.ACCEPT)
        if isinstance(outcome, Reply):
            code = _answer(ctx, outcome)
        elif isinstance(outcome, Edits):
            self._carry_out(ctx, outcome)
        elif isinstance(outcome, Accept) and outcome.hold:
            ctx.quarantine(outcome.hold)
        job.sent()
        self._end()
        return code

    def _carry_out(self, ctx: Any, edits: Edits) -> None:
        """P10: all edits in one burst. If the MTA goes away in between, the exception makes it a 4xx."""
        for recipient in edits.delete_recipients:
            ctx.delrcpt(recipient)
        skip = 0 if self._protocol & milter.P_HDR_LEADSPC else 1
        for edit in edits.header:
            if edit.kind == "add":
                ctx.addheader(edit.name, edit.value[skip:], -1)
            else:
                ctx.chgheader(edit.name, edit.index, edit.value[skip:] if edit.kind == "set" else None)
        for block in edits.blocks:
            ctx.replacebody(block)

    def _quiet(self, step: int) -> int:
        """NOREPLY where the MTA agreed not to wait for an answer."""
        return int(milter.NOREPLY) if self._protocol & step else int(milter.CONTINUE)

    def _end(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.close()


_NR_OF = {
    "connect": milter.P_NR_CONN,
    "envfrom": milter.P_NR_MAIL,
    "header": milter.P_NR_HDR,
    "body": milter.P_NR_BODY,
}
_FIRST = ("negotiate", "connect")
_LAST = ("eoh", "eom")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _macro(ctx: Any, name: str) -> str:
    try:
        return ctx.getsymval(name) or ""
    except UnicodeDecodeError:
        # P8: pymilter can't give octets.
        return "?"


def _answer(ctx: Any, reply: Reply) -> int:
    """Set the text and return the class of the reply. P14: never 421, which Postfix answers by hanging up."""
    code = 451 if reply.code == 421 else reply.code
    # setreply takes it as a format string.
    lines = [escape_percent(line[:_LINE_MAX]) for line in reply.lines[:_LINES_MAX]]
    ctx.setreply(str(code), reply.enhanced, *lines)
    return int(milter.TEMPFAIL if code < 500 else milter.REJECT)


def escape_percent(text: str) -> str:
    """Printable ASCII with each ``%`` doubled, as libmilter wants it."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).replace("%", "%%")


def install(new_session: Callable[[], Session], log: MailLog) -> None:
    """Register all callbacks with libmilter, once per process; every connection of the MTA gets its own session."""

    def session(ctx: Any) -> Session:
        found = ctx.getpriv()
        if found is None:
            found = new_session()
            ctx.setpriv(found)
        return found  # type: ignore[no-any-return]

    def guarded(step: str, call: Callable[..., int], may_answer: bool) -> Callable[..., int]:
        def callback(ctx: Any, *arguments: Any) -> int:
            try:
                own = session(ctx)
                try:
                    return call(own, ctx, *arguments)
                except Exception as exc:
                    return own.failed(ctx, step, exc, may_answer)
            except Exception as exc:
                log.error(f"internal error in {step}: {traceback_text(exc)}")
                return int(milter.TEMPFAIL)

        return callback

    def close(own: Session, ctx: Any) -> int:
        try:
            return own.close()
        finally:
            # The session refers to the context and the context to the session.
            ctx.setpriv(None)

    milter.set_connect_callback(guarded("connect", Session.connect, False))
    milter.set_envfrom_callback(guarded("envfrom", Session.envfrom, False))
    milter.set_envrcpt_callback(guarded("envrcpt", Session.envrcpt, True))
    milter.set_header_callback(guarded("header", Session.header, False))
    milter.set_eoh_callback(guarded("eoh", Session.eoh, True))
    milter.set_body_callback(guarded("body", Session.body, False))
    milter.set_eom_callback(guarded("eom", Session.eom, True))
    milter.set_abort_callback(guarded("abort", lambda own, ctx: own.abort(), False))
    milter.set_close_callback(guarded("close", close, False))
    milter.set_flags(ACTIONS | milter.SETSYMLIST)
    # For what goes wrong before a callback of ours is reached (P8).
    milter.set_exception_policy(milter.TEMPFAIL)
    milter.register(NAME, negotiate=guarded("negotiate", Session.negotiate, True))
