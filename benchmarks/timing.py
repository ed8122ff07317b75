"""What all benchmarks share: figures, interleaved runs, a place on the disk, memory, the command line.

A benchmark is a module with `measure(place, plan)`, run as `python -m benchmarks.NAME [--json] [--quick] [--runs N] [--place FOLDER]`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
PLACE = Path("/var/tmp")  # noqa: S108 - a folder of a fresh random name is made in it
"""Where runs write: on a disk, since a folder in memory would make `sync` mean nothing; and where the mail user may enter."""
MB = 1_000_000
MIB = 1024 * 1024


@dataclass(frozen=True)
class Plan:
    """How much to do. `quick`: sizes that tell whether a benchmark works, not how fast anything is."""

    runs: int
    quick: bool


@dataclass(frozen=True)
class Spread:
    """Several runs of one thing, in the order they were made."""

    name: str
    median: float
    low: float
    high: float
    runs: int
    values: list[float]


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    Attributes:
        what: what was measured.
        unit: of the value and of everything it was measured beside.
        value: Keystead's runs.
        target: what the issue asks for, in words; empty where it asks for nothing.
        reached: whether it was; None without a target.
        beside: the others, in the same run.
        note: what `value` is compared by, such as a share of another's rate.
    """

    what: str
    unit: str
    value: Spread
    target: str = ""
    reached: bool | None = None
    beside: list[Spread] = field(default_factory=list)
    note: str = ""


def spread(name: str, values: Sequence[float]) -> Spread:
    return Spread(name, statistics.median(values), min(values), max(values), len(values), list(values))


def share(ours: Spread, other: Spread) -> float:
    """Ours by the other's: the median over runs that were made one after the other, which a machine that is now busy, now idle moves least."""
    if ours.runs != other.runs:
        return ours.median / other.median
    return statistics.median(mine / theirs for mine, theirs in zip(ours.values, other.values, strict=True))


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


_Name = TypeVar("_Name")


def interleaved(ways: Mapping[_Name, Callable[[], float]], runs: int) -> dict[_Name, list[float]]:
    """Run every way once, then every way again, so that a busy machine slows all of them alike."""
    found: dict[_Name, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            found[name].append(way())
    return found


def settled(place: Path) -> None:
    """Bring what earlier runs wrote to the disk, so that nobody pays for another's writes."""
    subprocess.run(["sync", "-f", str(place)], check=True)


def in_memory(folder: Path) -> None:
    """Read what lies in a folder once, so that nobody reads from the disk what another finds in memory because it has just written it there."""
    subprocess.run(["find", folder, "-type", "f", "-exec", "cat", "{}", "+"], check=True, stdout=subprocess.DEVNULL)


def copied(source: Path, target: Path) -> None:
    """`cp -r`, until what was copied is on the disk."""
    subprocess.run(["sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', source, target], check=True)


def copy_and_sync(source: Path, target: Path) -> float:
    """Seconds that `cp -r` and `sync` of the file system take; the copy is removed again."""
    settled(target.parent)
    taken = seconds(lambda: copied(source, target))
    shutil.rmtree(target)
    return taken


def bytes_below(folder: Path) -> int:
    return sum(found.stat().st_size for found in folder.rglob("*") if found.is_file())


def peak_megabytes() -> float:
    """The most memory this process ever held. Not `ru_maxrss`: a child starts with its parent's there."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / MB


def child(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module in a process of its own; it prints one JSON document."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def report(name: str, figures: Sequence[Figure], plan: Plan, *, as_json: bool) -> int:
    """Print the figures; 1 when a target was missed."""
    if as_json:
        print(json.dumps({"benchmark": name, "quick": plan.quick, "figures": [asdict(figure) for figure in figures]}, indent=1))
    else:
        for figure in figures:
            print(text_of(figure))
    return 1 if any(figure.reached is False for figure in figures) else 0


def text_of(figure: Figure) -> str:
    one = figure.value
    lines = [f"{figure.what}: {shown(one.median)} {figure.unit} ({shown(one.low)} to {shown(one.high)}, {one.runs} runs)"]
    if figure.target:
        lines.append(f"    target {figure.target}: {'reached' if figure.reached else 'MISSED'}{'; ' + figure.note if figure.note else ''}")
    lines += [f"    beside {other.name}: {shown(other.median)} ({shown(other.low)} to {shown(other.high)})" for other in figure.beside]
    return "\n".join(lines)


def shown(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def main(name: str, measure: Callable[[Path, Plan], list[Figure]], *, runs: int) -> int:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quick", action="store_true", help="small sizes, two runs: does it work?")
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--place", type=Path, default=PLACE, help="folder to write in, on a real disk")
    options = parser.parse_args()
    plan = Plan(options.runs or (2 if options.quick else runs), options.quick)
    with tempfile.TemporaryDirectory(prefix=f"keystead-{name}-", dir=options.place) as place:
        Path(place).chmod(0o755)
        figures = measure(Path(place), plan)
    return report(name, figures, plan, as_json=options.json)
