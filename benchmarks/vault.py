"""The key vault over HTTPS: operations a second beside a bare loop on the same core, by connections and key type.

Debian's wrk asks, on loopback, over TLS with connections that stay; the server has one core and wrk the other. Every call's log record is
durable before its answer leaves. The vault's own rate limits are switched off (`vault_rate_percent = 0`).
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import urllib.parse
import urllib.request
from base64 import urlsafe_b64encode
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import home as homes
from benchmarks import serving, wrk
from benchmarks.timing import MB, ROOT, Figure, Plan, interleaved, main, seconds, share, spread
from sqlalchemy import insert

from keystead.adapters.clock import SystemClock
from keystead.adapters.sql import vault_schema as tables
from keystead.adapters.sql.sqlite import sqlite_engine, writing
from keystead.adapters.vaults.azure import AzureVaults
from keystead.api.types import vaults as v
from keystead.core.configuration import ForeignVaultConfig
from keystead.core.ids import new_id
from keystead.core.settings import Settings
from keystead.core.vaults.seal import private_key_context
from keystead.core.vaults.usage import key_kind
from keystead.vault.material import generate, private_bytes, public_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

VAULT = "bench-vault-1"
API = "api-version=7.4"
CONNECTIONS = (1, 8, 64)
SECONDS, QUICK_SECONDS = 4, 1
BARE_SECONDS, QUICK_BARE_SECONDS = 1.0, 0.3
SHARE = 0.6
PUBLISHED = 400
"""RSA-2048 operations a second that the service it stands in for allows for each vault."""
SDK_MS, SDK_CALLS, WARM_CALLS = 5.0, 200, 20
MANY_KEYS, QUICK_MANY_KEYS, VERSIONS = 100_000, 2_000, 3
USED_KEYS = 20_000
"""Twice what a server keeps loaded."""
FILLED_AT_ONCE = 5_000
SETTINGS = {"KEYSTEAD_VAULT_RATE_PERCENT": "0", "KEYSTEAD_LOG_LEVEL": "warning"}
RSA, RSA_LARGE, CURVE = "RSA-2048", "RSA-4096", "P-256"
KEYS: dict[str, dict[str, Any]] = {RSA: {"size": 2_048}, RSA_LARGE: {"size": 4_096}, CURVE: {"kty": "EC", "curve": "P-256"}}
WHAT = {RSA: "unwrapKey with RSA-2048", RSA_LARGE: "unwrapKey with RSA-4096", CURVE: "sign with EC P-256"}


@dataclass(frozen=True)
class Face:
    """A vault that answers: its address, and a token for it."""

    server: serving.Server
    entry: dict[str, str]
    url: str
    ca_file: str
    token: str

    def post(self, path: str, body: object) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            f"{self.url}{path}?{API}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        return _answer(request, self.ca_file)


def measure(place: Path, plan: Plan) -> list[Figure]:
    if not wrk.available():
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    path = place / "home"
    ids = _make_home(path)
    with served(path, cores=[_cores()[0]]) as face:
        scripts = _scripts(place, face, ids)
        figures = [*_one_core(face, scripts, plan), *_matrix(face, scripts, plan), _through_the_sdk(face, ids[RSA], place, plan)]
    return [*figures, _memory(path, place, plan)]


# -- what is measured -----------------------------------------------------------------------------------------------------------------


def _one_core(face: Face, scripts: dict[str, Path], plan: Plan) -> list[Figure]:
    """Operations of one server process on one core, beside the bare loop on that core, both by the time they had on it.

    The server has many threads and the loop one: by the clock, others on the same core would slow the loop more, and the share would flatter.
    """
    length = QUICK_BARE_SECONDS if plan.quick else BARE_SECONDS
    bare: dict[str, list[float]] = {name: [] for name in KEYS}

    def loop() -> float:
        found = _bare(length)
        for name, rate in found.items():
            bare[name].append(rate)
        return found[RSA]

    ways: dict[str, Callable[[], float]] = {"bare": loop}
    ways |= {name: partial(_rate, face, script, plan) for name, script in scripts.items()}
    found = interleaved(ways, plan.runs if plan.quick else max(plan.runs, 5))
    figures = []
    for name in KEYS:
        ours, limit = spread("keystead", found[name]), spread("cryptography in a bare loop on that core", bare[name])
        wanted = name == RSA
        beside = [limit, spread("published limit of the service it stands in for, per vault", [PUBLISHED])] if wanted else [limit]
        figures.append(
            Figure(
                f"{WHAT[name]} over HTTPS, one core, 64 connections",
                "operations/s of processor time",
                ours,
                f"at least {SHARE} of the bare loop" if wanted else "",
                share(ours, limit) >= SHARE if wanted else None,
                beside,
                f"{share(ours, limit):.2f} of the bare loop",
            )
        )
    return figures


def _matrix(face: Face, scripts: dict[str, Path], plan: Plan) -> list[Figure]:
    figures = []
    for name, script in scripts.items():
        for connections in CONNECTIONS:
            loads = [_load(face, script, connections, plan) for _ in range(plan.runs)]
            figures.append(
                Figure(
                    f"{WHAT[name]}, {connections} connection{'s' if connections > 1 else ''}",
                    "operations/s",
                    spread("keystead", [load.rate for load in loads]),
                    beside=[spread("p50, ms", [load.p50 for load in loads]), spread("p99, ms", [load.p99 for load in loads])],
                )
            )
    return figures


def _through_the_sdk(face: Face, which: str, place: Path, plan: Plan) -> Figure:
    """A policy key's copy unwrapped in another vault, as the keyring asks for it: through the SDK, over HTTPS, one call after the other."""
    secret = place / "client-secret"
    secret.write_text(face.entry["client_secret"], encoding="ascii")
    host = urllib.parse.urlsplit(face.url).netloc
    config = ForeignVaultConfig(
        name="bench",
        hosts=(host,),
        tenants=(homes.DOMAIN,),
        authority=face.entry["authority"],
        directory=face.entry["tenant_id"],
        client_id=face.entry["client_id"],
        client_secret_file=secret.name,
        ca_file=face.ca_file,
        verify_challenge=False,
    )
    vaults = AzureVaults(config, place, Settings(), SystemClock(), lambda asked: asked == host)
    try:
        wrapped = vaults.wrap(face.entry["tenant_id"], "mail", f"{face.url}/keys/{which}", bytes(32))
        for _ in range(WARM_CALLS):
            vaults.unwrap(face.entry["tenant_id"], "mail", wrapped.key_uri, wrapped.value)
        medians = []
        for _ in range(plan.runs):
            taken = [
                seconds(lambda: vaults.unwrap(face.entry["tenant_id"], "mail", wrapped.key_uri, wrapped.value)) * 1_000
                for _ in range(SDK_CALLS)
            ]
            medians.append(statistics.median(taken))
    finally:
        vaults.close()
    ours = spread("keystead", medians)
    return Figure(
        "a policy key unwrapped through the Azure adapter, RSA-2048, median of a run",
        "ms",
        ours,
        f"under {SDK_MS} ms",
        ours.median < SDK_MS,
    )


