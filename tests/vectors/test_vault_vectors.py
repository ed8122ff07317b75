"""What a key vault stored under its seal before generations, and its key backups: docs/spec/vault-store.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keystead.core.errors import IntegrityFailure, InvalidRequest
from keystead.core.secret import SecretKey
from keystead.core.vaults import backup
from keystead.core.vaults.seal import VaultSeal, private_key_context

VECTORS: Any = json.loads((Path(__file__).parent / "vault_store.json").read_text())
SEAL = VaultSeal(SecretKey(bytes.fromhex(VECTORS["seal"])))
PRIVATE, BACKUP = VECTORS["private_key"], VECTORS["backup"]
CONTEXT = private_key_context(**PRIVATE["place"])


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def test_the_check_value_is_the_one_of_the_seal() -> None:
    assert raw(VECTORS["check_value"]) == SEAL.check_value
    assert SEAL.matches(raw(VECTORS["check_value"]))
    assert not SEAL.matches(bytes(32))


def test_private_keys_of_version_1_open() -> None:
    sealed = raw(PRIVATE["bytes"])
    assert raw(PRIVATE["context"]) == CONTEXT
    assert SEAL.open_private(sealed, CONTEXT) == raw(PRIVATE["pkcs8"])


@pytest.mark.parametrize("case", PRIVATE["invalid"], ids=lambda case: case["name"])
def test_private_keys_that_are_refused(case: Any) -> None:
    with pytest.raises(IntegrityFailure, match="private_key_damaged"):
        SEAL.open_private(raw(case["bytes"]), CONTEXT)


def test_backups_of_version_1_bring_everything_back() -> None:
    """R-058: every version and all metadata, the name included."""
    blob, header = raw(BACKUP["bytes"]), raw(BACKUP["header"])
    content = backup.open_backup(blob, SEAL)
    assert SEAL.open_backup(blob[len(header) :], header, 0) == BACKUP["payload"].encode()
    assert {name: getattr(content, name) for name in ("tenant_id", "subscription_id", "geography", "name")} == {
        name: BACKUP[name] for name in ("tenant_id", "subscription_id", "geography", "name")
    }
    assert [version.private() for version in content.versions] == [raw(PRIVATE["pkcs8"])] * 2
    assert [version.enabled for version in content.versions] == [False, True]


@pytest.mark.parametrize("case", BACKUP["invalid"], ids=lambda case: case["name"])
def test_backups_that_are_refused(case: Any) -> None:
    """R-059: changed bytes, or another vault service's."""
    with pytest.raises(IntegrityFailure, match="backup_damaged"):
        backup.open_backup(raw(case["bytes"]), SEAL)


@pytest.mark.parametrize("case", BACKUP["not_a_backup"], ids=lambda case: case["name"])
def test_what_is_no_backup_at_all(case: Any) -> None:
    with pytest.raises(InvalidRequest, match="backup_invalid"):
        backup.open_backup(raw(case["bytes"]), SEAL)
