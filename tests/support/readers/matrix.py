"""The matrix: which messages there are, and what becomes of each when every program writes it and every program reads it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postseal.core.suite import Suite
from support.readers.base import Answer, Decrypt, Encrypt, Program, Refusal, Sign, Verify
from support.readers.mime import sealed_entity, signature_of, signed_entity

# More than 1000 octets, as mail is: Bouncy Castle writes shorter content in a form that libksba 1.6 can't parse.
TEXT = (
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"Gr=C3=BC=C3=9Fe\r\n\r\n" + 24 * b"The same line again, with =3D and -- in it, 24 times.\r\n"
)
OPENS = "opens"


@dataclass(frozen=True, slots=True)
class Envelope:
    """To whom and how it is encrypted, and by whose key it is opened."""

    keys: tuple[str, ...]
    suite: Suite
    opener: str
    by_key_id: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    scheme: str
    detached: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A message: signed, encrypted, signed and then encrypted, or that and signed again (``outer``)."""

    name: str
    signature: Signature | None = None
    envelope: Envelope | None = None
    outer: Signature | None = None


_ROWS = {
    "RSA PKCS#1 v1.5": (("rsa",), "rsa"),
    "RSA-OAEP SHA-256": (("oaep",), "oaep"),
    "P-256": (("p256",), "p256"),
    "P-384": (("p384",), "p384"),
    "P-521": (("p521",), "p521"),
    "brainpoolP256r1": (("brainpool",), "brainpool"),
    "X25519": (("x25519",), "x25519"),
    "RSA with another's P-256": (("rsa", "other-p256"), "rsa"),
    "P-256 with another's RSA": (("p256", "other-rsa"), "p256"),
}
# What differs from these rows only in a detail is measured with one cipher.
_DETAILS = {
    "RSA-OAEP SHA-512, AES-256-CBC": Envelope(("oaep512",), Suite.AES_256_CBC, "oaep512"),
    "brainpoolP512r1, AES-256-CBC": Envelope(("brainpool512",), Suite.AES_256_CBC, "brainpool512"),
    "RSA PKCS#1 v1.5 by key identifier, AES-256-CBC": Envelope(("rsa",), Suite.AES_256_CBC, "rsa", True),
    "P-256 by key identifier, AES-256-CBC": Envelope(("p256",), Suite.AES_256_CBC, "p256", True),
}
_SCHEMES = {
    "RSA PKCS#1 v1.5": "rsa",
    "RSA-PSS": "pss",
    "ECDSA P-256": "p256",
    "ECDSA P-384": "p384",
    "ECDSA P-521": "p521",
    "ECDSA brainpoolP256r1": "brainpool",
    "Ed25519": "ed25519",
    "RSA PKCS#1 v1.5 and ECDSA P-256": "two",
}
_NESTED = {
    "RSA PKCS#1 v1.5 in RSA AES-256-CBC": (("rsa",), Suite.AES_256_CBC, "rsa"),
    "ECDSA P-256 in P-256 AES-256-CBC": (("p256",), Suite.AES_256_CBC, "p256"),
    "RSA-PSS in RSA-OAEP AES-256-GCM": (("oaep",), Suite.AES_256_GCM, "pss"),
}


def suite_title(suite: Suite) -> str:
    return f"AES-{8 * suite.key_length}-{'GCM' if suite.gcm else 'CBC'}"


def _cases() -> Iterator[Case]:
    for title, (keys, opener) in _ROWS.items():
        for suite in Suite:
            yield Case(f"{title}, {suite_title(suite)}", None, Envelope(keys, suite, opener))
    for title, envelope in _DETAILS.items():
        yield Case(title, None, envelope)
    for title, scheme in _SCHEMES.items():
        for detached in (True, False):
            yield Case(f"{title}, {'detached' if detached else 'opaque'}", Signature(scheme, detached), None)
    for title, (keys, suite, scheme) in _NESTED.items():
        for detached in (True, False):
            form = "detached" if detached else "opaque"
            yield Case(f"{title}, {form}", Signature(scheme, detached), Envelope(keys, suite, keys[0]))
    # RFC 2634 §1.1.
    triple = Envelope(("rsa",), Suite.AES_256_CBC, "rsa")
    yield Case("triple wrap: RSA, AES-256-CBC", Signature("rsa", True), triple, Signature("rsa", False))


