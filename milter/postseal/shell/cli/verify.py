"""``postseal verify``: path, fitness and revocation of certificates, from files or the network."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from postseal.app.online import Online
from postseal.app.verify import Outcome, Report, Request, explain, read_certificates, verify
from postseal.config import Config, load_config
from postseal.core.certs import Certificate
from postseal.core.errors import Usage
from postseal.core.path import Path
from postseal.core.policies import ANY_POLICY, PolicyInputs, valid_oid
from postseal.core.reasons import CATALOGUE
from postseal.core.text import escape
from postseal.core.verdict import Verdict
from postseal.shell.cli.judging import judging_options, judging_request, judging_time, read_whole
from postseal.shell.cli.main import DEFAULT_CONFIG, add_command
from postseal.wiring.verify import build_online


def register(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands, "verify", run, "Is a certificate trusted, not revoked, and fit to encrypt mail?",
        epilog="Each CERT is verified for itself: the first certificate of the file, with the others in the file as "
        "intermediates. Exit status 0 when all are good, 1 otherwise. With --json one line for each CERT.",
    )  # fmt: skip
    parser.add_argument("certificates", metavar="CERT", nargs="+", help="file with the certificate (DER, PEM, PKCS#7)")
    judging_options(parser, address="mail address that the certificate must be for")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--offline", action="store_true", help="only what is in the files (the default)")
    where.add_argument(
        "--online", action="store_true",
        help="fetch CRLs, OCSP answers and missing issuers too, within the limits of [lookup] in the configuration",
    )  # fmt: skip
    parser.add_argument(
        "--allow-network", metavar="N", action="append", default=[], type=_network,
        help="with --online: an address or network that may be asked though it isn't public, such as 127.0.0.0/8; may be "
        "repeated. allow_networks in [lookup] does the same",
    )  # fmt: skip
    parser.add_argument(
        "--allow-port",
        metavar="PORT",
        action="append",
        default=[],
        type=_port,
        help="with --online: a port that may be asked, besides those in [lookup] (80 and 443); may be repeated",
    )
    parser.add_argument(
        "--purpose", choices=("email", "any"), default="email",
        help="what it must be fit for: email (default), to encrypt mail, or any: only path, revocation and --address count",
    )  # fmt: skip
    _policy_options(parser)
    parser.add_argument("--explain", action="store_true", help="list each check with its clause")


def _policy_options(parser: argparse.ArgumentParser) -> None:
    """The inputs of RFC 5280 §6.1.1 (c), (e), (f), (g)."""
    parser.add_argument(
        "--policy", metavar="OID", action="append", default=[],
        help="certificate policy that is acceptable (default: any); may be repeated",
    )  # fmt: skip
    for option, text in (
        ("require-explicit-policy", "the path must be valid under an acceptable policy"),
        ("inhibit-policy-mapping", "CAs mustn't map policies of one domain to another"),
        ("inhibit-any-policy", "let anyPolicy in a certificate stand for no policy"),
    ):
        parser.add_argument(f"--{option}", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    """0 when every CERT is good, 1 otherwise. Raises Usage or BadData for what can't be read."""
    at = judging_time(args)
    request, files = _request(args, at)
    if (args.allow_network or args.allow_port) and not args.online:
        raise Usage("--allow-network and --allow-port mean something with --online only")
    online = _online(args, at) if args.online else None
    reports = []
    for name, (leaf, *others) in files:
        single = replace(request, intermediates=(*others, *request.intermediates))
        report = online.verify(leaf, single) if online else verify(leaf, single, at)
        reports.append((name, report))
    for name, report in reports:
        if args.json:
            print(json.dumps(as_json(name, report, with_checks=args.explain)))
        else:
            print("\n".join(as_text(name, report, with_checks=args.explain)))
    return 0 if all(report.outcome is Outcome.GOOD for _, report in reports) else 1


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!a} is not a network such as 127.0.0.0/8 or 192.0.2.1") from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!a} is not a port from 1 to 65535")
    return int(text)


