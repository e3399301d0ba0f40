"""The catalogue of reasons: stable codes used by the log, decision records, ``explain``, metrics and the manual.

A code never changes its meaning. ``reply`` and ``enhanced`` are what an SMTP client hears when the reason refuses or
defers a recipient (RFC 5321 §4.2, RFC 3463); None where the reason never does. ``clause`` is the rule behind it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One entry of the catalogue; ``sentence`` says it to an administrator, without a final full stop."""

    code: str
    sentence: str
    clause: str = ""
    reply: int | None = None
    enhanced: str = ""


_OUTCOMES = (
    Reason("ok.sealed", "sealed for the recipient's certificate"),
    Reason("ok.clear-rule", "a rule says that this mail is never sealed"),
    Reason("ok.clear-no-certificate", "no usable certificate, and the rule lets it go in clear"),
    Reason("ok.internal", "recipient is internal"),
    Reason("ok.not-outbound", "not outbound mail"),
    Reason("ok.already-encrypted", "the message is S/MIME encrypted already"),
    Reason("rcpt.no-certificate", "no certificate for the recipient is known", "", 550, "5.7.1"),
    Reason("rcpt.no-usable-certificate", "none of the recipient's certificates can be used", "", 550, "5.7.1"),
    Reason(
        "rcpt.revocation-unknown",
        "the revocation status can't be found out now, and the rule waits for it",
        "",
        451,
        "4.7.5",
    ),
    Reason(
        "rcpt.revocation-suspicious",
        "the revocation evidence looks forged, and the rule waits for better",
        "",
        451,
        "4.7.5",
    ),
    Reason(
        "rcpt.revocation-refused",
        "the revocation status can't be found out, and the rule doesn't use such certificates",
        "",
        550,
        "5.7.5",
    ),
    Reason(
        "rcpt.revocation-given-up",
        "the revocation status couldn't be found out for as long as give_up allows",
        "",
        550,
        "5.7.5",
    ),
    Reason("rcpt.no-cipher", "no cipher that the rule allows suits the recipient", "RFC 8551 §2.7.3", 550, "5.7.4"),
    Reason("rcpt.bad-address", "the recipient address can't be parsed", "RFC 5321 §4.1.2", 553, "5.1.3"),
    Reason("rcpt.held", "held for the administrator"),
    Reason(
        "rcpt.with-others", "not delivered, because the message isn't accepted for another recipient", "", 451, "4.7.1"
    ),
)

# core.ciphers: why no cipher suits a certificate, or a remark on the one that was chosen.
_CIPHER: tuple[Reason, ...] = (
    Reason("cipher.none-fits", "the recipient isn't known to read what the rule allows", "RFC 8551 §2.7"),
    Reason("cipher.weak-only", "the recipient lists only ciphers that are broken", "RFC 8551 §2.7"),
    Reason("cipher.key-excluded", "the key is of a kind that the rule's set of ciphers doesn't allow", "RFC 4055 §4.1"),
    Reason("cipher.downgrade", "sealed with less than the recipient once said that it reads", "RFC 8551 §2.7.1"),
)

# core.path: why a certificate has no valid path. One code per failed check, most useful one reported.
_PATH: tuple[Reason, ...] = (
    Reason("path.valid", "the path to a trust anchor is valid", "RFC 5280 §6.1"),
    Reason(
        "path.no-issuer", "the certificate of an issuer isn't known, so no trust anchor is reached", "RFC 5280 §6.1"
    ),
    Reason(
        "path.untrusted-root", "the path ends in a self-issued certificate that isn't trusted", "RFC 5280 §6.1.1 (d)"
    ),
    Reason("path.bad-signature", "the signature of a certificate is wrong", "RFC 5280 §6.1.3 (a)(1)"),
    Reason("path.bad-extension", "the extensions of a certificate can't be read", "RFC 5280 §4.2"),
    Reason("path.unsupported-key", "an issuer has a key of a kind that isn't accepted", "RFC 8550 §4.3"),
    Reason(
        "path.unsupported-signature", "a certificate is signed with an algorithm that isn't accepted", "RFC 8550 §4.3"
    ),
    Reason("path.broken-signature", "a certificate is signed with MD2, MD4 or MD5", "RFC 8550 §4.3"),
    Reason("path.not-ca", "an issuer isn't a CA", "RFC 5280 §6.1.4 (k)"),
    Reason("path.no-cert-sign", "an issuer isn't allowed to sign certificates", "RFC 5280 §6.1.4 (n)"),
    Reason(
        "path.weak-key", "an RSA key in the path is too short, too long, or has an absurd exponent", "RFC 8550 §4.3"
    ),
    Reason("path.weak-signature", "a certificate is signed with SHA-1 or SHA-224", "RFC 8550 §4.3"),
    Reason("path.wrong-purpose", "a CA in the path isn't for mail", "RFC 5280 §4.2.1.12, RFC 8550 §4.4.4"),
    Reason("path.too-long", "there are more CAs in the path than one of them allows", "RFC 5280 §6.1.4 (l), (m)"),
    Reason("path.unknown-extension", "a certificate has a critical extension that isn't known", "RFC 5280 §6.1.4 (o)"),
    Reason("path.unsupported-extension", "a certificate has limits that aren't processed", "RFC 5280 §4.2"),
    Reason("path.not-yet-valid", "a certificate in the path isn't valid yet", "RFC 5280 §6.1.3 (a)(2)"),
    Reason("path.expired", "a certificate in the path has expired", "RFC 5280 §6.1.3 (a)(2)"),
    Reason(
        "path.name-constraints",
        "a name in the path is one that a CA or anchor above it mustn't vouch for",
        "RFC 5280 §4.2.1.10, §6.1.3 (b), (c)",
    ),
    Reason("path.distrusted", "the trust anchor isn't trusted for certificates issued that late", "RFC 5280 §6.2"),
    Reason("path.policy", "the path isn't valid under a required policy", "RFC 5280 §6.1.5 (g), RFC 9618 §5.5"),
    Reason("path.budget", "the search for a path took too many steps and was given up", "RFC 4158 §2.4.2"),
)

