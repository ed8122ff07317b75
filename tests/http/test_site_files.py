"""Files of sites over HTTP: large ones as streams, many small ones at once, ranges, and what is cut off."""

from __future__ import annotations

import io
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from keystead.api.call import Content, Upload
from keystead.api.types import sites as t
from keystead.client.client import Client
from keystead.client.http import HttpTransport
from keystead.client.site_files import get_tree, put_tree
from keystead.core.errors import IntegrityFailure, InvalidRequest, PreconditionFailed, Unavailable
from keystead.core.stores.files import CHUNK_BYTES
from keystead.frontends.http.app import Parts
from keystead.services import tenants
from support.http import running
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.core.access.principal import Principal
    from keystead.frontends.http.credentials import Credentials

pytestmark = pytest.mark.xdist_group("http-sites")

URL = "https://contoso.example/sites/plans"
ADMIN = "admin@contoso.example"


class Far:
    """An installation behind a server, and a client of it."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.url = url
        self.transport = HttpTransport(url, token=ADMIN)
        self.client = Client(self.transport)

    def put(self, path: str, data: bytes, *, offset: int | None = None, if_version: int | None = None) -> t.FileView:
        request = t.UploadFile(site=URL, path=path, parents=True, offset=offset, if_version=if_version)
        view: t.FileView = self.client.call("site.put", request, upload=Upload(len(data), io.BytesIO(data).read))
        return view

    def get(self, path: str, **options: int) -> bytes:
        content: Content = self.client.call("site.get", t.DownloadFile(site=URL, path=path, **options))
        data = b"".join(content.chunks)
        assert len(data) == content.size
        return data

    def names(self) -> list[str]:
        return sorted(one.path for one in self.client.call("site.ls", t.ListFiles(site=URL)))


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    world.tenant(ready=False)
    world.as_person(ADMIN).call("site.create", t.CreateSite(url=URL))

    def authenticate(shown: Credentials) -> Principal:
        return tenants.impersonate(world.services, shown.bearer)

    with running(Parts(world.dispatcher, authenticate, os.urandom)) as url:
        found = Far(world, url)
        yield found
        found.transport.close()
    world.close()


def test_large_files_travel_as_streams_both_ways(far: Far) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 123_457)
    assert far.put("a b/ü?&#%.bin", data).size_bytes == len(data)
    assert far.get("a b/ü?&#%.bin") == data
    assert far.get("a b/ü?&#%.bin", offset=CHUNK_BYTES - 3, length=7) == data[CHUNK_BYTES - 3 : CHUNK_BYTES + 4]
    assert far.get("a b/ü?&#%.bin", offset=len(data)) == b""
    with pytest.raises(InvalidRequest) as caught:
        far.get("a b/ü?&#%.bin", offset=len(data) + 1)
    assert caught.value.code == "range_invalid"
    assert far.put("a b/ü?&#%.bin", b"part", offset=10).version == 2
    assert far.get("a b/ü?&#%.bin", length=20) == data[:10] + b"part" + data[14:20]
    with pytest.raises(PreconditionFailed) as late:
        far.put("a b/ü?&#%.bin", b"late", if_version=1)
    assert late.value.code == "file_changed"


def test_a_tree_travels_over_the_wire_and_is_the_same(far: Far, tmp_path: Path) -> None:
    local, out = tmp_path / "local", tmp_path / "out"
    for number in range(40):
        folder = local / f"folder {number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number} é").write_bytes(os.urandom(number * 3_000))
    (local / "large").write_bytes(os.urandom(3_000_000))
    (local / "nothing").touch()
    put = put_tree(far.client, URL, local, "in/here")
    assert (put.uploaded, put.unchanged) == (42, 0)
    assert put_tree(far.client, URL, local, "in/here").unchanged == 42
    got = get_tree(far.client, URL, "in", out)
    assert (got.files, got.bytes) == (42, put.bytes)
    for path in local.rglob("*"):
        if path.is_file():
            assert (out / "here" / path.relative_to(local)).read_bytes() == path.read_bytes()


def test_an_upload_that_is_cut_off_leaves_nothing_visible(far: Far) -> None:
    far.put("there", b"before")
    parts = urlsplit(far.url)
    for path in ("there", "new"):
        head = (
            f"PUT /v1/tenants/-/site/content?site={URL}&path={path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {ADMIN}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {9 * 1024 * 1024}\r\n\r\n"
        )
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as line:
            line.sendall(head.encode() + bytes(5 * 1024 * 1024))
            line.shutdown(socket.SHUT_WR)
            answer = line.recv(65_536)
        assert b"upload_cut_off" in answer or answer == b""
        assert far.get("there") == b"before"
    assert far.names() == ["/there"]


def test_a_chunk_that_is_damaged_cuts_the_answer_short(far: Far) -> None:
    """What is shorter than was said is never taken for the whole."""
    data = os.urandom(3 * CHUNK_BYTES)
    far.put("bad", data)
    far.put("good", data[:CHUNK_BYTES])
    refs = {
        row[0]
        for row in far.world.sql(
            "SELECT object_ref FROM file_chunks WHERE node_id IN (SELECT id FROM file_nodes WHERE size > ?)", CHUNK_BYTES
        )
    }
    for ref in refs:
        container, _slash, name = ref.partition("/")
        path = far.world.path / "objects" / container / name[:2] / name
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises((Unavailable, IntegrityFailure)):
        far.get("bad")
    assert far.get("good") == data[:CHUNK_BYTES]


def test_more_than_a_batch_may_hold_is_refused_unread(far: Far) -> None:
    big = t.UploadBatch(site=URL, files=[t.BatchFile(path=f"{number}", data=bytes(1024 * 1024)) for number in range(18)])
    with pytest.raises(InvalidRequest) as caught:
        far.client.call("site.put-batch", big)
    assert caught.value.code == "request_too_large"
    assert far.names() == []
