"""`keystead vault serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keystead.cli.app import refuse_usage, this

if TYPE_CHECKING:
    from keystead.vault_serving import Announced

HIGHEST_PORT = 65_535


def serve(
    context: typer.Context,
    vault: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Serve this vault at the --port that follows; may be repeated.")
    ] = None,
    port: Annotated[list[int] | None, typer.Option(metavar="N", help="Of the --vault before it.")] = None,
    authority_port: Annotated[int, typer.Option(metavar="N", min=0, max=HIGHEST_PORT, help="Where clients sign in.")] = 0,
    domain: Annotated[
        str, typer.Option(metavar="DOMAIN", help="Serve all vaults at one address, as VAULT.DOMAIN; clients sign in at login.DOMAIN.")
    ] = "",
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="The address of --domain; 127.0.0.1:8443 otherwise.")] = "",
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write there, as JSON, where the vaults answer; removed at the end.")
    ] = None,
) -> None:
    """Serve the home's key vaults over HTTPS, for programs that speak to Azure Key Vault, until interrupted (Ctrl-C, or SIGTERM).

    Each vault has a port of its own on 127.0.0.1, and keeps it. All vaults are served; --vault and --port, in pairs, fix ports.
    Calls under way are finished first; a second signal stops at once.
    """
    current = this(context)
    home = current.options.home_path
    names, ports = vault or [], port or []
    if len(names) != len(ports):
        refuse_usage(f"there are {len(names)} --vault and {len(ports)} --port", "give them in pairs: --vault NAME --port N")
    fixed = {name.lower(): number for name, number in zip(names, ports, strict=True)}
    if len(fixed) != len(names) or len({*ports, authority_port} - {0}) != len(ports) + bool(authority_port):
        refuse_usage("a vault or a port is named twice", "give each vault a port of its own")
    if not all(0 < number <= HIGHEST_PORT for number in ports):
        refuse_usage("a port is no port", f"ports are 1 to {HIGHEST_PORT}")
    current.plan("vault.serve", {"home": str(home), "ports": fixed, "authority_port": authority_port, "domain": domain, "listen": listen})
    from keystead.vault_serving import CA_VARIABLES, Wanted, run_vaults

    shown: set[str] = set()

    def announced(found: "Announced") -> None:
        if not shown:
            current.say(f"serving the vaults of {home}; stop with Ctrl-C")
            current.say(f"clients sign in at {found.authority}/TENANT-ID and trust {found.ca_file}:")
            for variable, whose in zip(CA_VARIABLES, ("synchronous", "asynchronous"), strict=True):
                current.say(f"  {variable}={found.ca_file}   for {whose} SDKs")
            shown.add("")
            for name in _absent(names, found):
                current.say(f"vault {name} is not there yet; it will be at port {fixed[name.lower()]}")
        for name, url in found.vaults:
            if url not in shown:
                current.say(f"vault {name} at {url}")
                shown.add(url)

    run_vaults(home, Wanted(fixed, authority_port, domain, listen, ready_file), announced)


def _absent(names: list[str], found: "Announced") -> list[str]:
    """Which of the named vaults are not served: a slip of the pen, or one that is made later."""
    there = {name.lower() for name, _ in found.vaults}
    return [name for name in names if name.lower() not in there]
