"""The rows of the vault half of the table."""

from __future__ import annotations

import re
from importlib import import_module

import msgspec

from keystead.api.routes import VAULT_ROUTES, Side
from keystead.api.types.vaults import KeyImport, KeyUpdate
from keystead.core.access.roles import ALLOWED


def test_every_row_has_a_handler_a_role_and_its_path_fields() -> None:
    for route in VAULT_ROUTES:
        module, function = route.handler.split(":")
        assert callable(getattr(import_module(module), function)), route.name
        assert route.name in ALLOWED
        assert route.side is Side.VAULT
        named = set(re.findall(r"{(\w+)}", route.path)) - {"tenant"}
        fields = {field.name for field in msgspec.structs.fields(route.request)}
        assert named <= fields, route.name
        assert msgspec.json.schema(route.response) != {}


def test_names_and_places_are_unique() -> None:
    assert len({route.name for route in VAULT_ROUTES}) == len(VAULT_ROUTES)
    assert len({(route.method, route.path) for route in VAULT_ROUTES}) == len(VAULT_ROUTES)


def test_an_imported_key_is_not_shown_by_its_request() -> None:
    """R-025."""
    assert "SECRET" not in repr(KeyImport(vault="v", name="k", pem="SECRET"))


def test_absent_and_removed_dates_differ() -> None:
    """R-031."""
    decoded = msgspec.json.decode(b'{"vault":"v","name":"k","expires":null}', type=KeyUpdate)
    assert decoded.expires is None
    assert decoded.not_before is msgspec.UNSET
