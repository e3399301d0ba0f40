"""Parsing at arm's length: what a hostile object costs is paid by a child that may not do anything else (THR-7)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from postseal.core.certs import Certificate, load_certificates
from postseal.core.errors import BadData, Unavailable
from postseal.core.evidence import question_for
from postseal.core.fitness import fitness
from postseal.core.ocsp import build_request
from postseal.core.path import Anchor, PathFault, PathSettings, build_path
from postseal.core.transfer import Fetched, FetchFailed, Transfer
from postseal.sources.confine import ConfinedHttp, Confinement, Done, Limits, Refusal
from support.evidence import node, seq
from support.pki import NOW, authority
from support.responders import Responder
from support.scratch import wait_for

CA = authority("Root", kind="p256")
LEAF = CA.issue("alice@example.test", kind="p256")
ANSWER = Responder(CA).answer(build_request(question_for(LEAF.certificate, CA.certificate)))
MIB = 1024 * 1024
# A helper that knows jobs which do what no parser should.
MISBEHAVE = """
import os, socket, time
from postseal.sources import confined

def spin(files, arguments):
    while True: pass

def hog(files, arguments):
    return {"size": len(bytearray(arguments["size"]))}

def attempt(files, arguments):
    said = {}
    for name, act in {"file": lambda: os.open("/dev/null", os.O_RDONLY), "socket": lambda: socket.socket(),
                      "write": lambda: os.write(files[0], b"x"), "pipe": lambda: os.pipe(),
                      "client": lambda: os.write(int(os.sys.argv[1]), b"{}"), "signal": lambda: os.kill(HELPER, 0),
                      "unlink": lambda: os.unlink(arguments["path"]), "fork": lambda: os.fork() or os._exit(0),
                      "exec": lambda: os.execv("/bin/true", ["true"])}.items():
        if name in arguments["what"]:
            try: said[name] = str(act())
            except OSError as exc: said[name] = os.strerror(exc.errno)
    return said

HELPER = os.getpid()
if FILTERED is False:
    confined.only_compute = lambda: False
confined.JOBS.update(
    spin=spin, hog=hog, attempt=attempt, doze=lambda f, a: time.sleep(60), crash=lambda f, a: os.abort(),
    shout=lambda f, a: {"text": "x" * 1_000_000}, stop=lambda f, a: os.kill(HELPER, 9))
if __name__ == "__main__":
    confined.main()
