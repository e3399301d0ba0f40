"""How evidence is judged: the configuration and the certificates that it names."""

from __future__ import annotations

from dataclasses import replace

from postseal.config import Config
from postseal.core.revocation import RevocationSettings
from postseal.sources.responders import read_responders


def build_revocation(config: Config) -> RevocationSettings:
    """Raises CannotCreate when the certificate of a ``[[responder]]`` can't be read."""
    responders = read_responders((entry.certificate, entry.issuer) for entry in config.responders)
    return replace(config.revocation_settings, responders=responders)
