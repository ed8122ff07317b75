"""Debian's wrk as the load generator: one thread, scripted in Lua, its latencies as JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DONE = """
function response(status)
  if status ~= 200 then
    failed = (failed or 0) + 1
    wrk.thread:set("failed", failed)
  end
end

local threads = {}
function setup(thread)
  table.insert(threads, thread)
end

function done(summary, latency, requests)
  local failed = 0
  for _, thread in ipairs(threads) do failed = failed + (thread:get("failed") or 0) end
  local errors = summary.errors
  io.write(string.format(
    '\\nJSON {"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.3f, "p99": %.3f}\\n',
    summary.requests, summary.duration / 1e6,
    failed + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""
_GET = """
local number = 0
function request()
  number = number + 1
  return wrk.format("GET", paths[number % #paths + 1], headers)
end
"""
_POST = """
local number = 0
local run = ""
function init(args)
  run = args[1]
end

function request()
  number = number + 1
  local body = {pieces[1]}
  for index = 2, #pieces do
    body[#body + 1] = string.format("%s%016d", run, number)
    body[#body + 1] = pieces[index]
  end
  return wrk.format("POST", paths[number % #paths + 1], headers, table.concat(body))
end
"""
MARK_BYTES = 32
"""Length of what stands in each item of a body and differs in every request: 16 digits of the run, 16 of the request."""


@dataclass(frozen=True)
class Load:
    """What one run did. Latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


def available() -> bool:
    return shutil.which("wrk") is not None


def get_script(file: Path, paths: Sequence[str], token: str) -> Path:
    """A script that asks for one path after the other."""
    return _written(file, paths, token, "", _GET)


def post_script(file: Path, paths: Sequence[str], token: str, pieces: Sequence[bytes], media_type: str) -> Path:
    """A script that posts a body made of the pieces; between two of them stands a mark that no other request has.

    Args:
        file: written, and the pieces beside it.
        paths: posted to in turn.
        token: whose call it is.
        pieces: of the body.
        media_type: of the body.
    """
    folder = file.with_suffix(".pieces")
    folder.mkdir(exist_ok=True)
    for index, piece in enumerate(pieces, 1):
        (folder / str(index)).write_bytes(piece)
    loaded = "\n".join(
        [
            f'headers["Content-Type"] = "{media_type}"',
            "pieces = {}",
            f"for index = 1, {len(pieces)} do",
            f'  local file = assert(io.open("{folder}/" .. index, "rb"))',
            '  pieces[index] = file:read("*a")',
            "  file:close()",
            "end",
        ]
    )
    return _written(file, paths, token, loaded, _POST)


def load(script: Path, address: str, connections: int, seconds: int, *, core: int | None = None) -> Load:
    """Run a script.

    Raises:
        RuntimeError: a request was not answered with 200.
    """
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    command = [
        *pinned,
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        address,
        os.urandom(8).hex(),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = next(json.loads(line.removeprefix("JSON ")) for line in done.stdout.splitlines() if line.startswith("JSON "))
    if found["failed"] or not found["requests"]:
        raise RuntimeError(
            f"{script.name}, {connections} connections: {found['failed']} of {found['requests']} calls failed:\n{done.stdout}"
        )
    return Load(found["requests"] / found["seconds"], found["p50"], found["p99"])


def _written(file: Path, paths: Sequence[str], token: str, loaded: str, request: str) -> Path:
    listed = ",\n".join(f'  "{path}"' for path in paths)
    head = f'paths = {{\n{listed}\n}}\nheaders = {{["Authorization"] = "Bearer {token}"}}\n'
    file.write_text(f"{head}{loaded}\n{request}{_DONE}", encoding="utf-8")
    return file