"""


@pytest.fixture(scope="module")
def confinement() -> Iterator[Confinement]:
    pool = Confinement()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def hostile() -> Iterator[Confinement]:
    pool = Confinement(1, (sys.executable, "-c", "FILTERED = False\n" + MISBEHAVE))
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def filtered() -> Iterator[Confinement]:
    pool = Confinement(1, (sys.executable, "-c", "FILTERED = True\n" + MISBEHAVE))
    yield pool
    pool.close()


def run(pool: Confinement, job: str, blob: bytes, folder: Path, limits: Limits = Limits()) -> Done | Refusal:  # noqa: B008
    file = folder / "object"
    file.write_bytes(blob)
    with file.open("rb") as handle:
        return pool.run(job, [handle.fileno()], {}, limits)


@pytest.mark.parametrize(
    ("blob", "value"), [(LEAF.pem + CA.pem, {"certificates": 2}), (CA.crl([LEAF]), {"crl": 1}), (ANSWER, {"ocsp": 1})]
)
def test_honest_objects_are_read(blob: bytes, value: dict[str, int], confinement: Confinement, tmp_path: Path) -> None:
    """What the helper found comes back, and the object may be read here."""
    done = run(confinement, "read", blob, tmp_path)
    assert isinstance(done, Done)
    assert (dict(done.value), done.bad) == (value, "")
    assert confinement.refusal(blob) is None


def nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = node(0x30, inner)
    return inner


def with_key(spki: bytes) -> bytes:
    """LEAF with another public key; its signature fits no more, which nobody has looked at yet when it is parsed."""
    tbs = LEAF.certificate.parts.tbs
    return seq(seq(tbs[4:].replace(LEAF.certificate.spki, spki)), LEAF.certificate.der[4 + len(tbs) :])


def rsa_key(bits: int, exponent: int) -> bytes:
    def integer(value: int) -> bytes:
        return node(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))

    key = seq(integer((1 << bits) - 159), integer(exponent))
    return seq(seq(node(0x06, bytes.fromhex("2a864886f70d010101")), node(0x05)), node(0x03, b"\x00", key))


def explicit_curve() -> bytes:
    field = seq(node(0x06, bytes.fromhex("2a8648ce3d0101")), node(0x02, b"\x00" + b"\xff" * 32))
    curve = seq(node(0x04, b"\x01" * 32), node(0x04, b"\x02" * 32))
    parameters = seq(node(0x02, b"\x01"), field, curve, node(0x04, b"\x04" + b"\x03" * 64), node(0x02, b"\x07"))
    algorithm = seq(node(0x06, bytes.fromhex("2a8648ce3d0201")), parameters)
    return seq(algorithm, node(0x03, b"\x00\x04" + b"\x05" * 64))


BOMBS: dict[str, bytes] = {
    "depth 10 000": nested(10_000),
    "depth 10 000 in a certificate": seq(nested(10_000), LEAF.certificate.der),
    "length 2^32": bytes.fromhex("308500ffffffff") + bytes(64),
    "length 2^32 - 1": bytes.fromhex("3084ffffffff") + bytes(64),
    "length 2^32 in a certificate": seq(bytes.fromhex("308500ffffffff"), LEAF.certificate.der),
    "indefinite certificate": b"\x30\x80" + LEAF.certificate.der[4:] + b"\x00\x00",
    "indefinite in a certificate": seq(b"\x30\x80" + LEAF.certificate.parts.tbs + b"\x00\x00"),
    "indefinite without end": b"\x30\x80" * 5000,
    "a million pieces": seq(b"\x05\x00" * 1_000_000),
    "an OBJECT IDENTIFIER of a megabyte": seq(node(0x06, b"\x81" * MIB + b"\x01")),
}
KEYS: dict[str, bytes] = {
    "16 384-bit RSA": rsa_key(16384, 65537),
    "e = 2^4096": rsa_key(2048, (1 << 4096) + 1),
    "e = 1": rsa_key(2048, 1),
    "explicit EC parameters": explicit_curve(),
}


@pytest.mark.parametrize("name", BOMBS)
def test_t15_bombs(name: str, confinement: Confinement, tmp_path: Path) -> None:
    """T-15, THR-7: refused as certificate, CRL and OCSP answer, for less than half a second of CPU time and 300 MB."""
    done = run(confinement, "read", BOMBS[name], tmp_path)
    assert isinstance(done, Done), done
    assert done.bad
    assert done.cpu < 0.5
    assert done.rss < 300_000


@pytest.mark.parametrize("name", KEYS)
def test_t15_keys(name: str, confinement: Confinement, tmp_path: Path) -> None:
    """T-15, CERT-13: such a key costs nothing, and whether it can be read or not, it is neither used nor trusted."""
    done = run(confinement, "read", with_key(KEYS[name]), tmp_path)
    assert isinstance(done, Done), done
    assert done.cpu < 0.5
    assert done.rss < 300_000
    found: tuple[Certificate, ...] = ()
    try:
        found = load_certificates(with_key(KEYS[name]))
    except BadData:
        assert done.bad
    for certificate in found:
        assert any(finding.fatal for finding in fitness(certificate, None, NOW))
        below = LEAF.certificate
        assert isinstance(build_path(below, (Anchor(certificate),), (), PathSettings(), NOW), PathFault)


def test_a_key_that_is_good_is_not_taken_for_a_bomb(tmp_path: Path) -> None:
    """The certificates above are refused for their keys, not for how they were made."""
    (certificate,) = load_certificates(with_key(CA.certificate.spki))
    assert not any(finding.fatal for finding in fitness(certificate, None, NOW))


@pytest.mark.parametrize(
    ("job", "limits", "why", "word"),
    [
        ("spin", Limits(cpu=1), "rev.malformed", "more than 1 s"),
        ("doze", Limits(wall=0.2), "rev.malformed", "more than"),
        ("crash", Limits(), "rev.malformed", f"signal {int(signal.SIGABRT)}"),
        ("shout", Limits(), "rev.malformed", "died"),
    ],
)
def test_jobs_that_misbehave(
    job: str, limits: Limits, why: str, word: str, hostile: Confinement, tmp_path: Path
) -> None:
    """THR-7: time, life and talk of a child end, the helper goes on."""
    outcome = run(hostile, job, b"x", tmp_path, limits)
    assert isinstance(outcome, Refusal), outcome
    assert outcome.why == why
    assert word in outcome.detail
    assert isinstance(run(hostile, "read", LEAF.pem, tmp_path), Done)


def test_memory_is_limited(hostile: Confinement) -> None:
    """THR-7: above the limit is refused as too large, below it isn't."""
    more = hostile.run("hog", [], {"size": 300 * MIB}, Limits())
    assert more == Refusal("rev.too-large", "reading it takes more than 256 MiB of memory")
    less = hostile.run("hog", [], {"size": 100 * MIB}, Limits())
    assert isinstance(less, Done)
    assert less.value == {"size": 100 * MIB}


def attempts(pool: Confinement, folder: Path, *what: str) -> Mapping[str, str]:
    file = folder / "object"
    file.write_bytes(b"x")
    with file.open("r+b") as handle:
        done = pool.run("attempt", [handle.fileno()], {"what": what, "path": str(file)}, Limits())
    assert isinstance(done, Done)
    assert file.exists()
    return done.value


