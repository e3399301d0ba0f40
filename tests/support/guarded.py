"""For tests/system/test_internet.py, in its namespaces: fetch every URL of a list, print what became of it as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from postseal.core.transfer import Fetched
from postseal.sources.fetch import Fetcher
from postseal.sources.guard import Guard
from support.internet import Outside


def fetch(fetcher: Fetcher, url: str) -> list[str]:
    # Less than the resolver's own patience where nobody answers.
    budget = 2.0 if "silent" in url else 10.0
    outcome = fetcher.get(url, max_size=1000, deadline=time.monotonic() + budget)
    if isinstance(outcome, Fetched):
        return ["fetched", outcome.body.decode()]
    return [getattr(outcome, "why", "?"), getattr(outcome, "detail", "")]


def main() -> None:
    folder, urls = Path(sys.argv[1]), json.loads(sys.argv[2])
    outside = Outside(folder)
    try:
        fetcher = Fetcher(Guard(), user_agent="postseal/test")
        found = [(url, fetch(fetcher, url)) for url in urls]
        guarded, connected = outside.counted(), outside.connected()
        # The proof that the counter counts and that the other side answers everywhere: the same without a guard.
        free = Fetcher(Guard(allow_networks=["0.0.0.0/0", "::/0"]), user_agent="postseal/test")
        opened = [(url, fetch(free, url)) for url in ("http://10.1.2.3/", "http://[fd00::1]/", "http://loop.test/")]
        after = outside.counted()
    finally:
        outside.close()
    print(json.dumps({"found": found, "counted": guarded, "connected": connected, "opened": opened, "after": after}))


main()
