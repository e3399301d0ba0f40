"""Bundle files: written aside and renamed, read piece by piece; and which bundles were taken before."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from postseal.core import bundle
from postseal.core.bundle import Manifest
from postseal.core.certs import Certificate, load_certificates
from postseal.core.der import Octets
from postseal.core.errors import BadData, CannotCreate, TryAgain, Unavailable
from postseal.sources.store import adopt

STREAM = "-"
_CHUNK = 1024 * 1024
_KEY_LIFE = timedelta(days=3652)


def write_bundle(target: str, manifest: bytes, signature: bytes, contents: Iterable[Octets]) -> None:
    """Whole or not at all: a reader never sees half of a bundle. "-" is standard output. Raises CannotCreate."""
    parts = (bundle.head(manifest, signature), manifest, signature)
    if target == STREAM:
        for part in (*parts, *contents):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return
    final = Path(target)
    temporary = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        try:
            with open(temporary, "xb") as out:
                for part in (*parts, *contents):
                    out.write(part)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, final)
            _sync(final.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as exc:
        raise CannotCreate(f"can't write {target}: {exc.strerror}") from exc


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class BundleFile:
    """A bundle that is read: head, manifest and signature are in memory, items are read when asked for."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises BadData when it isn't a bundle, TryAgain when its head promises more than is there."""
        self._file = file
        line = file.readline(bundle.LONGEST_HEAD)
        if bundle.MAGIC.startswith(line) or (line.startswith(bundle.MAGIC) and not line.endswith(b"\n")):
            raise TryAgain("it ends in its first line; is it still being copied?")
        manifest, signature = bundle.parse_head(line)
        self.manifest = self._exactly(manifest)
        self.signature = self._exactly(signature)
        self._start = file.tell()
        self._places: dict[int, int] = {}

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise TryAgain("it is shorter than it says; is it still being copied?")
        return data

    def check_size(self, manifest: Manifest) -> None:
        """All items are there, and nothing else. Raises BadData or TryAgain."""
        place = self._start
        for number, item in enumerate(manifest.items):
            self._places[number] = place
            place += item.size
        size = self._file.seek(0, os.SEEK_END)
        if size < place:
            raise TryAgain(f"{size} of its {place} octets are there; is it still being copied?")
        if size > place:
            raise BadData(f"{size - place} octets follow behind its last item")

    def item(self, number: int, manifest: Manifest) -> bytes:
        """The octets of one item. Raises BadData when they aren't those of its SHA-256. ``check_size`` comes before."""
        item = manifest.items[number]
        self._file.seek(self._places[number])
        data = self._exactly(item.size)
        if hashlib.sha256(data).hexdigest() != item.sha256:
            raise BadData("its octets aren't those of the manifest")
        return data


@contextmanager
def open_bundle(name: str, max_size: int) -> Iterator[BundleFile | None]:
    """The bundle in file ``name`` ("-" is standard input); None if the file is something else.

    Raises BadData with the cause (too large, not a plain file), TryAgain when it isn't whole yet.
    """
    try:
        if name == STREAM:
            with tempfile.TemporaryFile() as spooled:
                _spool(sys.stdin.buffer, spooled, max_size)
                yield _bundle(spooled)
            return
        with open(name, "rb") as file:
            if os.fstat(file.fileno()).st_size > max_size:
                raise BadData(f"it is larger than {max_size} octets; see --max-size")
            yield _bundle(file)
    except OSError as exc:
        raise BadData(exc.strerror or str(exc)) from exc


def _bundle(file: BinaryIO) -> BundleFile | None:
    start = file.read(len(bundle.MAGIC))
    file.seek(0)
    return BundleFile(file) if start == bundle.MAGIC else None


def _spool(source: BinaryIO, target: BinaryIO, max_size: int) -> None:
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > max_size:
            raise BadData(f"it is larger than {max_size} octets; see --max-size")
        target.write(chunk)
    target.seek(0)


class Ledger:
    """When the newest bundle of each signer that was taken had been made. A small file beside the evidence."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "bundles.json"

    def last(self, signer: Certificate) -> datetime | None:
        """None also for a damaged file: each item is judged for itself, whatever this remembers."""
        seconds = self._read().get(signer.key_id)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def took(self, signer: Certificate, created: datetime) -> None:
        """Raises Unavailable."""
        values = {**self._read(), signer.key_id: int(created.timestamp())}
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            with open(temporary, "w", encoding="ascii") as out:
                os.fchmod(out.fileno(), 0o640)
                json.dump(values, out)
                out.flush()
                os.fsync(out.fileno())
            adopt(temporary)
            os.replace(temporary, self._file)
        except OSError as exc:
            raise Unavailable(f"can't write {self._file}: {exc.strerror}") from exc

    def _read(self) -> dict[str, int]:
        try:
            values = json.loads(self._file.read_text())
            return {str(k): int(v) for k, v in values.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}


def load_signer(key: str, certificate: str) -> tuple[bytes, Certificate]:
    """A private key in PEM and the certificate that goes with it. Raises BadData."""
    try:
        key_pem, blob = Path(key).read_bytes(), Path(certificate).read_bytes()
    except OSError as exc:
        raise BadData(f"{exc.filename}: {exc.strerror}") from exc
    found = load_certificates(blob)
    return key_pem, found[0]


def make_signer(key: str, certificate: str, node: str, at: datetime) -> Certificate:
    """Make an EC key and a certificate that says no more than whose it is. Neither file may exist. Raises CannotCreate."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"evidence bundles of {node}"[:64])])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(at - timedelta(hours=1))
        .not_valid_after(at + _KEY_LIFE).add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(usage, critical=True).sign(private, hashes.SHA256())
    )  # fmt: skip
    pem = made.public_bytes(Encoding.PEM)
    _new_file(key, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _new_file(certificate, pem, 0o644)
    return load_certificates(pem)[0]


def _new_file(name: str, content: bytes, mode: int) -> None:
    try:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(handle, "wb") as out:
            out.write(content)
            os.fsync(out.fileno())
    except OSError as exc:
        raise CannotCreate(f"can't create {name}: {exc.strerror}") from exc
