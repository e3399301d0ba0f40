"""OpenDKIM's miltertest, an implementation of the MTA's side that isn't ours, talks to the real daemon."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.milterdaemon import Setting

HERE = Path(__file__).parent
SCRIPTS = sorted(path.name for path in HERE.glob("*.lua") if path.name != "common.lua")


@pytest.mark.parametrize("script", SCRIPTS)
def test_script(setting: Setting, script: str) -> None:
    """Each script says in its first line what it shows; it ends with an error when the milter does something else."""
    command = [
        "miltertest", "-D", f"SOCKET={setting.daemon.milter}", "-D", f"COMMON={HERE / 'common.lua'}", "-s", script,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr + setting.daemon.log()[-2000:]
