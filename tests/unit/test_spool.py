"""The spool keeps ciphertext in memory up to a limit, then in a file without a name."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postseal.core.errors import Unavailable
from postseal.sources import spool as module
from postseal.sources.spool import Spool


def test_what_is_appended_comes_back_any_number_of_times(tmp_path: Path) -> None:
    """Small content stays in memory and the directory isn't touched."""
    spool = Spool(100, tmp_path / "missing")
    for part in (b"one", b"", b"two\0\xff"):
        spool.append(part)
    assert [b"".join(spool), b"".join(spool)] == [b"onetwo\0\xff"] * 2
    assert spool.size == 8
    assert not spool.in_file


@pytest.mark.parametrize("sizes", [(10, 1), (11,), (4, 4, 4, 70_000, 5), (300_000, 300_000)])
def test_above_the_limit_the_same_octets_come_from_a_file(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """The switch to the file may fall anywhere; the order of octets doesn't change."""
    spool = Spool(10, tmp_path)
    parts = [os.urandom(size) for size in sizes]
    for part in parts:
        spool.append(part)
    assert spool.in_file
    assert b"".join(spool) == b"".join(spool) == b"".join(parts)
    assert spool.size == sum(sizes)


def test_exactly_the_limit_stays_in_memory(tmp_path: Path) -> None:
    """The limit itself is still memory."""
    spool = Spool(10, tmp_path)
    spool.append(b"0123456789")
    assert not spool.in_file


@pytest.mark.parametrize("tmpfile", [True, False])
def test_the_file_has_no_name_and_mode_0600(tmp_path: Path, tmpfile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can open the file by name, also where the file system has no O_TMPFILE."""
    if not tmpfile:
        # A directory opened for writing without O_TMPFILE says EISDIR, as kernels without it do.
        monkeypatch.setattr(module.os, "O_TMPFILE", 0)
    before = set(_own_files())
    spool = Spool(0, tmp_path)
    spool.append(b"x" * 1000)
    assert list(tmp_path.iterdir()) == []
    (fd,) = set(_own_files()) - before
    status = os.fstat(fd)
    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 0)
    spool.close()
    spool.close()
    assert fd not in set(_own_files())


def _own_files() -> Iterator[int]:
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISREG(os.fstat(int(name)).st_mode):
                yield int(name)
        except OSError:
            continue


def test_a_missing_directory_is_unavailable_and_named(tmp_path: Path) -> None:
    """The sentence names the directory and the cause."""
    spool = Spool(0, tmp_path / "missing")
    with pytest.raises(Unavailable, match=r"spool file in .*/missing: No such file"):
        spool.append(b"x")


@pytest.mark.root
def test_a_full_disk_is_unavailable(tmp_path: Path) -> None:
    """A real full file system: the message can't be kept, and the sentence says why."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        spool = Spool(0, tmp_path)
        with pytest.raises(Unavailable, match="No space left on device"):
            spool.append(b"x" * 400_000)
        spool.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_file_cut_short_is_noticed(tmp_path: Path) -> None:
    """Less than what was written must never pass as the message."""
    before = set(_own_files())
    spool = Spool(0, tmp_path)
    spool.append(b"x" * 1000)
    (fd,) = set(_own_files()) - before
    os.ftruncate(fd, 10)
    with pytest.raises(Unavailable, match="shorter"):
        b"".join(spool)