# core.fitness: why a certificate with a good path isn't fit to encrypt mail for the recipient, or a remark on it.
_CERT: tuple[Reason, ...] = (
    Reason("cert.unreadable", "it isn't a certificate, or can't be read"),
    Reason("cert.bad-extension", "the certificate's extensions can't be read", "RFC 5280 §4.2"),
    Reason("cert.no-address", "the certificate has no mail address", "RFC 8550 §3"),
    Reason("cert.wrong-address", "the certificate is for another address", "RFC 8550 §3"),
    Reason("cert.odd-address", "a name in the certificate isn't a plain address and was ignored", "RFC 5280 §4.2.1.6"),
    Reason(
        "cert.address-in-subject", "the address is only in the subject, as very old certificates have it", "RFC 8550 §3"
    ),
    Reason("cert.not-yet-valid", "the certificate isn't valid yet", "RFC 5280 §4.1.2.5"),
    Reason("cert.expired", "the certificate has expired", "RFC 5280 §4.1.2.5"),
    Reason("cert.is-ca", "the certificate is a CA's, not a person's", "RFC 5280 §4.2.1.9"),
    Reason("cert.wrong-purpose", "the certificate isn't for mail", "RFC 8550 §4.4.4"),
    Reason("cert.no-key-usage", "the certificate doesn't say what its key is for", "RFC 8550 §4.4.2"),
    Reason("cert.no-key-encipherment", "the certificate's RSA key isn't for encryption", "RFC 8550 §4.4.2"),
    Reason("cert.no-key-agreement", "the certificate's EC key isn't for encryption", "RFC 5753 §3"),
    Reason("cert.no-digital-signature", "the certificate's key isn't for signing", "RFC 8550 §4.4.2"),
    Reason("cert.weak-key", "the certificate's RSA key is too short", "RFC 8550 §4.3"),
    Reason("cert.oversized-key", "the certificate's RSA key is longer than anybody needs", "RFC 8551 §6"),
    Reason("cert.broken-key", "the certificate's RSA key is broken", "RFC 8551 §6"),
    Reason(
        "cert.brainpool",
        "the certificate's key is on a Brainpool curve that isn't supported",
        "RFC 5639",
    ),
    Reason("cert.signing-key", "the certificate's key can only sign", "RFC 8550 §4.3"),
    Reason("cert.no-reader", "no common mail reader opens mail for such a key", "RFC 8418"),
    Reason("cert.unsupported-key", "the certificate's key is of a kind that can't be used", "RFC 8550 §4.3"),
    Reason("cert.weak-signature", "the certificate is signed with SHA-1 or SHA-224", "RFC 8550 §4.3"),
    Reason("cert.broken-signature", "the certificate is signed with MD2, MD4 or MD5", "RFC 8550 §4.3"),
    Reason(
        "cert.unsupported-signature", "the certificate is signed with an algorithm that isn't accepted", "RFC 8550 §4.3"
    ),
)

