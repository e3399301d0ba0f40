"""CRLs that come with a message are evidence of nothing: no code that reads messages can even take them for one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "milter" / "postseal"
READERS = sorted(
    [*(SOURCE / "core" / "cms").glob("*.py"), *(SOURCE / "app").glob("cms_*.py"), SOURCE / "app" / "content.py"]
)
_EVIDENCE = (
    "postseal.core.crl",
    "postseal.core.evidence",
    "postseal.sources",
    "postseal.app.lookup",
    "postseal.app.imports",
)


@pytest.mark.parametrize("path", READERS, ids=lambda p: p.name)
def test_t08_crls_of_a_message_are_never_read(path: Path) -> None:
    """CRL-26, T-8: the crls field of a CMS message (RFC 5652 §5.1) is never parsed, compared or stored."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    assert not [n for n in names if n.startswith(_EVIDENCE)]
    assert len(READERS) > 20
