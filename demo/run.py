"""``./dev demo``: real mail through a private Postfix and postseal, and what became of it.

Exit code 0 only if every recipient got what was expected. ``--keep`` leaves all of it running in the background.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from pathlib import Path

sys.path[1:1] = [str(Path(__file__).resolve().parents[1] / "tests")]

from cases import CASES, Case, Outcome, run
from world import LOGIN, SENDER, Site, site


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev demo", description="Real mail through a private Postfix and postseal.")
    parser.add_argument("--keep", action="store_true", help="leave it running afterwards, in the background")
    keep = parser.parse_args().keep
    if os.geteuid() != 0:
        print("./dev demo: a private Postfix needs root", file=sys.stderr)
        return 77
    return _in_background() if keep else _demo(None)


def _in_background() -> int:
    """Run the demo in a child that goes on; the parent ends with the demo's exit code."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        code = os.read(reader, 1)
        return code[0] if code else 1
    os.close(reader)
    os.setsid()
    try:
        os._exit(_demo(writer))
    except BaseException as exc:
        print(f"./dev demo: {exc}", file=sys.stderr)
        os._exit(1)


def _demo(tell: int | None) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="postseal-demo-"))
    directory.chmod(0o755)
    code = 1
    try:
        with site(directory) as here:
            print(f"Postfix, postseal, a CA with CRL and OCSP: up in {time.monotonic() - began:.1f} s in {directory}\n")
            wrong = _all(here)
            code = 1 if wrong else 0
            print(f"{wrong} of {len(CASES)} messages went wrong." if wrong else f"All {len(CASES)} went as expected.")
            if tell is not None:
                _stay(here, tell, code)
    except AssertionError as exc:
        print(f"./dev demo: {exc}", file=sys.stderr)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"Everything is stopped and removed, after {time.monotonic() - began:.0f} s.")
    return code


def _all(here: Site) -> int:
    wrong = 0
    for number, case in enumerate(CASES, 1):
        outcomes = run(here, number, case)
        good = _good(case, outcomes)
        wrong += not good
        print(f"{number:2}. {case.title}")
        for recipient, outcome in outcomes.items():
            expected = case.expected[recipient]
            print(f"    to        {recipient}")
            print(f"    expected  {expected}" + ("" if outcome.kind == expected else f", but it was {outcome.kind}"))
            _show("    outcome   ", outcome.words)
            for line in outcome.log:
                _show("    log       ", line)
        print(f"    {'as expected' if good else 'NOT AS EXPECTED'}\n", flush=True)
    return wrong


def _good(case: Case, outcomes: dict[str, Outcome]) -> bool:
    """Every recipient got what was expected, the log says the same, and warns where it must."""
    for recipient, outcome in outcomes.items():
        if outcome.kind != case.expected[recipient]:
            return False
        if not any(f"action={outcome.kind}" in line for line in outcome.log):
            return False
    return not case.warning or any(
        "warning: " in line and case.warning in line for o in outcomes.values() for line in o.log
    )


def _show(label: str, text: str) -> None:
    print(textwrap.fill(text, 118, initial_indent=label, subsequent_indent=" " * len(label), break_on_hyphens=False))


def _stay(here: Site, tell: int, code: int) -> None:
    """Say how to go on, let the parent end, and wait for SIGTERM."""
    certificate_of = "rsa@partner.test"
    sudo = "sudo " if os.environ.get("POSTSEAL_AS_ROOT") else ""
    print(f"""
It goes on running. To send mail (sender {SENDER}; rules are in {here.directory}/postseal.toml):
    {sudo}/usr/sbin/sendmail -C {here.postfix.etc} -f {SENDER} {certificate_of} < MESSAGE
    or by SMTP to 127.0.0.1 port {here.postfix.port} (no login needed from this host; {LOGIN[0]}, password {LOGIN[1]}, works)
What arrives:  {here.arrived}/
To open it:    {sudo}openssl cms -decrypt -in {here.arrived}/FILE -inkey {here.keys}/{certificate_of}.key
Logs:          {here.daemon.log_file}
               {here.postfix.log_file}
To ask:        {sudo}.venv/bin/postseal check {certificate_of} --config {here.daemon.config_file}
To stop it:    {sudo}kill {os.getpid()}
""", flush=True)  # fmt: skip
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.write(tell, bytes([code]))
    os.close(tell)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
