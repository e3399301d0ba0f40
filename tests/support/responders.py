"""HTTP servers on loopback for CRL, AIA and OCSP: honest ones, and ones with every fault that a hostile server has.

with WebServer() as web:
    web.put("/ca.crl", crl)                 # honest
    web.put("/drip.crl", crl, fault="drip")
    url = web.url("/ca.crl");  web.count("/ca.crl")
"""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote_to_bytes

import pybase64
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from support.pki import Authority, Leaf, hash_for

CRL_TYPE = "application/pkix-crl"
OCSP_TYPE = "application/ocsp-response"
FAULTS = (
    "drip", "drip-headers", "endless", "long-length", "short-length", "redirect", "gzip", "wrong-type", "silent", "reset",
    "empty", "status",
)  # fmt: skip


@dataclass
class Resource:
    """What a path answers. ``body`` bytes, or a function of the request's body or the rest of its path (OCSP).

    ``get_status`` is the answer to every GET.
    """

    body: bytes | Callable[[bytes], bytes]
    content_type: str = CRL_TYPE
    fault: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    location: str = ""
    get_status: int = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _answer(self, posted: bytes) -> None:
        owner = self.server.owner
        resource, asked = owner._find(self.path)
        owner._note(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        if resource is None:
            self._plain(404, b"not here", "text/plain", {})
            return
        with contextlib.suppress(ConnectionError, socket.timeout):
            if resource.get_status and self.command == "GET":
                self._plain(resource.get_status, b"use POST", "text/plain", {})
            elif resource.fault:
                self.close_connection = True
                self._faulty(resource, posted or asked)
            else:
                self._plain(resource.status, _body(resource, posted or asked), resource.content_type, resource.headers)

    def _plain(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _faulty(self, resource: Resource, asked: bytes) -> None:
        body, stop = _body(resource, asked), self.server.owner._stop
        kind = resource.content_type
        if resource.fault == "silent":
            stop.wait()
        elif resource.fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
        elif resource.fault == "drip-headers":
            self._drip(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind.encode() + b"\r\n\r\n" + body, stop)
        elif resource.fault == "drip":
            self._head(200, {"Content-Type": kind, "Content-Length": str(len(body))})
            self._drip(body, stop)
        elif resource.fault == "endless":
            self._head(200, {"Content-Type": kind, "Connection": "close"})
            while not stop.is_set():
                self.wfile.write(bytes(65536))
        elif resource.fault in ("long-length", "short-length"):
            claimed = len(body) + 1000 if resource.fault == "long-length" else len(body) // 2
            self._head(200, {"Content-Type": kind, "Content-Length": str(claimed)})
            self.wfile.write(body)
        elif resource.fault == "redirect":
            self._head(302, {"Location": resource.location or self.path, "Content-Length": "0"})
        elif resource.fault == "gzip":
            packed = gzip.compress(body)
            self._plain(200, packed, kind, {"Content-Encoding": "gzip"})
        elif resource.fault == "wrong-type":
            self._plain(200, b"<html><body>Please log in</body></html>", "text/html", {})
        elif resource.fault == "empty":
            self._plain(200, b"", kind, {})
        elif resource.fault == "status":
            self._plain(resource.status if resource.status != 200 else 503, b"no", "text/plain", resource.headers)
        else:
            raise AssertionError(f"no such fault: {resource.fault}")

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _drip(self, data: bytes, stop: threading.Event) -> None:
        for index in range(len(data)):
            self.wfile.write(data[index : index + 1])
            self.wfile.flush()
            if stop.wait(1.0):
                return


def _body(resource: Resource, asked: bytes) -> bytes:
    return resource.body(asked) if callable(resource.body) else resource.body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: WebServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is what these tests are about."""


class WebServer:
    """Serves resources on ``127.0.0.1:port`` while in its ``with`` block and counts the requests.

    ``host`` may be another address; "", for all of them, is for namespaces.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self._resources: dict[str, Resource] = {}
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._stop = threading.Event()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._server = _Server((host, port), _Handler)
        self._server.owner = self
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> WebServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def put(self, path: str, body: bytes | Callable[[bytes], bytes], content_type: str = CRL_TYPE, **more: Any) -> str:
        """Serve ``body`` at ``path`` (and, for a function, at all paths below it); the URL."""
        assert more.get("fault", "") in ("", *FAULTS)
        with self._lock:
            self._resources[path] = Resource(body, content_type, **more)
        return self.url(path)

    def count(self, path: str) -> int:
        """Requests for ``path`` so far."""
        with self._lock:
            return self._counts[path]

    def _find(self, path: str) -> tuple[Resource | None, bytes]:
        with self._lock:
            if path in self._resources:
                return self._resources[path], b""
            # OCSP by GET: {url}/{url-encoding of base-64 of the request}, RFC 6960 appendix A.1
            for prefix, resource in self._resources.items():
                if callable(resource.body) and path.startswith(prefix.rstrip("/") + "/"):
                    rest = unquote_to_bytes(path[len(prefix.rstrip("/")) + 1 :])
                    return resource, pybase64.b64decode(rest)
        return None, b""

    def _note(self, method: str, path: str, headers: dict[str, str]) -> None:
        with self._lock:
            known = path if path in self._resources else next((p for p in self._resources if path.startswith(p)), path)
            self._counts[known] += 1
            self.requests.append((method, path, headers))


class Responder:
    """An OCSP responder in this process, built with cryptography: ``web.put("/ocsp", Responder(ca).answer, OCSP_TYPE)``.

    ``revoked`` maps serial -> time; ``signer`` a delegated responder (None: the CA itself). The other attributes are the
    faults: ``error`` (a response status instead of an answer), ``shift`` (moves thisUpdate and nextUpdate),
    ``lifetime`` (None leaves nextUpdate out), ``break_signature``, ``other_serial``, ``unknown``, ``nonce_back`` (the nonce
    that comes back for that of the request, None for none).
    """

    def __init__(self, ca: Authority, signer: Leaf | None = None) -> None:
        self.ca, self.signer = ca, signer
        self.revoked: dict[int, datetime] = {}
        self.error: ocsp.OCSPResponseStatus | None = None
        self.shift = timedelta(0)
        self.lifetime: timedelta | None = timedelta(hours=4)
        self.break_signature = self.other_serial = self.unknown = False
        self.nonce_back: Callable[[bytes], bytes | None] = lambda nonce: nonce
        self.asked = 0

    def answer(self, request_der: bytes) -> bytes:
        """DER of the OCSPResponse to a DER OCSPRequest."""
        self.asked += 1
        if self.error is not None:
            return ocsp.OCSPResponseBuilder.build_unsuccessful(self.error).public_bytes(Encoding.DER)
        request = ocsp.load_der_ocsp_request(request_der)
        now = datetime.now(UTC).replace(microsecond=0) + self.shift
        serial = request.serial_number + (1 if self.other_serial else 0)
        revoked_at = self.revoked.get(request.serial_number)
        status = ocsp.OCSPCertStatus.REVOKED if revoked_at else ocsp.OCSPCertStatus.GOOD
        if self.unknown:
            status, revoked_at = ocsp.OCSPCertStatus.UNKNOWN, None
        signer = self.signer or self.ca
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            issuer_name_hash=request.issuer_name_hash, issuer_key_hash=request.issuer_key_hash, serial_number=serial,
            algorithm=request.hash_algorithm, cert_status=status, this_update=now - timedelta(minutes=1),
            next_update=None if self.lifetime is None else now + self.lifetime, revocation_time=revoked_at,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked_at else None,
        ).responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate.x509)  # fmt: skip
        if self.signer is not None:
            builder = builder.certificates([self.signer.certificate.x509])
        with contextlib.suppress(x509.ExtensionNotFound):
            nonce = request.extensions.get_extension_for_class(x509.OCSPNonce)
            back = self.nonce_back(nonce.value.nonce)
            if back is not None:
                builder = builder.add_extension(x509.OCSPNonce(back), False)
        der = builder.sign(signer.key, hash_for(signer.key) or hashes.SHA256()).public_bytes(Encoding.DER)
        if self.break_signature and self.signer is None:
            # Without a certificate in the response, the signature's last octets are the response's.
            der = der[:-1] + bytes([der[-1] ^ 1])
        return der


