"""An Internet of one's own: a network namespace in which every address answers, beside one in which a program runs.

``in_namespaces(script)`` runs a Python script as root in a namespace whose only way out leads to the other one. There,
whatever address is connected to on port 80 is answered by one HTTP server, which says what was asked and where; names are
resolved by a DNS server at 9.9.9.9 that lies on purpose. Neither sees the machine's own network.
The script imports this module: ``names``, ``connected``, ``packets_to_denied``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.rrset

HERE = Path(__file__).resolve().parent
DNS_SERVER, PUBLIC, OWN = "9.9.9.9", "93.184.215.14", "93.184.215.99"
# Where no packet may go, as nftables writes it; all that has a special meaning in the IANA registries.
DENIED_V4 = (
    "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.2.0/24, 192.168.0.0/16, "
    f"198.18.0.0/15, 203.0.113.0/24, 224.0.0.0/3, {OWN}"
)
DENIED_V6 = (
    "::/8, 64:ff9b::/96, 100::/64, 2001::/32, 2001:db8::/32, 2002::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8"
)
# name -> answers to the first, second … question of a type; the last one stays. None: no answer at all.
NAMES: dict[str, dict[str, list[list[str] | None]]] = {
    "good.test": {"A": [[PUBLIC]]},
    "six.test": {"AAAA": [["2606:2800:21f:cb07:6820:80da:af6b:8b2c"]]},
    "rebind.test": {"A": [[PUBLIC], ["127.0.0.1"]]},
    "late.test": {"A": [[PUBLIC], ["10.1.2.3"]]},
    "loop.test": {"A": [["127.0.0.1"]]},
    "mixed.test": {"A": [[PUBLIC, "127.0.0.1"]]},
    "both.test": {"A": [[PUBLIC]], "AAAA": [["::1"]]},
    "mapped.test": {"AAAA": [["::ffff:127.0.0.1"]]},
    "nat64.test": {"AAAA": [["64:ff9b::7f00:1"]]},
    "sixtofour.test": {"AAAA": [["2002:7f00:1::"]]},
    "teredo.test": {"AAAA": [["2001:0:7f00:1::1"]]},
    "ula.test": {"AAAA": [["fd12:3456::1"]]},
    "link.test": {"AAAA": [["fe80::1"]]},
    "cgnat.test": {"A": [["100.64.0.1"]]},
    "meta.test": {"A": [["169.254.169.254"]]},
    "multi.test": {"A": [["224.0.0.251"]]},
    "zero.test": {"A": [["0.0.0.0"]]},
    "broadcast.test": {"A": [["255.255.255.255"]]},
    "own.test": {"A": [[OWN]]},
    "redirect.test": {"A": [[PUBLIC]]},
    "xn--bcher-kva.test": {"A": [["192.168.7.7"]]},
    "silent.test": {"A": [None], "AAAA": [None]},
}


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


class Resolver(threading.Thread):
    """The DNS server: UDP, one thread."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._asked: dict[tuple[str, str], int] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((DNS_SERVER, 53))

    def run(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            query = dns.message.from_wire(data)
            answer = self._answer(query)
            if answer is not None:
                self._socket.sendto(answer.to_wire(), peer)

    def _answer(self, query: dns.message.Message) -> dns.message.Message | None:
        question = query.question[0]
        name, kind = question.name.to_text().rstrip(".").lower(), dns.rdatatype.to_text(question.rdtype)
        answers = NAMES.get(name, {}).get(kind, [[]])
        count = self._asked.get((name, kind), 0)
        self._asked[name, kind] = count + 1
        found = answers[min(count, len(answers) - 1)]
        if found is None:
            return None
        reply = dns.message.make_response(query, recursion_available=True)
        if found:
            # A TTL of 0, so that nothing between here and there may remember the first answer.
            reply.answer.append(dns.rrset.from_text_list(question.name, 0, dns.rdataclass.IN, question.rdtype, found))
        return reply


def serve_http(log: Path) -> None:
    """One connection after the other: note the address that was meant, answer 200 with it, or a redirect inside."""
    listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True, backlog=50)
    while True:
        channel, _ = listener.accept()
        with contextlib.suppress(OSError), channel:
            meant = channel.getsockname()[0].removeprefix("::ffff:")
            with log.open("a") as file:
                file.write(meant + "\n")
            channel.settimeout(2)
            asked = channel.recv(4096)
            head = "200 OK"
            if b"Host: redirect.test" in asked:
                head = "302 Found\r\nLocation: http://10.1.2.3/inside"
            channel.sendall(f"HTTP/1.1 {head}\r\nContent-Length: {len(meant)}\r\n\r\n{meant}".encode())


