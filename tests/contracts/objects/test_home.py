"""A home whose keystead.toml names remote containers, by the program itself."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from contracts.objects.remotes import REMOTE
from keystead.adapters.objects import remote as adapter
from keystead.cli.main import run
from keystead.core.errors import Unavailable
from keystead.serving import _checks
from keystead.wiring import open_home
from support.objects import Proxy, Store, flip_bytes, says
from support.world import message

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.core.configuration import ContainerConfig

pytestmark = REMOTE
MAIL = [message(index) for index in range(3)]


class Program:
    """`keystead` on one home."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._home, self._capsys = str(home), capsys

    def __call__(self, *line: str, who: str = "") -> tuple[int, str, str]:
        """Exit code, output, errors."""
        code = run([*line, *(["--as", who] if who else [])], environment={"KEYSTEAD_HOME": self._home}, interactive=False)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *line: str, who: str = "") -> Any:
        code, out, err = self(*line, "--json", who=who)
        assert code == 0, err
        return json.loads(out)


def toml(containers: list[ContainerConfig]) -> str:
    """`[objects]` of keystead.toml."""
    tables = []
    for one in containers:
        values = {name: getattr(one, name) for name in ("name", "bucket", "prefix", "endpoint", "region", "account", "credentials_file")}
        lines = [f'{name} = "{value}"' for name, value in values.items() if value]
        tables.append("\n".join(["[[objects.containers]]", f'kind = "{one.kind.value}"', "allow_http = true", *lines]))
    return "[objects]\nretries = 1\n\n" + "\n\n".join(tables) + "\n"


def test_a_home_keeps_its_objects_where_its_configuration_says(
    moto_store: Store, azure_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-113, R-114: two containers of two makes; a store that lies is exit 6, one that is away exit 5, and each names what to do."""
    monkeypatch.setattr(adapter, "FIRST_WAIT", 0.001)
    home, keystead = tmp_path / "home", Program(tmp_path / "home", capsys)
    assert keystead("init", "--dev")[0] == 0
    with Proxy(moto_store.port) as s3, Proxy(azure_store.port) as azure:
        containers = [
            moto_store.container("c0", home, port=s3.port, prefix=tmp_path.name),
            azure_store.container("c1", home, port=azure.port, prefix=tmp_path.name),
        ]
        (home / "keystead.toml").write_text(toml(containers), encoding="ascii")
        keystead.json("tenant", "create", "contoso", "--domain", "contoso.example", "--geo", "EUR")
        keystead.json("user", "add", "admin@contoso.example", "--role", "global-admin", "--tenant", "contoso.example")
        keystead.json("mailbox", "create", "alex@contoso.example", who="admin@contoso.example")
        (tmp_path / "mail.mbox").write_bytes(b"".join(b"From x Mon Jan  5 10:00:00 2026\n" + data + b"\n" for data in MAIL))
        keystead.json("mailbox", "import", "alex@contoso.example", "--from", str(tmp_path / "mail.mbox"), who="admin@contoso.example")
        assert not [path for path in (home / "objects").rglob("*") if path.is_file()]
        assert s3.count("PUT") + azure.count("PUT") == 1

        alex = "alex@contoso.example"
        items = keystead.json("mailbox", "items", alex, who=alex)
        assert len(items) == len(MAIL)
        read = ("mailbox", "read", alex, items[0]["id"])
        code, text, _ = keystead(*read, who=alex)
        assert (code, text.count("Subject: Message")) == (0, 1)
        s3.always = azure.always = flip_bytes
        code, out, err = keystead(*read, who=alex)
        assert (code, out) == (6, "")
        assert re.match(r"error: \w+: .*" + items[0]["id"], err)
        s3.always = azure.always = says(503, "SlowDown")
        code, out, err = keystead(*read, who=alex)
        assert (code, out) == (5, "")
        assert err.startswith("error: object_store_unavailable: container c")
        azure.always = None
        opened = open_home(home, {})
        with pytest.raises(Unavailable, match="containers do not answer: c0"):
            _checks(opened)["objects"]()
        s3.always = None
        _checks(opened)["objects"]()
        opened.close()
        failed = keystead.json("audit", "search", "--operations", "MailItemsAccessed", who="admin@contoso.example")
        assert [record["result_status"] for record in failed].count("Failed") == 1

    (home / "keystead.toml").write_text(toml([replace(containers[0], name="c7")]), encoding="ascii")
    code, _, err = keystead(*read, who=alex)
    assert code == 5
    assert err.startswith("error: object_container_unknown: objects lie in container c")
