"""Only the configured address is called, over TLS, with the container's own credentials: whatever environment and redirects say."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import pytest
import trustme

from contracts.objects.remotes import REMOTE
from keystead.adapters.objects import remote as adapter
from keystead.adapters.objects.open import open_objects
from keystead.core.configuration import ObjectsConfig
from keystead.core.errors import InvalidRequest, Unavailable
from support.objects import Exchange, Proxy

if TYPE_CHECKING:
    from contracts.objects.remotes import Remote
    from keystead.ports.objects import ObjectStore
    from support.objects import Store

pytestmark = REMOTE
REFUSED_VARIABLES = {"AWS_CHECKSUM_ALGORITHM", "AWS_SERVER_SIDE_ENCRYPTION"}


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "FIRST_WAIT", 0.001)


@pytest.fixture(params=["s3", "azure"])
def remote(request: pytest.FixtureRequest) -> Remote:
    found: Remote = request.getfixturevalue(request.param)
    return found


def variables() -> list[str]:
    """Every variable that obstore's own documentation names, what its HTTP client takes, and who would proxy."""
    documented = "".join(file.read_text(encoding="utf-8") for file in (Path(obstore.__file__).parent / "_store").glob("*.pyi"))
    found = set(re.findall(r"`((?:AWS|AZURE)_[A-Z0-9_]+)`", documented))
    assert len(found) > 60
    client = ("ALLOW_HTTP", "ALLOW_INVALID_CERTIFICATES", "DEFAULT_CONTENT_TYPE", "PROXY_URL", "PROXY_EXCLUDES", "TIMEOUT", "USER_AGENT")
    found |= {f"{kind}_{name}" for kind in ("AWS", "AZURE") for name in client}
    found |= {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"}
    found |= {"IDENTITY_ENDPOINT", "MSI_ENDPOINT", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    return sorted(found - REFUSED_VARIABLES)


def requests(remote: Remote, folder: Path, elsewhere: Proxy) -> list[tuple[str, str, dict[str, str]]]:
    """What the store sees of a put, a read, a listing and a removal: without what differs from call to call."""
    seen: list[tuple[str, str, dict[str, str]]] = []

    def watched(exchange: Exchange) -> None:
        headers = dict(exchange.request_headers)
        for name in ("x-amz-date", "x-ms-date", "date", "content-type", "content-length"):
            headers.pop(name, None)
        headers["authorization"] = re.sub(r"/\d{8}/|Signature=.*|:.*", "", headers.get("authorization", ""))
        seen.append((exchange.method, re.sub(r"tests/\w+/c0/\w{32}|tests\S+", "PLACE", exchange.path), headers))
        exchange.forward()

    remote.proxy.always = watched
    objects = remote.open(folder, retries=0)
    ref = objects.new_ref(os.urandom)
    objects.put(ref, [b"value"])
    assert objects.get(ref, 0, 5) == b"value"
    assert [info.ref for info in objects.all_objects()] == [ref]
    objects.delete(ref)
    assert elsewhere.seen == []
    return seen


def test_no_variable_of_the_environment_changes_what_is_asked_of_whom(
    remote: Remote, moto_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(moto_store.port) as elsewhere:
        plain = requests(remote, tmp_path, elsewhere)
        for value in (f"http://127.0.0.1:{elsewhere.port}", "true"):
            with monkeypatch.context() as poisoned:
                for name in variables():
                    poisoned.setenv(name, value)
                assert requests(remote, tmp_path, elsewhere) == plain


@pytest.mark.parametrize("name", [*sorted(REFUSED_VARIABLES), "aws_server_side_encryption"])
def test_a_variable_that_cannot_be_overruled_is_refused(s3: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "AES256")
    objects = s3.open(tmp_path)
    with pytest.raises(InvalidRequest) as caught:
        objects.put(objects.new_ref(os.urandom), [b"value"])
    assert name in caught.value.detail
    assert name in caught.value.mend
    assert s3.proxy.seen == []


def test_redirects_are_not_followed(remote: Remote, tmp_path: Path) -> None:
    """Neither to another host by name, nor to another address, nor to where machines keep their own credentials."""
    with Proxy(remote.store.port) as elsewhere:
        objects = remote.open(tmp_path, retries=0)
        ref = objects.new_ref(os.urandom)
        objects.put(ref, [b"value"])
        for place in (f"http://localhost:{elsewhere.port}", f"http://127.0.0.2:{elsewhere.port}", "http://169.254.169.254"):
            for status in (301, 302, 307, 308):
                remote.proxy.always = lambda exchange, status=status, place=place: exchange.answer(status, Location=place + exchange.path)
                for call in (
                    lambda: objects.get(ref, 0, 5),
                    lambda: objects.put(objects.new_ref(os.urandom), [b"value"]),
                    lambda: objects.delete(ref),
                    lambda: list(objects.all_objects()),
                ):
                    with pytest.raises(Unavailable):
                        call()
        assert elsewhere.seen == []


def test_a_certificate_is_checked_against_the_containers_own_authorities(moto_store: Store, tmp_path: Path) -> None:
    """R-113: ciphertext goes to the store it is meant for."""
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ours.pem")
    stranger.cert_pem.write_to_path(tmp_path / "theirs.pem")
    with Proxy(moto_store.port, tls=context) as proxy:

        def objects_with(file: str, host: str = "127.0.0.1") -> ObjectStore:
            container = moto_store.container(
                "c0", tmp_path, prefix="tls", endpoint=f"https://{host}:{proxy.port}", ca_file=file, allow_http=False
            )
            return open_objects(ObjectsConfig((container,), 5_000, 0), tmp_path)

        for host in ("127.0.0.1", "localhost"):
            objects = objects_with("ours.pem", host)
            ref = objects.new_ref(os.urandom)
            assert objects.put(ref, [b"value"]) == 5
            assert objects.get(ref, 0, 5) == b"value"
            assert ref in {info.ref for info in objects.all_objects()}
            assert objects.check() == []
        proxy.seen.clear()
        for file in ("theirs.pem", ""):
            objects = objects_with(file)
            with pytest.raises(Unavailable):
                objects.put(ref, [b"value"])
            with pytest.raises(Unavailable):
                list(objects.all_objects())
            assert objects.check() == ["c0"]
        assert proxy.seen == []
