"""`keystead vault seal` and the files a seal lies in, on real homes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keystead.adapters.seals import PASSPHRASE_VARIABLE, key_file, open_seal, provided_key_file, read_key_file, read_passphrase
from keystead.cli.main import run
from keystead.core.configuration import VaultConfig
from keystead.core.errors import IntegrityFailure, InvalidRequest, PreconditionFailed
from keystead.core.secret import SecretKey
from keystead.core.vaults.seal_record import Passphrase

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = "correct horse battery staple"
OTHERS = [0o640, 0o604, 0o620, 0o610, 0o644, 0o666]


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command on the home; its exit code, what it printed as JSON, and what it warned of."""

    def call(*line: str) -> tuple[int, Any, str]:
        code = run([*line, "--json"], environment={"KEYSTEAD_HOME": str(tmp_path / "home")}, interactive=False)
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out.strip() else None, captured.err

    return call


def secret(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def settings(home: Path, **vault: str) -> None:
    (home / "keystead.toml").write_text("[vault]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in vault.items()))


def test_a_home_goes_from_a_key_file_to_another_to_a_passphrase(tmp_path: Path, cli: Callable[..., Any]) -> None:
    home, new, words = tmp_path / "home", tmp_path / "new.seal", secret(tmp_path / "words", f"{WORDS}\nnot this\n".encode())
    assert cli("init", "--dev")[0] == 0
    code, shown, _ = cli("vault", "seal", "show")
    assert (code, shown["generation"], shown["kind"], shown["opens"]) == (0, 1, "key file", True)

    code, shown, warned = cli("vault", "seal", "rotate", "--new-seal-file", str(new))
    assert (code, shown["generation"], shown["former_generations"]) == (0, 2, [1])
    assert f"seal_file = '{new}'" in warned
    assert (new.stat().st_size, new.stat().st_mode & 0o777) == (32, 0o600)
    code, shown, _ = cli("vault", "seal", "show")
    assert (code, shown["opens"]) == (0, False)
    assert shown["why_not"].startswith("vault_seal_wrong: the vault database is of generation 2, sealed with a key file, but not")
    code, problem, _ = cli("tenant", "list")
    assert (code, problem["code"]) == (6, "vault_seal_wrong")
    settings(home, seal_file=str(new))
    assert cli("tenant", "list")[0] == 0

    code, shown, warned = cli("vault", "seal", "rotate", "--new-passphrase-file", str(words))
    assert (code, shown["generation"], shown["kind"], shown["memory_kib"]) == (0, 3, "passphrase", 65_536)
    assert f"seal_passphrase_file = '{words}'" in warned
    settings(home, seal_passphrase_file=str(words))
    assert cli("tenant", "list")[0] == 0
    code, shown, warned = cli("vault", "seal", "rotate")
    assert (code, shown["generation"], shown["kind"]) == (0, 4, "passphrase")
    assert "keystead.toml" not in warned, "the same seal: nothing to change"
    assert cli("tenant", "list")[0] == 0
    assert WORDS not in json.dumps(shown) + warned


def test_a_rotation_that_cannot_be_done_changes_nothing(tmp_path: Path, cli: Callable[..., Any]) -> None:
    assert cli("init", "--dev")[0] == 0
    short, open_to_all = secret(tmp_path / "short", b"too short\n"), secret(tmp_path / "open", bytes(32), 0o644)
    for line, code, name in (
        (("--new-passphrase-file", str(short)), 2, "seal_passphrase_unfit"),
        (("--new-passphrase-file", str(tmp_path / "none")), 6, "seal_missing"),
        (("--new-seal-file", str(open_to_all)), 3, "seal_exposed"),
        (("--new-seal-file", str(short)), 6, "seal_damaged"),
        (("--new-seal-file", "a", "--new-passphrase-file", "b"), 2, "usage"),
    ):
        exited, problem, _ = cli("vault", "seal", "rotate", *line)
        assert (exited, problem["code"]) == (code, name)
    assert cli("vault", "seal", "rotate", "--new-seal-file", "a", "--what-if")[0] == 0
    assert not Path("a").exists()
    assert cli("vault", "seal", "show")[1]["generation"] == 1
    assert cli("tenant", "list")[0] == 0


def test_init_takes_a_passphrase_and_then_makes_no_key_file(
    tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, WORDS)
    assert cli("init", "--dev")[0] == 0
    assert not (tmp_path / "home/seals/vault.seal").exists()
    assert cli("vault", "seal", "show")[1]["kind"] == "passphrase"
    monkeypatch.setenv(PASSPHRASE_VARIABLE, WORDS + "!")
    code, problem, _ = cli("tenant", "list")
    assert (code, problem["code"]) == (6, "vault_seal_wrong")
    monkeypatch.delenv(PASSPHRASE_VARIABLE)
    code, problem, _ = cli("tenant", "list")
    assert (code, problem["code"]) == (6, "seal_missing")


def test_a_home_without_its_vault_database_is_told_so(tmp_path: Path, cli: Callable[..., Any]) -> None:
    assert cli("init", "--dev")[0] == 0
    (tmp_path / "home/vault.db").unlink()
    for command in ("show", "rotate"):
        code, problem, _ = cli("vault", "seal", command)
        assert (code, problem["code"]) == (6, "home_part_missing")
    assert not (tmp_path / "home/vault.db").exists()


# -- files ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", OTHERS, ids=oct)
def test_a_seal_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(PreconditionFailed, match="seal_exposed"):
        read_key_file(secret(tmp_path / "seal", bytes(32), mode))
    with pytest.raises(PreconditionFailed, match="seal_exposed"):
        read_passphrase(secret(tmp_path / "words", WORDS.encode(), mode))


@pytest.mark.parametrize("size", [0, 31, 33, 100_000])
def test_a_key_file_has_32_bytes(tmp_path: Path, size: int) -> None:
    with pytest.raises(IntegrityFailure, match="seal_damaged"):
        read_key_file(secret(tmp_path / "seal", bytes(size)))


def test_a_key_file_that_is_there_is_used_and_never_replaced(tmp_path: Path) -> None:
    made = provided_key_file(tmp_path / "seal", os.urandom)
    assert provided_key_file(tmp_path / "seal", os.urandom) == made
    assert read_key_file(secret(tmp_path / "other", bytes(32), 0o400)) == SecretKey(bytes(32))


@pytest.mark.parametrize("data", [b"", b"short\n", b"\xff" * 20, b"a" * 2_000, b"sixteen char\tacters", b"\n" + WORDS.encode()])
def test_what_is_no_passphrase(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="seal_passphrase_unfit") as refused:
        read_passphrase(secret(tmp_path / "words", data))
    assert WORDS not in str(refused.value)


def test_the_configuration_says_which_seal(tmp_path: Path) -> None:
    secret(tmp_path / "seal", bytes(32))
    secret(tmp_path / "words", f"{WORDS}\r\n".encode())
    by_file, by_words = VaultConfig(seal_file="seal"), VaultConfig(seal_file="seal", seal_passphrase_file="words")
    environment = {PASSPHRASE_VARIABLE: WORDS}
    assert open_seal(by_file, tmp_path, {}) == SecretKey(bytes(32))
    assert isinstance(open_seal(by_words, tmp_path, {}), Passphrase)
    assert isinstance(open_seal(by_file, tmp_path, environment), Passphrase)
    assert [key_file(config, tmp_path, {}) for config in (by_file, by_words)] == [tmp_path / "seal", None]
    assert key_file(by_file, tmp_path, environment) is None
    with pytest.raises(InvalidRequest, match="given twice"):
        open_seal(by_words, tmp_path, environment)
    with pytest.raises(IntegrityFailure, match="seal_missing"):
        open_seal(VaultConfig(), tmp_path, {})


def test_a_passphrase_shows_itself_nowhere() -> None:
    assert repr(Passphrase(WORDS)) == str(Passphrase(WORDS)) == "Passphrase(...)"
    with pytest.raises(TypeError):
        Passphrase(WORDS).__reduce_ex__(4)