CASES = tuple(_cases())


def written(program: Program) -> dict[str, Answer]:
    """Every case as the program writes it: DER of the outermost layer, or why it doesn't."""
    signing = [case for case in CASES if case.signature is not None]
    jobs = [Sign(case.signature.scheme, case.signature.detached, TEXT) for case in signing if case.signature]
    signatures = dict(zip((case.name for case in signing), program.sign(jobs), strict=True))
    contents: dict[str, bytes] = {}
    for case in CASES:
        signature = signatures.get(case.name, b"")
        if case.envelope is not None and isinstance(signature, bytes):
            detached = TEXT if case.signature is not None and case.signature.detached else None
            contents[case.name] = signed_entity(signature, detached) if case.signature else TEXT
    sealing = [case for case in CASES if case.name in contents]
    encrypted = program.encrypt([_encrypt(case.envelope, contents[case.name]) for case in sealing if case.envelope])
    made = signatures | dict(zip((case.name for case in sealing), encrypted, strict=True))
    for case in CASES:
        inside = made[case.name]
        if case.outer is not None and isinstance(inside, bytes):
            [made[case.name]] = program.sign([Sign(case.outer.scheme, case.outer.detached, sealed_entity(inside))])
    return made


def _encrypt(envelope: Envelope, content: bytes) -> Encrypt:
    return Encrypt(envelope.keys, envelope.suite, content, envelope.by_key_id)


@dataclass(frozen=True, slots=True)
class Message:
    """A case as somebody wrote it."""

    writer: str
    case: Case
    der: bytes


def read(program: Program, messages: Sequence[Message]) -> list[str]:
    """What becomes of each message: ``opens``, ``refuses: …`` or ``not supported: …``."""
    verdicts: dict[int, str] = {}
    triple = [number for number, message in enumerate(messages) if message.case.outer is not None]
    outside = program.verify([Verify(messages[number].der, None) for number in triple])
    ders = {number: message.der for number, message in enumerate(messages)}
    for number, answer in zip(triple, outside, strict=True):
        if isinstance(answer, Refusal):
            verdicts[number] = answer.text
            del ders[number]
        else:
            ders[number] = base64.b64decode(answer.partition(b"\r\n\r\n")[2])
    sealed = [(n, messages[n]) for n in ders if messages[n].case.envelope is not None]
    opened = program.decrypt([Decrypt(ders[n], m.case.envelope.opener) for n, m in sealed if m.case.envelope])
    signed: dict[int, tuple[bytes, bytes | None]] = {}
    for (number, message), answer in zip(sealed, opened, strict=True):
        if isinstance(answer, Refusal):
            verdicts[number] = answer.text
        elif message.case.signature is None or (answer == TEXT and getattr(program, "peels", False)):
            # What peels verifies the signature inside too, and answers with what was signed.
            verdicts[number] = _same(answer)
        elif (found := signature_of(answer)) is not None:
            signed[number] = found
        else:
            verdicts[number] = "refuses: what comes out isn't what was sealed"
    for number, message in enumerate(messages):
        if message.case.envelope is None and message.case.signature is not None:
            signed[number] = (message.der, TEXT if message.case.signature.detached else None)
    answers = program.verify([Verify(*each) for each in signed.values()])
    for number, answer in zip(signed, answers, strict=True):
        verdicts[number] = answer.text if isinstance(answer, Refusal) else _same(answer)
    return [verdicts[number] for number in range(len(messages))]


def _same(content: bytes) -> str:
    return OPENS if content == TEXT else "refuses: what comes out isn't what was sent"


Square = dict[str, dict[str, dict[str, str] | str]]


def measure(programs: Sequence[Program]) -> Square:
    """Writer -> case -> reader -> verdict; where the writer doesn't write, its words stand for all readers."""
    square: Square = {}
    messages: list[Message] = []
    for program in programs:
        cells: dict[str, dict[str, str] | str] = {}
        made = written(program)
        for case in CASES:
            answer = made[case.name]
            if isinstance(answer, Refusal):
                cells[case.name] = answer.text
            else:
                cells[case.name] = {}
                messages.append(Message(program.name, case, answer))
        square[program.name] = cells
    for program in programs:
        for message, verdict in zip(messages, read(program, messages), strict=True):
            row = square[message.writer][message.case.name]
            assert isinstance(row, dict)
            row[program.name] = verdict
    return square
