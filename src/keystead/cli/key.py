"""`keystead key` and `keystead key rotation-policy`."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from keystead.api.types import vaults as t
from keystead.api.types.policies import KeyUses, NameKey
from keystead.cli.app import App, this
from keystead.cli.output import document
from keystead.cli.values import fresh_file, read_small, read_text, tags, time, words_or_none
from keystead.client.local_files import write_file
from keystead.core.errors import NotFound, Refused

app = typer.Typer(rich_markup_mode=None, add_completion=False)
policy = typer.Typer(rich_markup_mode=None, add_completion=False)
app.add_typer(policy, name="rotation-policy")

Vault = Annotated[str, typer.Argument(metavar="VAULT")]
Name = Annotated[str, typer.Argument(metavar="NAME")]
Version = Annotated[str | None, typer.Option(metavar="VERSION", help="32 hexadecimal digits.")]
Ops = Annotated[list[str] | None, typer.Option(metavar="LIST", help="What the key may be used for, such as wrapKey,unwrapKey.")]
NotBefore = Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601.")]
Expires = Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601; keys of policies have none.")]
Tag = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")]
Disabled = Annotated[bool, typer.Option("--disabled", help="Not to be used until it is enabled.")]
COLUMNS = ("name", "kty", "size", "enabled", "expires", "id")


@app.callback()
def key() -> None:
    """Root keys. A key prints `id`, its full URI with version, and `base_id`, without."""


@app.command()
def create(
    context: typer.Context,
    vault: Vault,
    name: Name,
    kty: Annotated[Literal["RSA", "RSA-HSM", "EC", "EC-HSM"], typer.Option(help="Policies need RSA or RSA-HSM.")] = "RSA",
    size: Annotated[int | None, typer.Option(metavar="BITS", help="2048, 3072 or 4096 for RSA.")] = None,
    curve: Annotated[str | None, typer.Option(metavar="NAME", help="For EC: P-256, P-256K, P-384 or P-521.")] = None,
    ops: Ops = None,
    disabled: Disabled = False,
    not_before: NotBefore = None,
    expires: Expires = None,
    tag: Tag = None,
) -> None:
    """Make a key; under a name that exists, a new version that becomes the current one."""
    app = this(context)
    request = t.KeyCreate(
        vault=vault,
        name=name,
        kty=kty,
        size=size,
        curve=curve,
        ops=words_or_none(ops),
        enabled=not disabled,
        not_before=time(not_before),
        expires=time(expires),
        tags=tags(tag),
    )
    app.show(app.call("key.create", request))


@app.command("import")
def import_key(
    context: typer.Context,
    vault: Vault,
    name: Name,
    pem_file: Annotated[Path, typer.Option(metavar="FILE", help="The private key, PKCS #8 in PEM without a password.")],
    hsm: Annotated[bool, typer.Option("--hsm", help="As an RSA-HSM or EC-HSM key.")] = False,
    ops: Ops = None,
    disabled: Disabled = False,
    not_before: NotBefore = None,
    expires: Expires = None,
    tag: Tag = None,
) -> None:
    """Bring a key of your own. It cannot be read out again, by anybody."""
    app = this(context)
    request = t.KeyImport(
        vault=vault,
        name=name,
        pem=read_text(pem_file),
        hsm=hsm,
        ops=words_or_none(ops),
        enabled=not disabled,
        not_before=time(not_before),
        expires=time(expires),
        tags=tags(tag),
    )
    app.show(app.call("key.import", request))


@app.command("list")
def list_keys(
    context: typer.Context,
    vault: Vault,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that can be recovered.")] = False,
    limit: Annotated[int, typer.Option(metavar="N")] = t.DEFAULT_PAGE,
    after: Annotated[str, typer.Option(metavar="NAME", help="Those after this name.")] = "",
) -> None:
    """List the keys of a vault, each with its current version."""
    app = this(context)
    if deleted:
        app.show(app.call("key.deleted", t.VaultNamed(vault=vault)), ("name", "deleted", "scheduled_purge", "base_id"))
    else:
        app.show(app.call("key.list", t.KeyList(vault=vault, limit=limit, after=after)), COLUMNS)


@app.command()
def show(context: typer.Context, vault: Vault, name: Name, version: Version = None) -> None:
    """Show a key: the current version, or the one named."""
    app = this(context)
    app.show(app.call("key.show", t.KeyVersionNamed(vault=vault, name=name, version=version)))


@app.command()
def versions(context: typer.Context, vault: Vault, name: Name) -> None:
    """List all versions of a key."""
    app = this(context)
    app.show(app.call("key.versions", t.KeyNamed(vault=vault, name=name)), ("version", "enabled", "created", "expires", "id"))


@app.command()
def enable(context: typer.Context, vault: Vault, name: Name, version: Version = None) -> None:
    """Enable a version, or all of them."""
    app = this(context)
    app.show(app.call("key.enable", t.KeyVersionNamed(vault=vault, name=name, version=version)))


@app.command()
def disable(context: typer.Context, vault: Vault, name: Name, version: Version = None) -> None:
    """Disable a version, or all of them. Says first what stops opening."""
    app = this(context)
    warnings = warn_of_uses(app, vault, name, version)
    app.show(document(app.call("key.disable", t.KeyVersionNamed(vault=vault, name=name, version=version)), warnings=warnings))


@app.command()
def update(
    context: typer.Context,
    vault: Vault,
    name: Name,
    version: Version = None,
    ops: Ops = None,
    not_before: NotBefore = None,
    expires: Expires = None,
    tag: Tag = None,
) -> None:
    """Change attributes of a version, the current one by default. What is not named stays; an expiry date cannot be removed."""
    app = this(context)
    request = t.KeyUpdate(
        vault=vault,
        name=name,
        version=version,
        ops=words_or_none(ops),
        not_before=msgspec.UNSET if not_before is None else time(not_before),
        expires=msgspec.UNSET if expires is None else time(expires),
        tags=tags(tag) if tag else None,
    )
    app.show(app.call("key.update", request))


@app.command()
def rotate(context: typer.Context, vault: Vault, name: Name) -> None:
    """Make a new current version of the same kind. Policies use it after `policy refresh`; keep the old version until then."""
    app = this(context)
    app.show(app.call("key.rotate", t.KeyNamed(vault=vault, name=name)))


@app.command()
def backup(
    context: typer.Context,
    vault: Vault,
    name: Name,
    output: Annotated[Path, typer.Option(metavar="FILE", help="A file, or a folder for a file of the suggested name.")],
) -> None:
    """Write a sealed backup of a key with all its versions; it opens in a key vault only."""
    app = this(context)
    view: t.KeyBackupView = app.call("key.backup", t.KeyNamed(vault=vault, name=name))
    target = output / Path(view.suggested_name).name if output.is_dir() else output
    write_file(fresh_file(target, overwrite=app.options.yes), [view.blob])
    app.show({"id": view.id, "vault": view.vault, "name": view.name, "output": str(target), "size_bytes": len(view.blob)})


@app.command()
def restore(context: typer.Context, vault: Vault, input: Annotated[Path, typer.Option(metavar="FILE", help="A key backup.")]) -> None:
    """Restore a key from a backup, with all versions, into a vault of the same subscription and geography."""
    app = this(context)
    app.show(app.call("key.restore", t.KeyRestore(vault=vault, blob=read_small(input))))


@app.command()
def delete(context: typer.Context, vault: Vault, name: Name) -> None:
    """Delete a key with all its versions. It can be recovered until its retention ends. Says first what stops opening."""
    app = this(context)
    warnings = warn_of_uses(app, vault, name, None)
    app.confirm(f"Delete the key {name} in the vault {vault}?")
    app.show(document(app.call("key.delete", t.KeyNamed(vault=vault, name=name)), warnings=warnings))


@app.command()
def recover(context: typer.Context, vault: Vault, name: Name) -> None:
    """Bring a deleted key back."""
    app = this(context)
    app.show(app.call("key.recover", t.KeyNamed(vault=vault, name=name)))


@app.command()
def purge(context: typer.Context, vault: Vault, name: Name) -> None:
    """Destroy a deleted key for good."""
    app = this(context)
    app.confirm(f"Destroy the deleted key {name} in the vault {vault} for good?")
    app.show(app.call("key.purge", t.KeyNamed(vault=vault, name=name)))


# -- rotation policy -------------------------------------------------------------------------------------------------------------------


@policy.callback()
def rotation_policy() -> None:
    """When a key gets a new version by itself, and when its end is told of in the vault's log."""


