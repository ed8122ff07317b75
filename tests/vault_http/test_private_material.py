"""Private keys never leave (R-025): not in an answer, a log line, the text of an error, or in the clear in the database."""

from __future__ import annotations

import logging
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keystead.core.vaults.jwk import encode

if TYPE_CHECKING:
    from vault_http.face import Face, Reply

pytestmark = pytest.mark.xdist_group("vault-face")


def raw(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def brought() -> tuple[dict[str, dict[str, str]], list[bytes]]:
    """Two keys to import, and the bytes of their private halves: as numbers, and as PKCS #8."""
    one = rsa.generate_private_key(65_537, 2_048)
    numbers = one.private_numbers()
    secret = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    public = {"n": numbers.public_numbers.n, "e": numbers.public_numbers.e}
    two = ec.generate_private_key(ec.SECP256R1())
    point, d = two.public_key().public_numbers(), two.private_numbers().private_value
    keys = {
        "rsa": {"kty": "RSA", **{name: encode(raw(value)) for name, value in {**public, **secret}.items()}},
        "ec": {
            "kty": "EC",
            "crv": "P-256",
            **{name: encode(value.to_bytes(32, "big")) for name, value in {"x": point.x, "y": point.y, "d": d}.items()},
        },
    }
    pkcs8 = [key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) for key in (one, two)]
    return keys, [*(raw(value) for value in secret.values()), d.to_bytes(32, "big"), *pkcs8]


def forms(secret: bytes) -> list[bytes]:
    """How bytes may show: as they are, in hexadecimal, in base64 at each of its three offsets, in decimal."""
    shown = [secret, secret.hex().encode(), str(int.from_bytes(secret, "big")).encode(), encode(secret).encode()]
    # The middle of the base64 of the bytes behind 0, 1 or 2 others: what stands in it whatever is around.
    shown += [b64encode(bytes(skip) + secret)[4:-4] for skip in range(3)]
    return shown


def test_no_private_half_is_anywhere_R_025(face: Face, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    keys, secrets = brought()
    replies: list[Reply] = []

    def ask(method: str, path: str, body: Any = None) -> None:
        replies.append(face.ask(method, path, body))

    for name, key in keys.items():
        ask("PUT", f"/keys/private-{name}", {"key": key, "tags": {"a": "b"}})
        assert replies[-1].status == 200
        # The same, broken in every way that still carries the private half.
        for broken in (
            {**key, "n": "AQAB", "x": "AQAB"},
            {**key, "kty": "oct"},
            {**key, "kty": 1},
            {**key, "key_ops": [7]},
            {**key, "crv": "P-999", "e": "Aw"},
        ):
            ask("PUT", "/keys/private-broken", {"key": broken})
            assert replies[-1].status == 400
        ask("PUT", "/keys/private-broken", {"key": key, "attributes": {"exp": -1}})
        ask("POST", "/keys/restore", {"value": key["d"]})
        ask("GET", f"/keys/private-{name}/{key['d'][:32]}")
        ask("GET", f"/keys/private-{name}/")
        ask("POST", f"/keys/private-{name}/backup")
        ask("POST", f"/keys/private-{name}/sign", {"alg": "RS256" if name == "rsa" else "ES256", "value": encode(bytes(32))})
        ask("PATCH", f"/keys/private-{name}/", {"attributes": {"enabled": False}})
        ask("DELETE", f"/keys/private-{name}")
    assert face.ask("GET", "/keys/private-broken/").status == 404
    printed = capfd.readouterr()
    told = [reply.raw + repr(reply.headers).encode() for reply in replies]
    told += [caplog.text.encode(), printed.out.encode(), printed.err.encode(), *face.world.files()]
    shown = [form for secret in secrets for form in forms(secret)]
    assert sum(len(one) for one in told) > 10_000
    assert not [form for form in shown for one in told if form in one]


def test_the_search_would_find_it(face: Face) -> None:
    """What was searched for is what a leak would look like: the public half is found by the same search."""
    numbers = rsa.generate_private_key(65_537, 2_048).private_numbers()
    public = raw(numbers.public_numbers.n)
    members = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    key = {"kty": "RSA", "n": encode(public), "e": "AQAB", **{name: encode(raw(value)) for name, value in members.items()}}
    reply = face.ask("PUT", "/keys/searched", {"key": key})
    assert any(form in reply.raw for form in forms(public))
    assert any(form in one for one in face.world.files() for form in forms(public))
