"""A message as it was received: header fields as octets, never re-serialised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """One header field. ``value`` is all after the colon, leading space included, folds with CRLF, without the final CRLF."""

    name: bytes
    value: bytes

    @property
    def line(self) -> bytes:
        """The field as it stands in a message, with its CRLF."""
        return self.name + b":" + self.value + b"\r\n"

    def named(self, lower_name: bytes) -> bool:
        return self.name.lower() == lower_name
