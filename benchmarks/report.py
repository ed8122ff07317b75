"""Makes docs/performance.md from what the benchmarks printed.

usage: python -m benchmarks.report FOLDER_OF_JSON [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import dovecot
from benchmarks.timing import ROOT, shown
from cryptography.hazmat.backends.openssl.backend import backend

TITLES = {
    "seal_open": "Sealing and opening",
    "read": "Reading",
    "http": "The service over HTTP",
    "vault": "The key vault over HTTPS",
    "import_mail": "Import",
    "move": "Move",
    "files": "Files",
    "webdav": "WebDAV",
    "roll_sites": "Rolling the files of a geo",
    "policy": "Refresh and re-wrap",
    "scale": "Cost curves",
    "startup": "The command line",
    "objects": "Object stores",
}
"""Benchmark: its heading, in the order of the page."""
NOTES = ROOT / "benchmarks" / "notes.md"


def page(results: list[dict[str, Any]]) -> str:
    """The whole page."""
    ordered = sorted(results, key=lambda one: list(TITLES).index(one["benchmark"]))
    lines = [
        "# Performance",
        "",
        "Made by `scripts/bench`, which runs everything below on one machine, one after the other; do not edit. Notes come from `benchmarks/notes.md`.",
        "Figures are medians of several runs, lowest and highest in brackets; the runs of what is compared alternate.",
        "",
        *machine(),
        "",
    ]
    for one in ordered:
        lines += [f"## {TITLES[one['benchmark']]}", ""]
        if one["quick"]:
            lines += ["**Short runs** (`--quick`): they show the order of size; take them again in full before relying on them.", ""]
        lines += [*table(one["figures"]), ""]
    return "\n".join(lines) + "\n" + NOTES.read_text(encoding="utf-8")


def table(figures: list[dict[str, Any]]) -> list[str]:
    rows = ["| What | Keystead | Beside it | Target | Reached |", "|---|---|---|---|---|"]
    for figure in figures:
        beside = "<br>".join(f"{other['name']}: {_value(other)}" for other in figure["beside"])
        reached = {True: "yes", False: "**no**", None: ""}[figure["reached"]]
        target = figure["target"] + (f" ({figure['note']})" if figure["note"] else "")
        rows.append(f"| {figure['what']} | {_value(figure['value'])} {figure['unit']} | {beside} | {target} | {reached} |")
    return rows


def machine() -> list[str]:
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next(int(line.split()[1]) // 1024**2 for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    programs = [f"CPython {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}", backend.openssl_version_text()]
    programs += [f"{name} {version(name)}" for name in ("keystead", "cryptography", "sqlalchemy", "zstandard", "msgspec")]
    programs += [f"Dovecot {dovecot.version()}"] if dovecot.available() else []
    return [
        f"- Machine: {os.cpu_count()} cores, {cpu}, {memory} GiB of memory, {platform.system()} {platform.release()}",
        f"- Load when the page was made (1, 5, 15 minutes): {', '.join(f'{value:.1f}' for value in os.getloadavg())}",
        f"- Versions: {', '.join(programs)}",
        f"- Date: {time.strftime('%Y-%m-%d', time.gmtime())}",
    ]


def _value(one: dict[str, Any]) -> str:
    text = shown(one["median"])
    return f"{text} [{shown(one['low'])} to {shown(one['high'])}]" if one["runs"] > 1 else text


def _lines(file: str) -> list[str]:
    return Path(file).read_text(encoding="utf-8").splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    results = [json.loads(file.read_bytes()) for file in sorted(options.folder.glob("*.json")) if file.stem in TITLES]
    options.output.write_text(page(results), encoding="utf-8")
    missed = [figure["what"] for one in results for figure in one["figures"] if figure["reached"] is False]
    print(f"{options.output.name}: {len(results)} benchmarks, {len(missed)} targets missed")
    for what in missed:
        print(f"  missed: {what}")


if __name__ == "__main__":
    main()
