"""``postseal inspect``: what the message on standard input is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from postseal.app.cms_inspect import inspect
from postseal.core.reasons import reason
from postseal.core.text import escape
from postseal.shell.cli.files import whole_message
from postseal.shell.cli.main import add_command


def register(commands: Any) -> None:
    """Add the command to the command line."""
    add_command(
        commands, "inspect", run_inspect,
        "Show what the message on standard input is: structure, cipher and recipients, signers and certificates.",
        epilog="No key is needed: what is encrypted stays closed. Signatures are checked, but nobody says whether their "
        "certificates are to be trusted: postseal open does.",
    )  # fmt: skip


def run_inspect(args: argparse.Namespace) -> int:
    """``postseal inspect``: exit 0 whatever the message is, 65 when it can't be taken apart."""
    found = inspect(whole_message())
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"protection: {found['protection']}")
    if found["content_type"]:
        print(f"content type: {escape(found['content_type'])}")
    if "fault" in found:
        print(f"fault: {escape(found['fault'])}")
    for layer in found["layers"]:
        print("\n".join(_signed(layer) if layer["type"] == "signed-data" else _sealed(layer)))
    return 0


def _sealed(layer: dict[str, Any]) -> Iterator[str]:
    if layer["type"] == "compressed-data":
        yield f"structure: compressed-data, {layer['content_length']} octets"
        return
    yield f"structure: {layer['type']}, {layer['cipher']}, {layer['content_length']} octets of ciphertext"
    for each in layer["recipients"]:
        yield f"recipient: {', '.join(item for item in (each['kind'], each['algorithm'], _named(each)) if item)}"


def _signed(layer: dict[str, Any]) -> Iterator[str]:
    what = "detached" if layer["detached"] else f"{layer['content_length']} octets inside"
    unchecked = layer.get("unchecked_signers", ())
    yield f"structure: signed-data, {what}" + ("" if layer["signers"] or unchecked else ", signed by nobody")
    for each in unchecked:
        yield f"signer: {_named(each)}"
        yield "  not checked: what was signed isn't in it"
    for each in layer["signers"]:
        detail = f": {escape(each['detail'])}" if each["detail"] else ""
        yield f"signer: {_named(each['signer'])}"
        yield f"  {each['signature']}: {reason(each['reason']).sentence} ({each['reason']}){detail}"
        how = [each["scheme"], each["digest"], each["weak"], ", ".join(each["signed_attributes"] or ("no attributes",))]
        yield f"  {', '.join(item for item in how if item)}"
        if each["signing_time"]:
            yield f"  the signer says that it was at {each['signing_time']}"
        if each["capabilities"]:
            yield f"  can read: {escape(', '.join(each['capabilities']))}"
    for each in layer["certificates"]:
        yield f"certificate: {escape(each['subject'])}, serial {each['serial']}, sha256 {each['sha256']}"
    for each in (*layer.get("uncovered", ()), *layer.get("notes", ())):
        yield f"note: {escape(each)}" if each in layer.get("notes", ()) else f"not signed: {escape(each)}"


def _named(each: dict[str, Any]) -> str:
    if each.get("subject_key_id"):
        return f"subject key identifier {each['subject_key_id']}"
    # Who has a password, or a key agreed upon before, isn't named.
    return f"issuer {escape(each['issuer'] or '')}, serial {each['serial']}" if each["serial"] else ""