class OpensslResponder:
    """``openssl ocsp`` answering from a CA database: an implementation that shares nothing with postseal or cryptography.

    It runs once per request on files, not as a server, because its server listens on all interfaces.
    ``web.put("/ocsp", OpensslResponder(directory, ca).answer, OCSP_TYPE)``
    """

    def __init__(self, directory: Path, ca: Authority, signer: Leaf | None = None) -> None:
        self.directory, self._lock = directory, threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        by = signer or ca
        for name, data in (("ca.pem", ca.pem), ("signer.pem", by.pem), ("signer.key", by.key_pem)):
            (directory / name).write_bytes(data)
        self._entries: dict[int, str] = {}
        self._write()

    def good(self, *leaves: Leaf) -> None:
        self._set(leaves, "V\t{end}\t\t{serial}\tunknown\t/CN=x")

    def revoke(self, *leaves: Leaf, at: datetime | None = None) -> None:
        when = (at or datetime.now(UTC) - timedelta(hours=1)).strftime("%y%m%d%H%M%SZ")
        self._set(leaves, f"R\t{{end}}\t{when},keyCompromise\t{{serial}}\tunknown\t/CN=x")

    def _set(self, leaves: tuple[Leaf, ...], line: str) -> None:
        for leaf in leaves:
            number = f"{leaf.certificate.serial:X}"
            end = leaf.certificate.not_after.strftime("%y%m%d%H%M%SZ")
            self._entries[leaf.certificate.serial] = line.format(
                end=end, serial=number.zfill(len(number) + len(number) % 2)
            )
        self._write()

    def _write(self) -> None:
        with self._lock:
            (self.directory / "index.txt").write_text("".join(line + "\n" for line in self._entries.values()))

    def answer(self, request_der: bytes) -> bytes:
        with self._lock:
            (self.directory / "request.der").write_bytes(request_der)
            done = subprocess.run(
                ["openssl", "ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "signer.pem", "-rkey",
                 "signer.key", "-reqin", "request.der", "-respout", "response.der", "-nmin", "60"],
                cwd=self.directory, capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            assert done.returncode == 0, re.sub(r"\s+", " ", done.stderr)
            return (self.directory / "response.der").read_bytes()