# core.revocation: what the evidence says, or why it says nothing.
_REV: tuple[Reason, ...] = (
    Reason("rev.anchor", "a trust anchor; it is revoked by taking it out of the anchors", "RFC 5280 §6.1.1 (d)"),
    Reason("rev.crl", "a current CRL doesn't list the certificate", "RFC 5280 §6.3.3"),
    Reason("rev.ocsp", "the OCSP responder says that the certificate is good", "RFC 6960 §2.2"),
    Reason("rev.short-lived", "its CA says that it won't be revoked, and it ends soon", "RFC 9608 §5"),
    Reason("rev.revoked-crl", "the certificate is listed on its issuer's CRL", "RFC 5280 §6.3.3 (i)"),
    Reason("rev.revoked-before", "evidence that was judged before revoked the certificate", "RFC 5280 §3.3"),
    Reason("rev.revoked-ocsp", "the OCSP responder says that the certificate is revoked", "RFC 6960 §2.2"),
    Reason(
        "rev.listed-unsupported",
        "a signed CRL or OCSP answer lists the certificate, but has parts that must not be ignored and aren't understood",
        "RFC 5280 §5.2",
    ),
    Reason("rev.bad-signature", "the signature of the evidence is wrong", "RFC 5280 §6.3.3 (g), RFC 6960 §3.2"),
    Reason("rev.wrong-issuer", "the CRL isn't from the issuer of the certificate", "RFC 5280 §6.3.3 (b)(1)"),
    Reason(
        "rev.unauthorized-responder", "nobody allowed the signer of the OCSP answer to sign it", "RFC 6960 §4.2.2.2"
    ),
    Reason("rev.ocsp-unknown", "the OCSP responder doesn't know the certificate", "RFC 6960 §2.2"),
    Reason("rev.rollback", "the CRL is older than the one that was fetched before", "RFC 5280 §5.2.3"),
    Reason("rev.wrong-nonce", "the OCSP answer is to another request; is it an old one?", "RFC 9654 §2.1"),
    Reason(
        "rev.responder-unchecked",
        "the certificate of the OCSP responder can itself not be checked for revocation",
        "RFC 6960 §4.2.2.2.1",
    ),
    Reason("rev.no-nonce", "the OCSP answer lacks the nonce that the configuration requires", "RFC 9654 §2.1"),
    Reason("rev.clock", "the system clock went back, or shows a time before everything that is known"),
    Reason("rev.stale", "the evidence is out of date", "RFC 5280 §5.1.2.5, RFC 6960 §3.2"),
    Reason("rev.not-yet-valid", "the evidence is dated in the future; is a clock wrong?", "RFC 5280 §5.1.2.4"),
    Reason("rev.weak-algorithm", "the evidence is signed with an algorithm that is too weak", "RFC 8550 §4.3"),
    Reason("rev.no-crl-sign", "the issuer's certificate doesn't allow it to sign CRLs", "RFC 5280 §6.3.3 (f)"),
    Reason("rev.crl-signer", "who signed the CRL isn't known to be allowed to", "RFC 5280 §6.3.3 (f)"),
    Reason("rev.wrong-scope", "the CRL isn't meant for this certificate", "RFC 5280 §6.3.3 (b)(2)"),
    Reason("rev.reasons-incomplete", "the CRLs at hand don't cover all revocation reasons", "RFC 5280 §6.3.3 (l)"),
    Reason("rev.unsupported", "the evidence is of a kind that this version doesn't understand", "RFC 5280 §5.2"),
    Reason("rev.ocsp-mismatch", "the OCSP answer is about another certificate", "RFC 6960 §3.2"),
    Reason("rev.ocsp-error", "the OCSP responder answered with an error", "RFC 6960 §2.3"),
    Reason("rev.malformed", "what came back is neither a CRL nor an OCSP answer", "RFC 5280 §5.1, RFC 6960 §4.2"),
    Reason("rev.too-large", "the answer is larger than allowed"),
    Reason("rev.http-status", "the server answered with an HTTP error"),
    Reason("rev.directory-error", "the directory answered with an error, or without a CRL", "RFC 4511 §4.1.9"),
    Reason("rev.timeout", "the server didn't answer in time"),
    Reason("rev.unreachable", "the server can't be reached"),
    Reason("rev.blocked-by-guard", "the URL or its address isn't one that may be asked"),
    Reason("rev.budget", "there was more to do than one check may do"),
    Reason("rev.no-evidence", "no CRL and no OCSP answer is at hand yet"),
    Reason("rev.not-fetched", "this node fetches no evidence, and nothing current was imported"),
    Reason("rev.store-unavailable", "the store of revocation evidence can't be read"),
    Reason("rev.none-declared", "the certificate names neither a CRL nor an OCSP responder"),
)

