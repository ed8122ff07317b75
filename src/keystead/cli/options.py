"""Global options: they may stand anywhere on the line, so they are taken out before the commands see it (design section 8)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOME = "KEYSTEAD_HOME"
URL = "KEYSTEAD_URL"
TOKEN = "KEYSTEAD_TOKEN"  # noqa: S105 - the name of an environment variable
END_OF_OPTIONS = "--"


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """What every command is told.

    Attributes:
        home: as given on the line; `home_path` adds the default.
        url: address of a server, as given on the line; `server_url` adds that of the environment.
        token_file: file that holds a token; token: the token itself, from the environment.
        tenant: name, domain or id; empty to take it from a UPN or from the caller.
        as_upn: who to call as, in dev homes.
        json: print one JSON document; yes: confirm; what_if: only say what would be done; debug: show the trace of what is unexpected.
    """

    home: str = ""
    url: str = ""
    token_file: str = ""
    token: str = ""
    tenant: str = ""
    as_upn: str = ""
    json: bool = False
    yes: bool = False
    what_if: bool = False
    debug: bool = False
    default_home: str = ""
    default_url: str = ""

    def __repr__(self) -> str:
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.name != "token")
        return f"GlobalOptions({', '.join(shown)})"

    @property
    def home_path(self) -> Path:
        """The home of this call."""
        return Path(self.home or self.default_home or "~/.keystead").expanduser()

    @property
    def server_url(self) -> str:
        """Address of the server to call; empty for the home's. A home on the line counts for more than a server in the environment."""
        return self.url or ("" if self.home else self.default_url)


VALUE_OPTIONS: Mapping[str, tuple[str, str, str]] = {
    "--home": ("home", "PATH", "the home to work in (KEYSTEAD_HOME; default ~/.keystead)"),
    "--url": ("url", "URL", "the server to call (KEYSTEAD_URL); else the one that runs on the home, else the home itself"),
    "--token-file": ("token_file", "FILE", "file with the token to call with (KEYSTEAD_TOKEN holds the token itself)"),
    "--tenant": ("tenant", "TENANT", "name, domain or id of the tenant; else from the UPN, else the caller's own"),
    "--as": ("as_upn", "UPN", "call as this person; in dev homes only, where the operator calls without it"),
}
"""Option: its field, what its value is, what it does."""

FLAGS: Mapping[str, tuple[str, str]] = {
    "--json": ("json", "print exactly one JSON document"),
    "--yes": ("yes", "confirm; without a terminal, purge, delete and unassign need it"),
    "--what-if": ("what_if", "say what would be done, and change nothing"),
    "--debug": ("debug", "show the trace of an unexpected error"),
}
"""Option: its field, what it does."""


def extract(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[GlobalOptions, list[str]]:
    """Split a line into the global options and the rest, whose order stays as it was.

    `--name value` and `--name=value` are the same; of an option given twice the last counts; nothing after `--` is looked at. The value of
    a command's own option that spells like a global one is written `--text=--json`.

    Args:
        arguments: the line without the program's name.
        environment: for the home and the token.

    Raises:
        InvalidRequest: `usage`: a value is missing, or given to a flag.
    """
    found: dict[str, str | bool] = {
        "default_home": environment.get(HOME, ""),
        "default_url": environment.get(URL, "").strip(),
        "token": environment.get(TOKEN, "").strip(),
    }
    rest: list[str] = []
    waiting = list(reversed(arguments))
    while waiting:
        argument = waiting.pop()
        name, equals, value = argument.partition("=")
        if argument == END_OF_OPTIONS:
            rest += [argument, *reversed(waiting)]
            break
        if name in VALUE_OPTIONS:
            field, metavar, _help = VALUE_OPTIONS[name]
            if not equals:
                value = waiting.pop() if waiting else ""
            if not value or (not equals and value.startswith("--")):
                raise usage(f"{name} needs a value", f"write {name} {metavar}")
            found[field] = value
        elif name in FLAGS:
            if equals:
                raise usage(f"{name} takes no value", f"write {name} alone")
            found[FLAGS[name][0]] = True
        else:
            rest.append(argument)
    return GlobalOptions(**found), rest  # type: ignore[arg-type]  # the two tables give each field its type


def usage(detail: str, mend: str) -> InvalidRequest:
    """The error of a line that cannot be understood."""
    return InvalidRequest("usage", detail, mend)
