"""What a site holds, byte for byte: contexts, keyed hashes, manifests (docs/spec/files.md)."""

from __future__ import annotations

from keystead.core.formats.context import Context, key_context

SITE_KEY = "site-key"
"""Kinds of contexts."""


def key_name(site_id: str, version: int) -> str:
    """How contexts name one version of a site key."""
    return f"{site_id}/{version}"


def site_key_context(tenant_id: str, site_id: str, version: int, policy_id: str, policy_key_version: int) -> Context:
    """For one version of a site key, wrapped by a policy key."""
    return key_context(tenant_id, SITE_KEY, key_name(site_id, version), policy_id, policy_key_version)