# core.cms.verifying and app.cms_verify: what became of a signature.
_SIG: tuple[Reason, ...] = (
    Reason("sig.good", "the signature holds, and its signer is trusted and the sender", "RFC 8550 §3, §4"),
    Reason("sig.intact", "the signature holds; who signed wasn't asked", "RFC 5652 §5.6"),
    Reason("sig.malformed", "the signature can't be read", "RFC 5652 §5"),
    Reason("sig.wrong-content", "the content isn't what was signed", "RFC 5652 §5.6"),
    Reason("sig.wrong-key", "the signature isn't by the key of the signer's certificate", "RFC 5652 §5.6"),
    Reason(
        "sig.bad-attributes", "signed attributes are missing, repeated, or contradict the rest", "RFC 5652 §5.3, §11"
    ),
    Reason("sig.content-type", "it was signed as content of another type", "RFC 5652 §11.1"),
    Reason(
        "sig.confusion", "what looks like content is what another signature signs besides its content", "RFC 5652 §5.4"
    ),
    Reason(
        "sig.wrong-certificate", "the signer says that another certificate belongs to the signature", "RFC 5035 §5.4"
    ),
    Reason("sig.no-certificate", "the signer's certificate isn't at hand", "RFC 8550 §2.3"),
    Reason(
        "sig.unusable-key", "the signer's key is of a kind or length that nothing is verified with", "RFC 8550 §4.3"
    ),
    Reason("sig.broken-algorithm", "it is signed with MD2, MD4 or MD5", "RFC 6151 §2"),
    Reason("sig.unknown-algorithm", "it is signed with an algorithm that isn't known", "RFC 8551 §2.1, §2.2"),
    Reason("sig.weak-algorithm", "it is signed with SHA-1, SHA-224, or a short key", "RFC 8551 §2.1"),
    Reason("sig.no-anchor", "no trust anchors were given, so nobody knows who signed", "RFC 5280 §6.1.1 (d)"),
    Reason("sig.not-the-sender", "the signer isn't who the message says it is from", "RFC 8550 §3"),
    Reason("sig.no-sender", "the message doesn't say in one clear way who it is from", "RFC 5322 §3.6.2"),
    Reason("sig.only-sender", "the signer is who sent the message, not who it says it is from", "RFC 8550 §3"),
)

# The message itself: why it can't be sealed as it is.
_MAIL: tuple[Reason, ...] = (
    Reason(
        "mail.duplicate-header",
        "a header field that must come once comes twice",
        "RFC 2045 §3, RFC 5322 §3.6",
        554,
        "5.6.0",
    ),
    Reason("mail.bad-header", "the header of the message is malformed", "RFC 5322 §2.2", 554, "5.6.0"),
    Reason("mail.header-too-large", "the header of the message is too large", "RFC 5322 §2.2", 554, "5.6.0"),
    Reason("mail.bare-cr", "the message has a CR without LF", "RFC 5321 §2.3.8", 554, "5.6.0"),
    Reason("mail.bare-lf", "the message has an LF without CR", "RFC 5321 §2.3.8", 554, "5.6.0"),
    Reason("mail.too-large", "the message is too large when it is sealed", "RFC 1870 §6.3", 552, "5.3.4"),
    Reason("mail.bad-sender", "the sender address can't be parsed", "RFC 5321 §4.1.2", 553, "5.1.7"),
)

# The system: full disk, dead process, exception.
_SYS: tuple[Reason, ...] = (
    Reason("sys.internal-error", "an internal error; the mail log has more", "", 451, "4.3.0"),
    Reason("sys.busy", "too many messages are being worked on", "", 451, "4.3.2"),
    Reason("sys.spool-unavailable", "the sealed message can't be kept, is the disk full?", "", 451, "4.3.1"),
    Reason("sys.reinject-failed", "the copies for other recipients can't be delivered now", "", 451, "4.4.1"),
    Reason("sys.reinject-refused", "the copies for other recipients were refused", "", 550, "5.3.0"),
    Reason(
        "sys.unwritable-address", "the address isn't UTF-8, so the recipient can't be moved to a copy", "", 451, "4.3.0"
    ),
    Reason(
        "policy.no-reinject",
        "the recipients need different copies, and no listener for them is configured (reinject); send to each apart",
        "",
        451,
        "4.3.5",
    ),
    Reason(
        "policy.mixed-hold",
        "a recipient's mail must be held and another's must be sealed; send to each apart",
        "",
        451,
        "4.7.1",
    ),
    Reason("sys.directory-unavailable", "the recipients' certificates can't be read now", "", 451, "4.3.0"),
)

CATALOGUE: dict[str, Reason] = {r.code: r for r in (*_OUTCOMES, *_CIPHER, *_PATH, *_CERT, *_REV, *_SIG, *_MAIL, *_SYS)}


def reason(code: str) -> Reason:
    """The catalogue's entry for ``code``. An unknown code is a bug and raises KeyError."""
    return CATALOGUE[code]
