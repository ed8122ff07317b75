"""A vault that gives permissions by role says so when one is missing: programs look for that to say what to do next (R-044)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import HttpResponseError

from keystead.api.types import vault_clients as c
from keystead.api.types import vaults as v
from support.vaults import call_as_admin, make_vault_home, vaults_served
from vault_http.test_sign_in import credential, keys

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("vault-serve")


def test_a_missing_role_is_told_apart_from_a_missing_permission_R_037_R_044(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_vault_home(home, "contoso-lists")
    call_as_admin(home, "vault.create", v.VaultCreate(name="contoso-roles", subscription="s1", region="westeurope", rbac=True))
    made = call_as_admin(home, "vault.client.create", c.ClientCreate(name="reader"))
    assert isinstance(made, c.ClientSecretShown)
    told = {}
    with vaults_served(home) as running:
        for entry in running.entries:
            with keys(entry, credential(entry, made.id, made.client_secret)) as client, pytest.raises(HttpResponseError) as raised:
                client.get_key("root")
            assert raised.value.status_code == 403
            assert raised.value.error is not None
            assert raised.value.error.innererror is not None
            told[entry.name] = (raised.value.error.innererror["code"], str(raised.value.error.message).split("\r\n"))
    assert told["contoso-lists"][0] == "AccessDenied"
    code, lines = told["contoso-roles"]
    assert code == "ForbiddenByRbac"
    assert lines[0] == "Caller is not authorized to perform action on resource."
    assert lines[2].startswith(f"Caller: appid={made.id};")
    assert lines[3:] == ["Action: keys get", "Vault: contoso-roles;location=westeurope"]
