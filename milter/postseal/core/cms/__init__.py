"""Cryptographic Message Syntax (RFC 5652, 5083, 5084, 5753) and its S/MIME dress (RFC 8551)."""
