"""The least a Python milter can cost: pymilter, every callback answered without a reply. ``noop_milter.py SOCKET``."""

from __future__ import annotations

import os
import sys

import Milter


class NoOp(Milter.Base):
    @Milter.noreply
    def envfrom(self, *_: str) -> int:
        return Milter.CONTINUE

    @Milter.noreply
    def envrcpt(self, *_: str) -> int:
        return Milter.CONTINUE

    @Milter.noreply
    def header(self, *_: str) -> int:
        return Milter.CONTINUE

    @Milter.noreply
    def eoh(self) -> int:
        return Milter.CONTINUE

    @Milter.noreply
    def body(self, _: bytes) -> int:
        return Milter.CONTINUE

    def eom(self) -> int:
        return Milter.CONTINUE


# Postfix connects as another user.
os.umask(0)
Milter.factory = NoOp
Milter.set_flags(Milter.CHGBODY + Milter.CHGHDRS)
Milter.runmilter("noop", sys.argv[1], 300)