def internet(log: str) -> None:
    """The other namespace: ours is told when it may go on."""
    sys.stdin.readline()
    run("ip link set lo up")
    run("ip addr add 198.51.100.1/30 dev out")
    run("ip -6 addr add 2001:db8:ffff::1/64 dev out nodad")
    run("ip link set out up")
    # Every address there is is ours, but for those of the link: in the main table the longer prefix wins.
    run("ip route add local 0.0.0.0/0 dev lo table main")
    run("ip -6 route add local ::/0 dev lo table main")
    Resolver().start()
    threading.Thread(target=serve_http, args=(Path(log),), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.readline()


class Outside:
    """For the script: brings the network up, tells what went out."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "connected"
        self.log.touch()
        command = ["unshare", "--net", sys.executable, str(Path(__file__)), "internet", str(self.log)]
        self._other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        end = time.monotonic() + 10
        here = os.stat("/proc/self/ns/net").st_ino
        while os.stat(f"/proc/{self._other.pid}/ns/net").st_ino == here:
            assert time.monotonic() < end, "the other namespace doesn't come up"
            time.sleep(0.005)
        run("ip link set lo up")
        run(f"ip link add way type veth peer name out netns {self._other.pid}")
        self._say()
        run("ip addr add 198.51.100.2/30 dev way")
        run("ip -6 addr add 2001:db8:ffff::2/64 dev way nodad")
        run("ip link set way up")
        run(f"ip addr add {OWN}/32 dev way")
        assert self._other.stdout is not None
        assert self._other.stdout.readline() == "ready\n"
        run("ip route add default via 198.51.100.1")
        run("ip -6 route add default via 2001:db8:ffff::1")
        self._names(folder)
        self._count()

    def _say(self) -> None:
        assert self._other.stdin is not None
        self._other.stdin.write("go\n")
        self._other.stdin.flush()

    @staticmethod
    def _names(folder: Path) -> None:
        for name, text in (
            ("resolv.conf", f"nameserver {DNS_SERVER}\noptions timeout:5 attempts:1\n"),
            ("hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 hosted.test\n"),
            ("nsswitch.conf", "hosts: files dns\n"),
        ):
            file = folder / name
            file.write_text(text)
            run(f"mount --bind {file} {os.path.realpath('/etc/' + name)}")

    @staticmethod
    def _count() -> None:
        # Neighbour discovery is the kernel's own and goes to multicast addresses; what a program sends is TCP or UDP.
        rules = f"""table inet watch {{
            counter denied {{}}
            counter admitted {{}}
            chain out {{
                type filter hook output priority 0;
                meta l4proto {{ tcp, udp }} ip daddr {{ {DENIED_V4} }} counter name denied accept
                meta l4proto {{ tcp, udp }} ip6 daddr {{ {DENIED_V6} }} counter name denied accept
                meta l4proto tcp counter name admitted
            }}
        }}"""
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)

    def counted(self) -> dict[str, int]:
        """Packets so far that went to denied addresses and to others."""
        done = subprocess.run(["nft", "-j", "list", "counters"], capture_output=True, text=True, check=True)
        found = [item["counter"] for item in json.loads(done.stdout)["nftables"] if "counter" in item]
        return {counter["name"]: counter["packets"] for counter in found}

    def connected(self) -> list[str]:
        """Addresses at which the other side was connected to."""
        return self.log.read_text().split()

    def close(self) -> None:
        self._other.kill()
        self._other.wait()


def in_namespaces(script: Path, folder: Path, *arguments: str, timeout: float = 90) -> str:
    """What ``script`` prints. Needs root."""
    command = ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, str(script), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


if __name__ == "__main__" and sys.argv[1] == "internet":
    internet(sys.argv[2])
