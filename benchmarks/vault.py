"""The key vault over HTTPS: operations a second beside a bare loop on the same core, by connections and key type.

Debian's wrk asks, on loopback, over TLS with connections that stay; the server has one core and wrk the other. Every call's log record is
durable before its answer leaves. The vault's own rate limits are switched off (`vault_rate_percent = 0`).
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
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
from benchmarks.timing import ROOT, Figure, Plan, interleaved, main, share, spread

from keystead.api.types import vaults as v

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VAULT = "bench-vault-1"
API = "api-version=7.4"
CONNECTIONS = (1, 8, 64)
SECONDS, QUICK_SECONDS = 4, 1
BARE_SECONDS, QUICK_BARE_SECONDS = 1.0, 0.3
SHARE = 0.6
PUBLISHED = 400
"""RSA-2048 operations a second that the service it stands in for allows for each vault."""
SETTINGS = {"KEYSTEAD_VAULT_RATE_PERCENT": "0", "KEYSTEAD_LOG_LEVEL": "warning"}
RSA, RSA_LARGE, CURVE = "RSA-2048", "RSA-4096", "P-256"
KEYS: dict[str, dict[str, Any]] = {RSA: {"size": 2_048}, RSA_LARGE: {"size": 4_096}, CURVE: {"kty": "EC", "curve": "P-256"}}
WHAT = {RSA: "unwrapKey with RSA-2048", RSA_LARGE: "unwrapKey with RSA-4096", CURVE: "sign with EC P-256"}


@dataclass(frozen=True)
class Face:
    """A vault that answers: its address, and a token for it."""

    server: serving.Server
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
        return [*_one_core(face, scripts, plan), *_matrix(face, scripts, plan)]


# -- what is measured -----------------------------------------------------------------------------------------------------------------


def _one_core(face: Face, scripts: dict[str, Path], plan: Plan) -> list[Figure]:
    """Operations of one server process on one core, beside the bare loop on that core."""
    seconds = QUICK_BARE_SECONDS if plan.quick else BARE_SECONDS
    bare: dict[str, list[float]] = {name: [] for name in KEYS}

    def loop() -> float:
        found = _bare(seconds)
        for name, rate in found.items():
            bare[name].append(rate)
        return found[RSA]

    ways = {"bare": loop, **{name: partial(_rate, face, script, plan) for name, script in scripts.items()}}
    found = interleaved(ways, plan.runs if plan.quick else max(plan.runs, 5))
    figures = []
    for name in KEYS:
        ours, limit = spread("keystead", found[name]), spread("cryptography in a bare loop on that core", bare[name])
        wanted = name == RSA
        beside = [limit, spread("published limit of the service it stands in for, per vault", [PUBLISHED])] if wanted else [limit]
        figures.append(
            Figure(
                f"{WHAT[name]} over HTTPS, one core, 64 connections",
                "operations/s",
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


def _rate(face: Face, script: Path, plan: Plan) -> float:
    return _load(face, script, 64, plan).rate


def _load(face: Face, script: Path, connections: int, plan: Plan) -> wrk.Load:
    return wrk.load(script, face.url, connections, QUICK_SECONDS if plan.quick else SECONDS, core=_cores()[1])


def _bare(seconds: float) -> dict[str, float]:
    command = ["taskset", "-c", str(_cores()[0]), sys.executable, "-m", "benchmarks.rsa", str(seconds)]
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
        yield Face(server, entry["url"].rstrip("/"), entry["ca_file"], token)


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
