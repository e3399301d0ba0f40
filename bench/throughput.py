"""Messages per second and latency through a real Postfix: no milter, a no-op pymilter, postseal with a warm cache.

Rate: smtp-source with parallel sessions into smtpd, Postfix relays to smtp-sink; counted until the client has all its
answers. Latency: one session, from MAIL to the answer after the final dot.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from common import alternate, median, percentile, save, table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.daemon import Daemon
from support.pki import authority
from support.postfix import PrivatePostfix
from support.scratch import answers, free_port, scratch, wait_for

SIZES = {"2 KB": (2_000, 600), "50 KB": (50_000, 300), "1 MB": (1_000_000, 40)}
ROUNDS = 3
SESSIONS = 8
LATENCY_MESSAGES = {"2 KB": 200, "50 KB": 150, "1 MB": 30}
RECIPIENT = "bob@partner.example"
PEERS = ("no milter", "no-op pymilter", "postseal")


def main() -> None:
    with ExitStack() as stack:
        directory = stack.enter_context(scratch("ps-bench-"))
        sink = _sink(stack)
        ports = {}
        for peer in PEERS:
            milter = _milter(stack, directory / peer.replace(" ", "-"), peer)
            extra = {"default_process_limit": "50", "default_destination_concurrency_limit": "20"}
            postfix = PrivatePostfix(
                directory / f"pf-{len(ports)}", milter, sink, extra=extra, message_size_limit=50_000_000
            )
            ports[peer] = stack.enter_context(postfix).port
        rows, results = [], {}
        for label, (size, count) in SIZES.items():
            for port in ports.values():
                _rate(port, size, SESSIONS)
            rates = alternate({peer: partial(_rate, port, size, count) for peer, port in ports.items()}, ROUNDS)
            results[label] = {}
            for peer, port in ports.items():
                times = _latency(port, size, LATENCY_MESSAGES[label])
                rate = median(rates[peer])
                ratio = rate / median(rates["no milter"])
                p50, p99 = percentile(times, 50) * 1000, percentile(times, 99) * 1000
                rows.append([label, peer, rate, ratio, p50, p99])
                results[label][peer] = {"per_second": rate, "ratio": ratio, "p50_ms": p50, "p99_ms": p99}
        table(
            f"Through Postfix, {SESSIONS} sessions (rate) and one session (latency)",
            ["size", "peer", "messages/s", "of no milter", "p50 ms", "p99 ms"],
            rows,
        )
        print(f"\nwritten: {save('throughput', results)}")


def _sink(stack: ExitStack) -> int:
    port = free_port()
    command = ["smtp-sink", "-u", "postfix", f"127.0.0.1:{port}", "256"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.kill)
    wait_for(lambda: answers(f"127.0.0.1:{port}"), "smtp-sink")
    return port


def _milter(stack: ExitStack, directory: Path, peer: str) -> str:
    """Start the peer and return its socket; the certificate, trust and CRL of postseal are warm before it is measured."""
    if peer == "no milter":
        return ""
    directory.mkdir()
    directory.chmod(0o755)
    if peer == "no-op pymilter":
        address = f"unix:{directory}/noop.sock"
        process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("noop_milter.py")), address])
        stack.callback(process.kill)
        wait_for(lambda: answers(address), "no-op milter")
        return address
    policy = [{"name": "all", "seal": "must", "without_certificate": "refuse", "revocation": "strict"}]
    daemon = Daemon(directory, "run", policy=policy, settings={"milter": {"workers": 0, "pin_workers": True}})
    now = datetime.now(UTC)
    root = authority("Bench root", not_before=now - timedelta(days=9), not_after=now + timedelta(days=900))
    url = "http://127.0.0.1/never-asked.crl"
    bob = root.issue(RECIPIENT, crl_urls=[url], not_before=now - timedelta(days=1), not_after=now + timedelta(days=90))
    (daemon.anchors / "root.pem").write_bytes(root.pem)
    (daemon.certificates / "bob.pem").write_bytes(bob.pem)
    crl = directory / "root.crl"
    crl.write_bytes(root.crl(this_update=now - timedelta(hours=1), next_update=now + timedelta(days=7)))
    command = [sys.executable, "-m", "postseal.shell.cli.main", "evidence", "import", "--config"]
    subprocess.run([*command, str(daemon.config_file), str(crl)], check=True, stdout=subprocess.DEVNULL)
    stack.enter_context(daemon)
    return daemon.milter


def _rate(port: int, size: int, count: int) -> float:
    """Messages per second until the client has its last answer."""
    command = ["smtp-source", "-s", str(SESSIONS), "-m", str(count), "-l", str(size)]
    command += ["-f", "ann@home.test", "-t", RECIPIENT, f"127.0.0.1:{port}"]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return count / (time.perf_counter() - start)


def _latency(port: int, size: int, count: int) -> list[float]:
    """Seconds for each message of one session."""
    line = b"x" * 74 + b"\r\n"
    data = b"From: <ann@home.test>\r\nTo: <" + RECIPIENT.encode() + b">\r\nSubject: bench\r\n\r\n"
    data += line * ((size - len(data)) // 76) + b".\r\n"
    times = []
    with socket.create_connection(("127.0.0.1", port), 120) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = s.makefile("rb")

        def command(text: bytes, code: bytes) -> None:
            s.sendall(text)
            while (reply := replies.readline())[3:4] == b"-":
                pass
            if not reply.startswith(code):
                raise SystemExit(f"unexpected reply: {reply!r}")

        command(b"", b"220")
        command(b"EHLO bench.test\r\n", b"250")
        for _ in range(count):
            start = time.perf_counter()
            command(b"MAIL FROM:<ann@home.test>\r\n", b"250")
            command(b"RCPT TO:<" + RECIPIENT.encode() + b">\r\n", b"250")
            command(b"DATA\r\n", b"354")
            command(data, b"250")
            times.append(time.perf_counter() - start)
        command(b"QUIT\r\n", b"221")
    return times


if __name__ == "__main__":
    main()
