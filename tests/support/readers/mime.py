"""MIME entities around CMS objects, as mail has them."""

from __future__ import annotations

import base64
import re


def signed_entity(der: bytes, detached: bytes | None) -> bytes:
    """The MIME entity of a signature: multipart/signed around the ``detached`` content, or opaque."""
    encoded = base64.encodebytes(der).replace(b"\n", b"\r\n")
    if detached is None:
        return (
            b"Content-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded
        )
    return (
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary="=b"\r\n\r\n'
        b"--=b\r\n" + detached + b"\r\n--=b\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded + b"\r\n--=b--\r\n"
    )


def signature_of(entity: bytes) -> tuple[bytes, bytes | None] | None:
    """(DER of the signature, content of a detached one); None for what is no signed entity."""
    header, _, body = entity.partition(b"\r\n\r\n")
    boundary = re.search(rb'(?i)multipart/signed;.*?boundary="?([^"\r\n;]+)', header, re.DOTALL)
    if boundary is None:
        opaque = re.search(rb"(?i)application/(x-)?pkcs7-mime", header) is not None
        return (base64.b64decode(body), None) if opaque else None
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary[1])
    return base64.b64decode(parts[2].partition(b"\r\n\r\n")[2]), parts[1].removeprefix(b"\r\n")


def sealed_entity(der: bytes) -> bytes:
    return (
        b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(der).replace(b"\n", b"\r\n")
    )
