"""How an option is declared: its kind, its default as a file would say it, and its documentation."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from postseal.config.values import Kind


def option(kind: Kind, default: object, doc: str) -> Any:
    """A field whose default is what a TOML file would say."""
    return field(default=kind.parse(default), metadata={"kind": kind, "default": default, "doc": " ".join(doc.split())})


def required(kind: Kind, doc: str) -> Any:
    return field(metadata={"kind": kind, "default": None, "doc": " ".join(doc.split())})
