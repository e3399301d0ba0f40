"""A real slapd on loopback, in a directory of its own; and bytes of LDAP for servers that misbehave.

with Slapd(folder) as directory:
    directory.add("cn=CA,dc=home,dc=test", "certificateRevocationList;binary", crl)
    directory.url("cn=CA,dc=home,dc=test")
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import textwrap
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from support.scratch import answers, free_port, wait_for

SUFFIX = "dc=home,dc=test"
_CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
argsfile {folder}/args
referral ldap://127.0.0.1:{elsewhere}/
access to dn.subtree="ou=secret,dc=home,dc=test" by * none
access to * by anonymous read
database mdb
suffix "dc=home,dc=test"
rootdn "cn=admin,dc=home,dc=test"
rootpw x
directory {folder}/db
"""


class Slapd:
    """``elsewhere`` is the port to which it refers for everything that it doesn't hold."""

    def __init__(self, folder: Path, elsewhere: int = 1) -> None:
        self.folder, self.port, self._elsewhere = folder, free_port(), elsewhere
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Slapd:
        (self.folder / "db").mkdir(parents=True)
        config = self.folder / "slapd.conf"
        config.write_text(_CONFIG.format(folder=self.folder, elsewhere=self._elsewhere))
        program = shutil.which("slapd", path="/usr/sbin:/usr/bin")
        assert program is not None
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-f", config, "-h", f"ldap://127.0.0.1:{self.port}", "-d", "0"], stdout=log, stderr=log
            )
        wait_for(lambda: answers(f"127.0.0.1:{self.port}"), "slapd")
        self._ldif("dn: dc=home,dc=test\nobjectClass: organization\nobjectClass: dcObject\no: Home\ndc: home\n")
        self._ldif("dn: ou=secret,dc=home,dc=test\nobjectClass: organizationalUnit\nou: secret\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def _ldif(self, text: str, *options: str) -> None:
        command = [
            "ldapadd",
            "-x",
            "-H",
            f"ldap://127.0.0.1:{self.port}",
            "-D",
            f"cn=admin,{SUFFIX}",
            "-w",
            "x",
            *options,
        ]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def add(self, dn: str, attribute: str, *values: bytes) -> None:
        """A distribution point with values of one attribute."""
        lines = [f"dn:: {base64.b64encode(dn.encode()).decode()}", "objectClass: cRLDistributionPoint"]
        lines += [f"cn:: {base64.b64encode(dn.split(',')[0].partition('=')[2].encode()).decode()}"]
        lines += [f"{attribute}:: {base64.b64encode(value).decode()}" for value in values]
        self._ldif("\n".join("\n ".join(textwrap.wrap(line, 76, drop_whitespace=False)) for line in lines) + "\n")

    def refer(self, dn: str, to: str) -> None:
        """An entry that is somewhere else (RFC 3296)."""
        name = dn.split(",")[0].partition("=")[2]
        self._ldif(f"dn: {dn}\nobjectClass: referral\nobjectClass: extensibleObject\ncn: {name}\nref: {to}\n", "-M")

    def url(self, dn: str, attribute: str = "certificateRevocationList;binary", tail: str = "?base") -> str:
        return f"ldap://127.0.0.1:{self.port}/{quote(dn, safe='=,')}?{attribute}{tail}"
