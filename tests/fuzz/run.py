"""Coverage-guided fuzzing of one reader: ``run.py TARGET [libFuzzer options and corpus folders]``.

Only parsers of octets from strangers tell the fuzzer where it has been: the rest is not of interest.
"""

from __future__ import annotations

import sys

import atheris

_INSTRUMENTED = ["postseal.core.cms", "postseal.core.message", "postseal.core.capabilities"]

with atheris.instrument_imports(include=_INSTRUMENTED):
    from targets import TARGETS


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(TARGETS)} [libFuzzer options] [corpus folders]")
    target = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[target], internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