def _memory(path: Path, place: Path, plan: Plan) -> Figure:
    """What the server holds with many keys in its database, and after more of them were used than it keeps loaded."""
    keys = QUICK_MANY_KEYS if plan.quick else MANY_KEYS
    names = _fill(path, keys)
    with served(path) as face:
        start = face.server.memory_bytes() / MB
        body = json.dumps({"alg": "ES256", "value": _base64url(bytes(32))}).encode()
        used = names[: min(len(names), USED_KEYS)]
        script = wrk.post_script(place / "many.lua", [f"/keys/{name}/sign?{API}" for name in used], face.token, [body], "application/json")
        asked = 0.0
        while asked < len(used):
            asked += wrk.load(script, face.url, 64, QUICK_SECONDS).rate * QUICK_SECONDS
        end = face.server.memory_bytes() / MB
    return Figure(
        f"memory of the server with {keys:,} keys of {VERSIONS} versions, after {len(used):,} of them were used"
        " (one P-256 key's bytes, sealed anew for each version)",
        "MB",
        spread("keystead", [end]),
        beside=[spread("after the start", [start])],
    )


def _rate(face: Face, script: Path, plan: Plan) -> float:
    """Operations a second of the server's processor time."""
    before = face.server.processor_seconds()
    load = _load(face, script, 64, plan)
    return load.rate * (QUICK_SECONDS if plan.quick else SECONDS) / (face.server.processor_seconds() - before)


def _load(face: Face, script: Path, connections: int, plan: Plan) -> wrk.Load:
    return wrk.load(script, face.url, connections, QUICK_SECONDS if plan.quick else SECONDS, core=_cores()[1])


