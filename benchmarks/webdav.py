"""A file of 1 GiB read over WebDAV, beside the same library serving a plain folder.

Both run on cheroot on loopback, without TLS, and are asked by the same client, which throws the bytes away. The library's own setting is to
read and send 8 KiB at a time; it is measured with that, and with blocks as large as Keystead's chunks.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks import home as homes
from benchmarks import serving
from benchmarks.timing import MB, MIB, ROOT, Figure, Plan, interleaved, main, seconds, share, spread

from keystead.api.call import Upload
from keystead.api.types import sites as s
from keystead.core.stores.files import CHUNK_BYTES
from keystead.frontends.webdav.paths import site_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AT_LEAST = 0.4
LARGE = 1024 * MIB
NAME = "large.bin"
BLOCKS = {"the library on a plain folder": 8192, "the same in blocks of 4 MiB": CHUNK_BYTES}


def measure(place: Path, plan: Plan) -> list[Figure]:
    size = LARGE // 16 if plan.quick else LARGE
    folder = place / "plain"
    folder.mkdir()
    source = folder / NAME
    with source.open("wb") as out:
        for _ in range(0, size, MIB):
            out.write(os.urandom(MIB))
    with homes.files_home(place / "home") as home, source.open("rb", buffering=0) as file:
        homes.owner(home, homes.SITE_OWNER).call("site.put", s.UploadFile(site=homes.SITE, path=NAME), upload=Upload(size, file.read))
    with serving.server(place / "home", webdav=True) as ours, _plain(folder, 8192) as small, _plain(folder, CHUNK_BYTES) as large:
        told = json.loads((place / "home" / "run" / "server.json").read_bytes())
        secret = (place / "home" / "run" / "server.secret").read_text(encoding="ascii").strip()
        token = base64.b64encode(f"{homes.SITE_OWNER}:{secret}".encode()).decode()
        path = f"/{site_segment(homes.SITE)}/{NAME}"
        wanted = _first(source)
        assert ours.process.poll() is None

        def way(url: str, where: str, header: str = "") -> Callable[[], float]:
            return lambda: size / MB / seconds(lambda: _get(url, where, header, size, wanted))

        ways = {
            "keystead": way(told["webdav"], path, f"Authorization: Basic {token}\r\n"),
            **{name: way(url, f"/{NAME}") for name, url in zip(BLOCKS, (small, large), strict=True)},
        }
        for one in ways.values():
            one()  # so that what is read lies in memory, on all sides
        found = interleaved(ways, plan.runs)
    value, *others = (spread(name, values) for name, values in found.items())
    part = share(value, others[0])
    what = f"get of a file of {round(size / MIB):,} MiB over WebDAV"
    note = f"{part:.2f} of it, {share(value, others[1]):.2f} of it in blocks of 4 MiB"
    return [Figure(what, "MB/s", value, f"at least {AT_LEAST:g} of the library on a plain folder", part >= AT_LEAST, others, note)]


def _get(url: str, path: str, header: str, size: int, first: bytes) -> None:
    """One GET on a connection of its own; the bytes are counted, and the first ones looked at."""
    at = urlsplit(url)
    assert at.hostname is not None
    with socket.create_connection((at.hostname, at.port or 80)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\n{header}Connection: close\r\n\r\n".encode())
        buffer = bytearray(MIB)
        view = memoryview(buffer)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(64 * 1024)
        told, _, body = head.partition(b"\r\n\r\n")
        if not told.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{url}{path} answered {told.splitlines()[0].decode('latin-1')}")
        count, start = len(body), body[: len(first)]
        while got := connection.recv_into(view):
            if len(start) < len(first):
                start += bytes(view[: min(got, len(first) - len(start))])
            count += got
    if (count, start) != (size, first):
        raise RuntimeError(f"{url}{path} gave {count} bytes of {size}, or others")


def _first(source: Path) -> bytes:
    with source.open("rb") as file:
        return file.read(1000)


@contextmanager
def _plain(folder: Path, block: int) -> Iterator[str]:
    """The library on a folder, in a process of its own; its address."""
    command = [sys.executable, "-m", "benchmarks.webdav", "--plain", str(folder), str(block)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def _serve_plain(folder: str, block: int) -> None:
    from cheroot.wsgi import Server  # noqa: PLC0415 - the child alone
    from wsgidav.wsgidav_app import WsgiDAVApp  # noqa: PLC0415 - as said

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    listening.close()
    config = {
        "host": "127.0.0.1",
        "port": port,
        "provider_mapping": {"/": folder},
        "simple_dc": {"user_mapping": {"*": True}},
        "block_size": block,
        "logging": {"enable": False},
        "verbose": 0,
    }
    server = Server(("127.0.0.1", port), WsgiDAVApp(config))
    server.prepare()
    print(port, flush=True)
    server.serve()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        _serve_plain(sys.argv[2], int(sys.argv[3]))
    else:
        raise SystemExit(main("webdav", measure, runs=5))
