"""Makes the seeds again: what postseal and openssl write for the two keys that lie beside them, and what other programs write.

Run it when a form is added.

Seeds are kept, not made for each run, so that the bounded run in the tests is the same every time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from postseal.core.capabilities import OURS, encode_capabilities
from postseal.core.certs import load_certificates
from postseal.core.cms.content import ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.policy import clear_by_operator
from postseal.core.suite import Suite
from support.readers.bouncycastle import BouncyCastle
from support.readers.correspondents import correspondents
from support.readers.gpgsm import Gpgsm
from support.readers.matrix import CASES, written
from support.readers.nss import Nss

DATA = Path(__file__).resolve().parents[1] / "data" / "fuzz"
TEXT = b"Content-Type: text/plain\r\n\r\nattack at dawn\r\n"


def openssl(*arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True).stdout


def certificate(kind: str) -> Path:
    """A certificate for the key of this kind, self-signed; it is only a name and a number to seal for."""
    path = DATA / f"{kind}.crt"
    if not path.exists():
        private = load_pem_private_key((DATA / f"{kind}.key").read_bytes(), None)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"seed {kind}")])
        start = datetime(2026, 1, 1, tzinfo=UTC)
        built = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
            .serial_number(7).not_valid_before(start).not_valid_after(start + timedelta(days=9000))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        )  # fmt: skip
        path.write_bytes(built.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM))
    return path


def keep(target: str, name: str, octets: bytes) -> None:
    folder = DATA / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(octets)


def both(name: str, der: bytes) -> None:
    keep("enveloped", name, der)
    keep("ber", name, der)


def ours() -> None:
    people = [load_certificates(certificate(kind).read_bytes())[0] for kind in ("rsa", "ec")]
    for suite in Suite:
        content_key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
        sealer = ContentSealer(suite, content_key, iv)
        sealed = sealer.update(TEXT) + sealer.finish()
        cleared = [clear_by_operator(each) for each in people]
        head, tail = envelope(suite, content_key, cleared, iv, len(sealed), sealer.tag)
        both(f"postseal-{suite}", head + sealed + tail)
    keep("capabilities", "ours", encode_capabilities(OURS))


def theirs() -> None:
    rsa, ec = str(certificate("rsa")), str(certificate("ec"))
    for name, options in {
        "cbc": ["-aes256"], "gcm": ["-aes-256-gcm"], "stream": ["-aes128", "-stream", "-indef"],
        "oaep": ["-aes128", "-recip", rsa, "-keyopt", "rsa_padding_mode:oaep"],
        "oaep-sha256": ["-aes128", "-recip", rsa, "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"],
        "ec": ["-aes256", "-recip", ec], "keyid": ["-aes256", "-keyid"], "des3": ["-des3"],
        "password": ["-aes128", "-pwri_password", "secret"],
        "kek": ["-aes128", "-secretkey", "00" * 16, "-secretkeyid", "01"],
    }.items():  # fmt: skip
        certificates = [] if "-recip" in options else [rsa]
        both(f"openssl-{name}", openssl("cms", "-encrypt", "-outform", "DER", *options, *certificates, given=TEXT))
        if name in ("cbc", "gcm", "stream"):
            whole = openssl("cms", "-encrypt", "-outform", "SMIME", *options, rsa, given=TEXT)
            keep("message", f"openssl-{name}", whole.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    signing = ["cms", "-sign", "-signer", rsa, "-inkey", str(DATA / "rsa.key")]
    keep("message", "openssl-signed", openssl(*signing, given=TEXT).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    for name, options in {
        "detached": [], "opaque": ["-nodetach"], "stream": ["-nodetach", "-stream", "-indef"], "no-attributes": ["-noattr"],
        "pss": ["-nodetach", "-keyopt", "rsa_padding_mode:pss"], "keyid": ["-nodetach", "-keyid"],
    }.items():  # fmt: skip
        keep("signed", name, openssl(*signing, "-outform", "DER", *options, given=TEXT))
    keep("ber", "signed-stream", (DATA / "signed" / "stream").read_bytes())
    by_ec = ["cms", "-sign", "-signer", ec, "-inkey", str(DATA / "ec.key"), "-outform", "DER"]
    keep("signed", "ec", openssl(*by_ec, given=TEXT))
    keep("signed", "two", openssl(*by_ec, "-signer", rsa, "-inkey", str(DATA / "rsa.key"), "-nodetach", given=TEXT))


def interop() -> None:
    """What the other programs of the matrix write, each form with one cipher of each kind."""
    wanted = {case.name for case in CASES if case.envelope is None or case.envelope.suite in _SUITES}
    with tempfile.TemporaryDirectory(prefix="gs") as short, tempfile.TemporaryDirectory() as folder:
        homes = [Path(folder, name) for name in ("world", "gpgsm", "bc", "nss")]
        for home in homes:
            home.mkdir()
        world = correspondents(homes[0])
        gpgsm, bouncy_castle = Gpgsm(Path(short), homes[1], world), BouncyCastle(homes[2], world)
        for program in (gpgsm, bouncy_castle, Nss(homes[3], world)):
            for case, der in written(program).items():
                if case in wanted and isinstance(der, bytes):
                    target = "signed" if der[:40].find(_SIGNED_DATA) > 0 else "enveloped"
                    keep(target, f"{program.name}-{re.sub('[^a-z0-9]+', '-', case.lower())}", der)
        bouncy_castle.close()
        gpgsm.close()


_SUITES = (Suite.AES_128_CBC, Suite.AES_256_GCM)
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")


if __name__ == "__main__":
    for kind, how in {
        "rsa": ["-algorithm", "RSA"],
        "ec": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    }.items():
        DATA.mkdir(parents=True, exist_ok=True)
        if not (DATA / f"{kind}.key").exists():
            (DATA / f"{kind}.key").write_bytes(openssl("genpkey", *how))
    ours()
    theirs()
    interop()
