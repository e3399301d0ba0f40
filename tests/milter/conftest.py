"""One real daemon for all dialogues of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.milterdaemon import Setting
from support.scratch import scratch
from support.sink import Sink


@pytest.fixture(scope="session")
def setting() -> Iterator[Setting]:
    with scratch() as directory, Sink() as sink:
        made = Setting(directory, sink)
        with made.daemon:
            yield made