def test_a_child_can_open_nothing(hostile: Confinement, tmp_path: Path) -> None:
    """THR-7: by limits alone: no file, no socket, no pipe, nothing written, no word to the client in the helper's name."""
    assert attempts(hostile, tmp_path, "file", "socket", "write", "pipe", "client") == {
        "file": "Too many open files", "socket": "Too many open files", "write": "File too large",
        "pipe": "Too many open files", "client": "Bad file descriptor",
    }  # fmt: skip


def test_a_child_can_do_nothing_to_others(filtered: Confinement, tmp_path: Path) -> None:
    """THR-7: by the system call filter: no signal, nothing deleted, no other program, no process; and it computes."""
    what = ("file", "socket", "pipe", "signal", "unlink", "exec", "fork")
    assert attempts(filtered, tmp_path, *what) == dict.fromkeys(what, "Operation not permitted")
    assert isinstance(run(filtered, "read", LEAF.pem, tmp_path), Done)
    assert filtered.run("hog", [], {"size": 50 * MIB}, Limits()).value == {"size": 50 * MIB}  # type: ignore[union-attr]
    assert filtered.run("hog", [], {"size": 300 * MIB}, Limits()).why == "rev.too-large"  # type: ignore[union-attr]


def test_a_helper_that_dies_is_replaced(hostile: Confinement, tmp_path: Path) -> None:
    """The object in hand gets no answer, the next one does."""
    with pytest.raises(Unavailable, match="helper process"):
        run(hostile, "stop", b"x", tmp_path)
    assert isinstance(run(hostile, "read", LEAF.pem, tmp_path), Done)


def test_no_helper_in_time_is_unavailable() -> None:
    """A pool whose helpers are all busy says so instead of waiting without end."""
    pool = Confinement(1, (sys.executable, "-c", "FILTERED = False\n" + MISBEHAVE))
    busy = threading.Thread(target=lambda: pool.run("doze", [], {}, Limits(wall=1.0)))
    busy.start()
    wait_for(lambda: pool._free.empty(), "the helper to be taken")
    with pytest.raises(Unavailable, match="free"):
        pool.run("doze", [], {}, Limits(wall=0.1))
    busy.join()
    pool.close()


def test_a_helper_that_can_not_start_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="helper process"):
        Confinement(1, ("/bin/false",)).refusal(b"x")


def test_helpers_end_with_the_process_that_started_them() -> None:
    """Also when that is killed: nothing stays behind."""
    script = (
        "import sys, time\nfrom postseal.sources.confine import Confinement\np = Confinement(1)\np.refusal(b'x')\n"
        "print(p._helpers[0]._process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        helper = int(parent.stdout.readline())
        parent.kill()
    wait_for(lambda: not _alive(helper), "the helper to end")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


class Web:
    """Answers everything with one body."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def get(self, url: str, **_: object) -> Transfer:
        return Fetched(url, self.body)

    def get_to(self, url: str, sink: Callable[[bytes], object], **_: object) -> Transfer:
        sink(self.body)
        return Fetched(url, b"", streamed=len(self.body))

    def post(self, url: str, body: bytes, **_: object) -> Transfer:
        return Fetched(url, self.body)


def test_answers_are_read_by_a_helper_first() -> None:
    """THR-7: an answer of GET or POST that is too much for the helper isn't seen here; others pass as they are."""
    script = "FILTERED = False\n" + MISBEHAVE.replace(
        "spin=spin", "read=lambda f, a: os.abort() if confined._content(f[0]) == b'bad' else {}"
    )
    pool = Confinement(1, (sys.executable, "-c", script))
    for body, passes in ((b"good", True), (b"bad", False)):
        http = ConfinedHttp(Web(body), pool)
        for answer in (
            http.get("http://a.test/", max_size=9, deadline=0.0),
            http.post("http://a.test/", b"", content_type="a/b", max_size=9, deadline=0.0),
        ):
            assert isinstance(answer, Fetched if passes else FetchFailed)
            assert isinstance(answer, Fetched) or (answer.why, answer.host_fault) == ("rev.malformed", False)
    pieces: list[bytes] = []
    assert http.get_to("http://a.test/", pieces.append, max_size=9, deadline=0.0) == Fetched(
        "http://a.test/", b"", streamed=3
    )
    assert pieces == [b"bad"]
    pool.close()


def test_no_helper_is_no_answer() -> None:
    """Nothing is read here unread: without a helper there is no evidence, and the next source is asked."""
    answer = ConfinedHttp(Web(b"x"), Confinement(1, ("/bin/false",))).get("http://a.test/", max_size=9, deadline=0.0)
    assert isinstance(answer, FetchFailed)
    assert answer.why == "rev.budget"


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_objects_of_any_size(size: int, confinement: Confinement) -> None:
    """Nothing at all, and more than a socket takes in one piece."""
    assert confinement.refusal(bytes(size)) is None
