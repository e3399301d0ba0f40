"""Is a certificate fit to sign mail? The findings, one cause each."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from postseal.core.certs import Certificate
from postseal.core.fitness import signing_fitness
from support.pki import DAY, NOW, usage
from support.signers import BRAINPOOL, KINDS, PSS_KEYS, issuing, leaf


def codes(certificate: Certificate, at: timedelta = timedelta(0)) -> dict[str, bool]:
    return {finding.code: finding.fatal for finding in signing_fitness(certificate, NOW + at)}


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_all_kinds_sign(kind: str) -> None:
    assert codes(leaf(kind).certificate) == {}


@pytest.mark.parametrize("kind", [*BRAINPOOL, *PSS_KEYS])
def test_keys_that_openssl_made_sign(kind: str) -> None:
    of = leaf(kind).certificate
    assert codes(of, of.not_before - NOW + DAY) == {}


@pytest.mark.parametrize(
    ("bits", "wanted"),
    [(("digital_signature",), {}), (("content_commitment",), {}), (("digital_signature", "key_encipherment"), {}),
     (("key_encipherment",), {"cert.no-digital-signature": True}), (None, {"cert.no-key-usage": False})],
)  # fmt: skip
def test_key_usage(bits: tuple[str, ...] | None, wanted: dict[str, bool]) -> None:
    """RFC 8550 §4.4.2: digitalSignature or nonRepudiation."""
    made = issuing().issue("a@example.test", kind="p256", key_usage=usage(*bits) if bits else None)
    assert codes(made.certificate) == wanted


def test_other_purposes_times_and_keys() -> None:
    """CERT-11 to CERT-15 hold for signers too."""
    web = issuing().issue("a@example.test", kind="p256", eku=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert codes(web.certificate) == {"cert.wrong-purpose": True}
    assert codes(issuing().certificate) == {"cert.is-ca": True, "cert.no-digital-signature": True}
    assert codes(web.certificate, 400 * DAY)["cert.expired"]
    assert codes(web.certificate, -31 * DAY)["cert.not-yet-valid"]
    short = issuing().issue("a@example.test", kind="rsa1024", key_usage=usage("digital_signature"))
    assert codes(short.certificate) == {"cert.weak-key": True}