def _bare(length: float) -> dict[str, float]:
    command = ["taskset", "-c", str(_cores()[0]), sys.executable, "-m", "benchmarks.rsa", str(length)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _cores() -> tuple[int, int]:
    """One for the server, one for the generator; the same one where there is no other."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


# -- what it is measured on -----------------------------------------------------------------------------------------------------------


@contextmanager
def served(path: Path, cores: Sequence[int] = ()) -> Iterator[Face]:
    """`keystead vault serve` on a home, until the block ends, and a client's token for its first vault."""
    program = [str(Path(sys.executable).with_name("keystead")), "--home", str(path), "vault", "serve", "--ready-file"]
    with serving.started(program, path / "run" / "bench-ready", cores, SETTINGS) as server:
        entry = next(one for one in json.loads(server.address) if one["name"].lower() == VAULT)
        form = {
            "grant_type": "client_credentials",
            "client_id": entry["client_id"],
            "client_secret": entry["client_secret"],
            "scope": f"{entry['url'].rstrip('/')}/.default",
        }
        address = f"{entry['authority'].rstrip('/')}/{entry['tenant_id']}/oauth2/v2.0/token"
        request = urllib.request.Request(address, urllib.parse.urlencode(form).encode())  # noqa: S310 - our own loopback address
        token = _answer(request, entry["ca_file"])["access_token"]
        yield Face(server, entry, entry["url"].rstrip("/"), entry["ca_file"], token)


def _answer(request: urllib.request.Request, ca_file: str) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=30, context=ssl.create_default_context(cafile=ca_file)) as answer:  # noqa: S310
        found: dict[str, Any] = json.loads(answer.read())
        return found


def _make_home(path: Path) -> dict[str, str]:
    """A dev home with a vault of three keys; their names with version, by type."""
    with homes.bench_home(path) as home:
        admin = homes.admin(home)
        made = {name: admin.call("key.create", v.KeyCreate(vault=VAULT, name=name, **more)) for name, more in KEYS.items()}
    return {name: f"{name}/{view.version}" for name, view in made.items()}


def _fill(path: Path, keys: int) -> list[str]:
    """Add keys to the vault as rows, each version sealed as the vault itself seals it; their names."""
    with homes.opened(path) as home, home.vault.store.reading() as tx:
        vault, seal, now = tx.vault_of_anyone(VAULT), home.vault.seal, home.vault.clock.now()
    assert vault is not None, "it was made with the home"
    private = generate(key_kind("EC", None, "P-256"))
    pkcs8, public = private_bytes(private), public_bytes(private)
    owner = {"tenant_id": vault.tenant_id, "vault_id": vault.id}
    names = [f"many-{number}" for number in range(keys)]
    engine = sqlite_engine(path / "vault.db")
    for start in range(0, keys, FILLED_AT_ONCE):
        key_rows, version_rows = [], []
        for name in names[start : start + FILLED_AT_ONCE]:
            key_id = new_id(os.urandom)
            key_rows.append({**owner, "id": key_id, "name": name, "name_lower": name, "created": now, "rotation_policy": ""})
            for ordinal in range(1, VERSIONS + 1):
                version = os.urandom(16).hex()
                sealed = seal.close_private(pkcs8, private_key_context(vault.tenant_id, vault.name, name, version), os.urandom)
                version_rows.append({
                    **owner, "key_id": key_id, "ordinal": ordinal, "version": version, "kty": "EC", "size": 0, "curve": "P-256",
                    "key_ops": "sign,verify", "enabled": True, "created": now, "updated": now, "tags": "{}", "public_key": public,
                    "sealed_private": sealed,
                })  # fmt: skip
        with writing(engine) as connection:
            connection.execute(insert(tables.vault_key), key_rows)
            connection.execute(insert(tables.vault_key_version), version_rows)
    engine.dispose()
    return names


def _scripts(place: Path, face: Face, ids: dict[str, str]) -> dict[str, Path]:
    """By key type: a script that asks for the same operation again and again."""
    scripts = {}
    for name, which in ids.items():
        if name == CURVE:
            verb, body = "sign", {"alg": "ES256", "value": _base64url(hashlib.sha256(b"message").digest())}
        else:
            wrapped = face.post(f"/keys/{which}/wrapkey", {"alg": "RSA-OAEP-256", "value": _base64url(bytes(32))})
            verb, body = "unwrapkey", {"alg": "RSA-OAEP-256", "value": wrapped["value"]}
        face.post(f"/keys/{which}/{verb}", body)
        scripts[name] = wrk.post_script(
            place / f"{name}.lua", [f"/keys/{which}/{verb}?{API}"], face.token, [json.dumps(body).encode()], "application/json"
        )
    return scripts


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


if __name__ == "__main__":
    raise SystemExit(main("vault", measure, runs=3))