def _online(args: argparse.Namespace, at: datetime) -> Online:
    """With the limits of the configuration file; where there is none at the usual place, those of the defaults."""
    path = args.config
    config = Config.default() if path == DEFAULT_CONFIG and not os.path.exists(path) else load_config(path)
    return build_online(config, at, networks=args.allow_network, ports=args.allow_port)


def _request(args: argparse.Namespace, at: datetime) -> tuple[Request, list[tuple[str, tuple[Certificate, ...]]]]:
    files = [(name, read_certificates(read_whole(name), name)) for name in args.certificates]
    request = judging_request(args, at)
    return replace(request, email=args.purpose == "email", policies=_policies(args)), files


def _policies(args: argparse.Namespace) -> PolicyInputs:
    for oid in args.policy:
        if not valid_oid(oid):
            raise Usage(f"--policy {oid!a}: expected an object identifier like 2.23.140.1.5.3.2")
    return PolicyInputs(
        initial=frozenset(args.policy or [ANY_POLICY]),
        explicit=args.require_explicit_policy,
        inhibit_mapping=args.inhibit_policy_mapping,
        inhibit_any=args.inhibit_any_policy,
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")[:19] + "Z"


def as_json(name: str, report: Report, *, with_checks: bool) -> dict[str, Any]:
    """The public JSON of ``postseal verify``; keys are stable."""
    good_path = report.path if isinstance(report.path, Path) else None
    chain = good_path.certificates if good_path else getattr(report.path, "tried", ()) or (report.certificate,)
    found: dict[str, Any] = {
        "file": name,
        "status": str(report.outcome),
        "reason": report.reason,
        "detail": report.detail,
        "at": _time(report.at),
        "path": [_certificate(c) for c in chain],
        "anchor": _certificate(good_path.anchor.certificate) if good_path else None,
        "policies": sorted(good_path.policies.user) if good_path else [],
        "findings": [{"code": f.code, "detail": f.detail, "fatal": f.fatal} for f in report.findings],
        "revocation": [_verdict(c, v) for c, v in zip(chain, report.verdicts, strict=False)],
    }
    if with_checks:
        found["checks"] = [{"passed": c.passed, "text": c.text, "clause": c.clause} for c in explain(report)]
    return found


def _certificate(certificate: Certificate) -> dict[str, str | None]:
    return {
        "subject": certificate.name,
        "issuer": certificate.x509.issuer.rfc4514_string(),
        "serial": f"{certificate.serial:x}",
        "sha256": certificate.fingerprint,
        "not_before": _time(certificate.not_before),
        "not_after": _time(certificate.not_after),
    }


def _verdict(certificate: Certificate, verdict: Verdict) -> dict[str, str | None]:
    return {
        "certificate": certificate.fingerprint,
        "verdict": str(verdict.status),
        "reason": verdict.reason,
        "detail": verdict.detail,
        "source": verdict.source,
        "this_update": _time(verdict.this_update),
        "next_update": _time(verdict.next_update),
        "revoked_at": _time(verdict.revoked_at),
        "revocation_reason": verdict.revocation_reason,
    }


def as_text(name: str, report: Report, *, with_checks: bool) -> list[str]:
    """A short tree, anchor last. Everything from the certificate is escaped."""
    sentence = CATALOGUE[report.reason].sentence if report.reason in CATALOGUE else ""
    lines = [f"{escape(name)}: {report.outcome}: {sentence} ({report.reason})"]
    if report.detail:
        lines.append(f"  {escape(report.detail)}")
    if isinstance(report.path, Path):
        for depth, certificate in enumerate(report.path.certificates):
            status = f": {report.verdicts[depth].status}" if depth < len(report.verdicts) else ""
            lines.append(f"  {'  ' * depth}{escape(certificate.name)}{status}")
        depth = len(report.path.certificates)
        lines.append(f"  {'  ' * depth}{escape(report.path.anchor.certificate.name)} (trust anchor)")
    lines += [f"  {'error' if f.fatal else 'note'}: {escape(f.detail)} ({f.code})" for f in report.findings]
    if with_checks:
        marks = {True: "ok", False: "FAILED", None: "note"}
        for check in explain(report):
            lines.append(
                f"  [{marks[check.passed]}] {escape(check.text)}" + (f" [{check.clause}]" if check.clause else "")
            )
    return lines
