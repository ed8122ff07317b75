"""What holds for every seal record, box, backup and release policy: also for those that somebody else wrote."""

from __future__ import annotations

import json
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, KeysteadError, Unavailable
from keystead.core.secret import SecretKey
from keystead.core.vaults import backup, seal_record
from keystead.core.vaults.jwk import encode
from keystead.core.vaults.release import (
    MAX_POLICY_BYTES,
    ReleasePolicy,
    check_release,
    environment_key,
    read_policy,
    release_policy,
)
from keystead.core.vaults.seal import VaultSeal, private_key_context
from keystead.vault.attestation import read_attestation

KEY = SecretKey(bytes(range(32)))
SEAL = VaultSeal(KEY, 7)
RECORD = seal_record.seal_vault_key(SecretKey(bytes(32)), KEY, bytes(16), 7, 1, bytes)
PASSPHRASE_RECORD = RECORD.data[:7] + b"\x02" + RECORD.data[8:]
CONTEXT = private_key_context("t", "v", "k", "0" * 32)
BOX = SEAL.close_private(b"private", CONTEXT, bytes)
BLOB = backup.close(backup.KeyBackup("t", "s", "Europe", "k", 1, []), SEAL, bytes)
AUTHORITY = "https://attest.contoso.example"

keys = st.binary(min_size=32, max_size=32).map(SecretKey)


def changed(data: bytes) -> st.SearchStrategy[bytes]:
    """The same with one byte of it another, cut, or longer."""
    places = st.integers(0, len(data) - 1)
    return st.one_of(
        st.builds(lambda at, bit: data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :], places, st.integers(0, 7)),
        st.builds(lambda at: data[:at], places),
        st.builds(lambda more: data + more, st.binary(min_size=1, max_size=40)),
    )


@given(
    keys, keys, st.binary(min_size=16, max_size=16), st.integers(1, 2**32 - 1), st.integers(0, 2**63 - 1), st.randoms(use_true_random=False)
)
def test_a_vault_key_opens_with_its_seal_and_no_other(
    vault_key: SecretKey, seal: SecretKey, database: bytes, generation: int, now: int, chance: Any
) -> None:
    record = seal_record.seal_vault_key(vault_key, seal, database, generation, now, chance.randbytes)
    read = seal_record.read_seal_record(record.data)
    assert read == record
    assert (read.database_id, read.generation, read.made, read.cost) == (database, generation, now, None)
    assert seal_record.open_vault_key(read, seal) == vault_key
    if seal != KEY:
        with pytest.raises(IntegrityFailure, match="vault_seal_wrong"):
            seal_record.open_vault_key(read, KEY)


@given(st.one_of(changed(RECORD.data), st.binary(max_size=200)))
def test_no_other_record_opens(data: bytes) -> None:
    with pytest.raises(IntegrityFailure) as refused:
        seal_record.open_vault_key(seal_record.read_seal_record(data), KEY)
    assert refused.value.code in {"vault_seal_damaged", "vault_seal_wrong"}


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255))
def test_a_record_asks_for_no_more_and_no_less_work_than_its_bounds(memory: int, passes: int, lanes: int) -> None:
    """Nothing is stretched here: a record that asks for a terabyte is refused when it is read."""
    data = PASSPHRASE_RECORD[:52] + memory.to_bytes(4, "big") + passes.to_bytes(4, "big") + bytes([lanes]) + PASSPHRASE_RECORD[61:]
    within = 65_536 <= memory <= 1_048_576 and 3 <= passes <= 16 and 1 <= lanes <= 16
    if within:
        assert seal_record.read_seal_record(data).cost == seal_record.Argon2(memory, passes, lanes)
        return
    with pytest.raises(IntegrityFailure, match="vault_seal_damaged"):
        seal_record.read_seal_record(data)


@given(st.one_of(changed(BOX), st.binary(max_size=80)))
def test_no_other_box_opens(data: bytes) -> None:
    with pytest.raises((IntegrityFailure, Unavailable)) as refused:
        SEAL.open_private(data, CONTEXT)
    assert refused.value.code in {"private_key_damaged", "vault_seal_rotated"}


