"""The asynchronous clients of the SDK: the same calls, over another transport."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.keyvault.keys.crypto import KeyWrapAlgorithm, SignatureAlgorithm
from azure.keyvault.keys.crypto.aio import CryptographyClient

from keystead.core.vaults.access import Permission
from vault_http.face import AsyncToken, Token

if TYPE_CHECKING:
    from vault_http.face import Face

pytestmark = pytest.mark.xdist_group("vault-face-sdk")


def test_the_life_of_a_key(face: Face) -> None:
    async def live() -> None:
        async with face.async_keys() as keys:
            made = await keys.create_rsa_key("async", tags={"a": "b"})
            assert made.id == f"{face.url}/keys/async/{made.properties.version}"
            assert (await keys.get_key("async")).id == made.id
            turned = await keys.rotate_key("async")
            versions = [one.version async for one in keys.list_properties_of_key_versions("async", max_page_size=1)]
            assert set(versions) == {made.properties.version, turned.properties.version}
            changed = await keys.update_key_properties("async", tags={"c": "d"})
            assert changed.properties.tags == {"c": "d"}
            blob = await keys.backup_key("async")
            deleted = await keys.delete_key("async")
            assert deleted.recovery_id == f"{face.url}/deletedkeys/async"
            assert "async" in [one.name async for one in keys.list_deleted_keys()]
            assert (await keys.recover_deleted_key("async")).id == turned.id
            await keys.delete_key("async")
            await keys.purge_deleted_key("async")
            with pytest.raises(ResourceNotFoundError):
                await keys.get_deleted_key("async")
            assert (await keys.restore_key_backup(blob)).id == turned.id
            assert "async" in [one.name async for one in keys.list_properties_of_keys()]

    asyncio.run(live())


def test_keys_are_used_at_the_vault(face: Face) -> None:
    made = face.new_key("async-worker")
    who = face.client_of("async-worker", frozenset(Permission) - {Permission.GET})
    digest = hashlib.sha256(b"data").digest()

    async def use() -> None:
        async with CryptographyClient(
            face.uri("async-worker", made.version),
            AsyncToken(Token(face, who)),
            verify_challenge_resource=False,
            connection_verify=face.ca_file,
            retry_total=0,
        ) as client:
            wrapped = await asyncio.gather(*(client.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, bytes([one]) * 32) for one in range(5)))
            opened = await asyncio.gather(*(client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, one.encrypted_key) for one in wrapped))
            assert [one.key for one in opened] == [bytes([one]) * 32 for one in range(5)]
            signed = await client.sign(SignatureAlgorithm.rs256, digest)
            assert (await client.verify(SignatureAlgorithm.rs256, digest, signed.signature)).is_valid

    asyncio.run(use())