@policy.command("show")
def show_policy(context: typer.Context, vault: Vault, name: Name) -> None:
    """Show a key's rotation policy, and when the current version is rotated by it."""
    app = this(context)
    app.show(app.call("key.rotation-policy.show", t.KeyNamed(vault=vault, name=name)))


@policy.command("set")
def set_policy(
    context: typer.Context,
    vault: Vault,
    name: Name,
    rotate_after: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Rotate so long after a version was made: P90D, P6M, P1Y; 7 days at least.")
    ] = None,
    rotate_before_expiry: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Rotate so long before a version expires; needs --expiry-time.")
    ] = None,
    notify_before_expiry: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Tell of the end so long before; by default not at all once a policy is set.")
    ] = None,
    expiry_time: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long each new version lives; 28 days at least. Keys of policies have no expiry."),
    ] = None,
) -> None:
    """Replace a key's rotation policy; without options nothing happens by itself any more. Versions that are there keep their dates."""
    app = this(context)
    given = (("Rotate", rotate_after, rotate_before_expiry), ("Notify", None, notify_before_expiry))
    request = t.RotationPolicySet(
        vault=vault,
        name=name,
        lifetime_actions=[
            t.RotationAction(action=action, time_after_create=after, time_before_expiry=before)
            for action, after, before in given
            if after is not None or before is not None
        ],
        expiry_time=expiry_time,
    )
    app.show(app.call("key.rotation-policy.set", request))


def warn_of_uses(app: App, vault: str, name: str, version: str | None) -> list[str]:
    """Say on stderr, once for each, which copies are wrapped by a key that is about to stop working (R-158).

    Vault and service share nothing, so the question goes through the client. Whoever may not ask is let through: a customer may always
    take a key away.
    """
    try:
        shown: t.KeyView = app.call("key.show", t.KeyVersionNamed(vault=vault, name=name, version=version))
        found: KeyUses = app.call("policy.key-uses", NameKey(key=shown.id if version else shown.base_id))
    except (Refused, NotFound):
        return []
    warnings = [f"{use} is wrapped by this key, and depends on its other copies once it is gone" for use in found.uses]
    for warning in warnings:
        app.warn(warning)
    return warnings
