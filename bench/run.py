"""All benchmarks, or those named (see NAMES): ``run.py [NAME…]``. Tables on stdout, JSON in bench/results/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common import machine

NAMES = ("decision", "revocation", "crl", "cms", "throughput")


def main() -> int:
    wanted = sys.argv[1:] or NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 64
    print(", ".join(f"{key} {value}" for key, value in machine().items()), flush=True)
    for name in wanted:
        done = subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))])
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
