"""`keystead vault client`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keystead.api.types import vault_clients as t
from keystead.cli.app import this
from keystead.cli.output import document
from keystead.cli.values import duration

if TYPE_CHECKING:
    from keystead.cli.app import App

app = typer.Typer(rich_markup_mode=None, add_completion=False)
secret = typer.Typer(rich_markup_mode=None, add_completion=False)
app.add_typer(secret, name="secret")

Client = Annotated[str, typer.Argument(metavar="CLIENT", help="Name or id.")]
Lifetime = Annotated[str | None, typer.Option(metavar="DURATION", help="Of the secret, such as 180d; 730d otherwise.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the secret there instead of showing it.")]


@app.callback()
def vault_client() -> None:
    """Programs that use key vaults over the network."""


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the program is called in lists and access policies.")],
    lifetime: Lifetime = None,
    output: Output = None,
) -> None:
    """Register a program and give it a secret. It may do nothing until `vault access grant --principal NAME` says what."""
    app = this(context)
    request = t.ClientCreate(name=name, lifetime=None if lifetime is None else duration(lifetime))
    _show(app, app.call("vault.client.create", request), output)


@app.command("list")
def list_clients(context: typer.Context) -> None:
    """List the tenant's clients."""
    app = this(context)
    app.show(app.call("vault.client.list"), ("name", "id", "created", "created_by"))


@app.command()
def show(context: typer.Context, client: Client) -> None:
    """Show a client, and the ids and ends of its secrets."""
    app = this(context)
    app.show(app.call("vault.client.show", t.ClientNamed(client=client)))


@app.command()
def delete(context: typer.Context, client: Client) -> None:
    """Remove a client with its secrets, and from every access policy. Its next call is refused."""
    app = this(context)
    app.confirm(f"Remove the client {client}? Programs that use it stop working.")
    app.show(app.call("vault.client.delete", t.ClientNamed(client=client)))


@secret.callback()
def vault_client_secret() -> None:
    """What a client signs in with. To replace one: add the next, hand it over, remove the last."""


@secret.command()
def add(context: typer.Context, client: Client, lifetime: Lifetime = None, output: Output = None) -> None:
    """Give a client one more secret; those it has stay good."""
    app = this(context)
    request = t.ClientSecretAdd(client=client, lifetime=None if lifetime is None else duration(lifetime))
    _show(app, app.call("vault.client.secret.add", request), output)


@secret.command()
def remove(
    context: typer.Context,
    client: Client,
    secret: Annotated[str, typer.Argument(metavar="ID", help="Of the secret, as `vault client show` lists it.")],
) -> None:
    """Take a secret from a client. Access tokens that came of it end by themselves, within the hour."""
    app = this(context)
    app.show(app.call("vault.client.secret.remove", t.ClientSecretNamed(client=client, secret=secret)))


def _show(app: "App", view: t.ClientSecretShown, output: Path | None) -> None:
    if app.keep_secret(output, view.client_secret):
        app.show(document(view) | {"client_secret": None, "secret_file": str(output)})
    else:
        app.say("the secret is shown this once")
        app.show(view)
