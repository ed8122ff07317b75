"""The keys face of vaults over HTTP: an ASGI application."""

from __future__ import annotations

from keystead.frontends.vault_http.parts import Served, VaultParts

__all__ = ["Served", "VaultParts"]