@given(
    st.one_of(
        changed(BLOB),
        st.binary(max_size=80),
        st.binary(max_size=80).map(b"KSTDKB\x02".__add__),
        st.binary(max_size=80).map(b"KSTDKB\x01".__add__),
    )
)
def test_no_other_backup_opens(data: bytes) -> None:
    """R-059."""
    with pytest.raises((IntegrityFailure, InvalidRequest)) as refused:
        backup.open_backup(data, SEAL)
    assert refused.value.code in {"backup_damaged", "backup_invalid"}


# -- release policies -----------------------------------------------------------------------------------------------------------------

scalars = st.one_of(st.text(max_size=8), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.0]))
names = st.sampled_from(["a", "b", "x-ms-c"])
paths = st.lists(names, min_size=1, max_size=3).map(".".join)
operators = st.sampled_from(["equals", "notEquals", "less", "lessOrEquals", "greater", "greaterOrEquals", "exists"])
numbers = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.0]))


@st.composite
def claims_conditions(draw: st.DrawFn) -> dict[str, Any]:
    operator = draw(operators)
    value = draw(st.booleans() if operator == "exists" else scalars if operator in {"equals", "notEquals"} else numbers)
    return {"claim": draw(paths), operator: value}


conditions = st.recursive(
    claims_conditions(),
    lambda inner: st.builds(lambda name, of: {name: of}, st.sampled_from(["anyOf", "allOf"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)
claims = st.dictionaries(names, st.recursive(scalars, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6), max_size=3)
anything = st.recursive(
    st.one_of(scalars, st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(names, operators, st.sampled_from(["claim", "anyOf", "allOf", "authority", "version"])), inner, max_size=4
        ),
    ),
    max_leaves=12,
)


def expected(condition: dict[str, Any], found: dict[str, Any]) -> bool:
    """The grammar read aloud, and nothing shared with the code."""
    if "anyOf" in condition:
        return any(expected(one, found) for one in condition["anyOf"])
    if "allOf" in condition:
        return all(expected(one, found) for one in condition["allOf"])
    ((operator, value),) = ((name, value) for name, value in condition.items() if name != "claim")
    at: Any = found
    for part in condition["claim"].split("."):
        if type(at) is not dict or part not in at:
            return operator == "exists" and not value
        at = at[part]
    kinds = {str: "text", bool: "truth", int: "number", float: "number"}
    same = kinds.get(type(at)) == kinds[type(value)]
    if operator == "exists":
        return bool(value)
    compare = {"equals": eq, "notEquals": ne, "less": lt, "lessOrEquals": le, "greater": gt, "greaterOrEquals": ge}[operator]
    return same and bool(compare(at, value))


def document(*listed: dict[str, Any]) -> bytes:
    return json.dumps({"version": "1.0.0", "anyOf": [{"authority": AUTHORITY, "anyOf": list(listed)}]}).encode()


@given(conditions, claims)
def test_a_policy_is_met_by_what_its_grammar_says_and_nothing_else(condition: dict[str, Any], found: dict[str, Any]) -> None:
    policy = release_policy(document(condition))
    if expected(condition, found):
        check_release(policy, AUTHORITY, found)
        with pytest.raises(Forbidden, match="release_policy_not_met"):
            check_release(policy, "https://other.contoso.example", found)
        return
    with pytest.raises(Forbidden, match="release_policy_not_met"):
        check_release(policy, AUTHORITY, found)


@given(conditions, st.booleans())
def test_a_policy_that_was_kept_is_the_policy_that_was_given(condition: dict[str, Any], immutable: bool) -> None:  # noqa: FBT001 - drawn
    policy = release_policy(document(condition), immutable=immutable)
    assert read_policy(policy.text) == policy


@given(
    st.one_of(
        st.binary(max_size=300),
        anything.map(lambda found: json.dumps(found).encode()),
        anything.map(lambda found: document({"claim": "a", "equals": found})),
        anything.map(lambda found: json.dumps({"version": "1.0.0", "anyOf": [found]}).encode()),
    )
)
def test_whatever_is_given_is_a_policy_or_refused_as_none(data: bytes) -> None:
    try:
        policy = release_policy(data)
    except InvalidRequest as error:
        assert error.code == "release_policy_invalid"  # noqa: PT017 - or it is a policy, which comes to be seen below
        return
    assert isinstance(policy, ReleasePolicy)
    assert read_policy(policy.text) == policy


@given(st.text(max_size=60))
def test_whatever_a_database_holds_is_a_policy_or_damaged(text: str) -> None:
    try:
        found = read_policy(text)
    except IntegrityFailure as error:
        assert error.code == "release_policy_damaged"  # noqa: PT017 - as above
        return
    assert found is None
    assert not text


@given(
    st.dictionaries(st.sampled_from(["x-ms-runtime", "keys"]), anything, max_size=2),
    st.one_of(
        anything,
        st.lists(
            st.dictionaries(
                st.sampled_from(["kid", "kty", "key_ops", "n", "e"]),
                st.one_of(scalars, st.just("RSA"), st.just("TpmEphemeralEncryptionKey"), st.just(["encrypt"]), st.just("AQAB")),
                max_size=5,
            ),
            max_size=3,
        ),
    ),
)
def test_no_claims_without_a_strong_key_give_one(found: dict[str, Any], listed: Any) -> None:
    for given_claims in (found, {"x-ms-runtime": {"keys": listed}}):
        with pytest.raises(KeysteadError) as refused:
            environment_key(given_claims)
        assert refused.value.code == "release_key_unattested"


@given(
    st.one_of(
        st.text(max_size=200),
        st.text("abcABC123-_.", max_size=200),
        st.binary(max_size=80).map(lambda data: f"{encode(data)}.{encode(data)}."),
    )
)
def test_no_text_but_a_token_is_an_attestation(text: str) -> None:
    with pytest.raises(InvalidRequest, match="attestation_invalid"):
        read_attestation(text)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" " * (MAX_POLICY_BYTES + 1), id="too long"),
        pytest.param(b'{"version":"1.0.0","version":"1.0.0","anyOf":[]}', id="a member twice"),
        pytest.param(document({"claim": "a", "equals": 1}).replace(b"1}", b"NaN}"), id="NaN"),
        pytest.param(document({"claim": "a", "equals": 1}).replace(b"1}", b"1e999}"), id="too large for a number"),
        pytest.param(document({"claim": "a", "equals": None}), id="null"),
        pytest.param(document({"claim": "a", "equals": 1, "less": 2}), id="two operators"),
        pytest.param(document({"claim": "a", "in": [1]}), id="an unknown operator"),
        pytest.param(document({"claim": "a..b", "equals": 1}), id="an empty part"),
        pytest.param(document({"claim": "a", "exists": "true"}), id="exists of a text"),
        pytest.param(document({"claim": "a", "less": "1"}), id="less than a text"),
        pytest.param(document(), id="no conditions"),
        pytest.param(document({"anyOf": []}), id="no inner conditions"),
        pytest.param(document({"anyOf": [{"claim": "a", "equals": 1}], "x": 1}), id="an unknown member"),
        pytest.param(document(*[{"claim": "a", "equals": 1}] * 201), id="too many conditions"),
        pytest.param(document({"claim": "a", "equals": 1}).replace(b"https:", b"http:"), id="an authority without TLS"),
        pytest.param(document({"claim": "a", "equals": 1}).replace(b"contoso.example", b"contoso.example?x=1"), id="an authority with a query"),
        pytest.param(document({"claim": "a", "equals": 1}).replace(b"1.0.0", b"2.0.0"), id="another version"),
        pytest.param(b'{"version":"1.0.0","anyOf":[]}', id="no authorities"),
        pytest.param(b'{"version":"1.0.0","anyOf":' + b"[" * 5_000 + b"]" * 5_000 + b"}", id="very deep"),
    ],
)  # fmt: skip
def test_what_is_no_policy(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="release_policy_invalid"):
        release_policy(data)


def test_conditions_have_a_depth() -> None:
    condition: dict[str, Any] = {"claim": "a", "equals": 1}
    for _ in range(7):
        condition = {"allOf": [condition]}
    assert release_policy(document(condition)).names(AUTHORITY)
    with pytest.raises(InvalidRequest, match="deep"):
        release_policy(document({"allOf": [condition]}))


def test_a_policy_has_one_content_type() -> None:
    data = document({"claim": "a", "equals": 1})
    for content_type in (None, "application/json; charset=utf-8", "application/json;charset=UTF-8"):
        assert release_policy(data, content_type=content_type).data == data
    for content_type in ("", "application/json", "text/plain; charset=utf-8", "application/json; charset=utf-16"):
        with pytest.raises(InvalidRequest, match="release_policy_invalid"):
            release_policy(data, content_type=content_type)
