"""Under which mail addresses a certificate is filed. Only a way to find candidates: ``core.fitness`` judges the match."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.asn1 import decode_der
from cryptography.x509.oid import NameOID, ObjectIdentifier

from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.certs import Certificate
from postseal.core.errors import BadData

_SMTP_UTF8_MAILBOX = ObjectIdentifier("1.3.6.1.5.5.7.8.9")


def addresses(certificate: Certificate) -> tuple[Mailbox, ...]:
    """The mailboxes that the certificate names, each once; names that aren't plain addresses are left out (CERT-3)."""
    found: dict[str, Mailbox] = {}
    for text in _names(certificate):
        try:
            mailbox = parse_mailbox(text)
        except BadData:
            continue
        found.setdefault(str(mailbox), mailbox)
    return tuple(found.values())


def _names(certificate: Certificate) -> list[str]:
    try:
        names = certificate.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*names.get_values_for_type(x509.RFC822Name), *_utf8_mailboxes(names)]
    except x509.ExtensionNotFound:
        found = []
    except ValueError:
        # An extension that doesn't parse: the certificate can't be judged, so nobody's mail is sealed with it.
        return []
    # RFC 8550 §3: the DN's emailAddress counts only where the subjectAltName has no address. CERT-1.
    return found or [str(a.value) for a in certificate.x509.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)]


def _utf8_mailboxes(names: x509.SubjectAlternativeName) -> list[str]:
    found = []
    for name in names.get_values_for_type(x509.OtherName):
        if name.type_id == _SMTP_UTF8_MAILBOX:
            try:
                found.append(decode_der(str, name.value))
            except ValueError:
                continue
    return found


def is_ca(certificate: Certificate) -> bool:
    """Does basicConstraints say that it may issue? Unparsable extensions: no."""
    try:
        return certificate.x509.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
