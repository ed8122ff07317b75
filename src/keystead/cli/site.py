"""`keystead site`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from keystead.api.errors import EXIT_REFUSED
from keystead.api.types import sites as t
from keystead.cli.app import refuse_usage, this
from keystead.cli.output import clean, document
from keystead.cli.progress import bytes_bar
from keystead.cli.values import fresh_file
from keystead.client.site_files import get_file, get_tree, list_tree, put_file, put_tree, tree_bytes
from keystead.core.stores.paths import join_path, split_path

app = typer.Typer(rich_markup_mode=None, add_completion=False)
member = typer.Typer(rich_markup_mode=None, add_completion=False)
app.add_typer(member, name="member")

Url = Annotated[str, typer.Argument(metavar="URL", help="URL or id of a site.")]
Where = Annotated[str, typer.Argument(metavar="PATH", help="Names joined by /, from the top of the site.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="A folder with everything in it.")]
Person = Annotated[str, typer.Argument(metavar="UPN")]
FILES = ("kind", "size_bytes", "modified", "version", "path")


@app.callback()
def site() -> None:
    """Sites and the files in them."""


@app.command()
def create(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="https, a host, and up to three names.")],
    geo: Annotated[str, typer.Option(metavar="GEO", help="Where it lies; the tenant's only geo by default.")] = "",
    kind: Annotated[Literal["site", "onedrive", "team"], typer.Option(help="A site, a personal drive, or the folders of a team.")] = "site",
    owner: Annotated[str, typer.Option(metavar="UPN", help="Whose it is; whoever makes it by default.")] = "",
    private: Annotated[bool, typer.Option("--private", help="For its owner and members alone; a personal drive always is.")] = False,
) -> None:
    """Make a site. Everybody may make a personal drive of their own; other sites are made by administrators."""
    app = this(context)
    app.show(app.call("site.create", t.CreateSite(url=url, geo=geo, kind=kind, owner=owner, private=private)))


@app.command("list")
def list_sites(
    context: typer.Context,
    geo: Annotated[str, typer.Option(metavar="GEO", help="Of one geo.")] = "",
    after: Annotated[str, typer.Option(metavar="URL", help="Those after this one.")] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many at most.")] = 100,
) -> None:
    """List sites: all of the tenant for administrators, else those the caller may use."""
    app = this(context)
    app.show(app.call("site.list", t.ListSites(geo=geo, after=after, limit=limit)), ("url", "kind", "geo", "owner", "files", "size_bytes"))


@app.command()
def status(context: typer.Context, url: Url) -> None:
    """Show how the files of a site are encrypted, and how far a move of them is. Refused where no customer keys are set up."""
    app = this(context)
    app.show(app.call("site.status", t.NameSite(site=url)))


@app.command("set")
def set_site(
    context: typer.Context,
    url: Url,
    owner: Annotated[str | None, typer.Option(metavar="UPN", help="Whose it is.")] = None,
    shared: Annotated[bool | None, typer.Option("--shared/--private", help="For all people of the tenant, or owner and members.")] = None,
    quota: Annotated[int | None, typer.Option(metavar="BYTES", min=0, help="How much its current versions may hold.")] = None,
) -> None:
    """Change a site's owner, whether it is shared, or its quota."""
    app = this(context)
    if owner is None and shared is None and quota is None:
        refuse_usage("nothing is to be changed", "give --owner, --shared, --private or --quota")
    app.show(app.call("site.set", t.SetSite(site=url, owner=owner, shared=shared, quota_bytes=quota)))


@app.command()
def delete(context: typer.Context, url: Url) -> None:
    """Delete a site and everything in it, for good."""
    app = this(context)
    app.confirm(f"Delete the site {url} and everything in it for good?")
    app.show(app.call("site.delete", t.NameSite(site=url)))


# -- members ------------------------------------------------------------------------------------------------------------------------


@member.callback()
def site_member() -> None:
    """Who may use a site beside its owner."""


@member.command()
def add(context: typer.Context, url: Url, upn: Person) -> None:
    """Let a person use a site."""
    app = this(context)
    app.show(app.call("site.member.add", t.SiteMember(site=url, member=upn)))


@member.command()
def remove(context: typer.Context, url: Url, upn: Person) -> None:
    """Let a person use a site no longer."""
    app = this(context)
    app.show(app.call("site.member.remove", t.SiteMember(site=url, member=upn)))


@member.command("list")
def list_members(context: typer.Context, url: Url) -> None:
    """Show who may use a site."""
    app = this(context)
    app.show(app.call("site.member.list", t.NameSite(site=url)))


# -- files --------------------------------------------------------------------------------------------------------------------------


@app.command()
def ls(
    context: typer.Context,
    url: Url,
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="A folder; the top of the site by default.")] = "",
    recursive: Annotated[bool, typer.Option("--recursive", help="What is in its folders, too.")] = False,
) -> None:
    """List what lies in a folder."""
    app = this(context)
    app.show(app.using(lambda client: list(list_tree(client, url, path, recursive=recursive))), FILES)


@app.command()
def put(
    context: typer.Context,
    url: Url,
    local: Annotated[Path, typer.Argument(metavar="LOCAL", help="A file, or with --recursive a folder.")],
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="The file's path, or a folder with / behind it; the top by default.")] = "",
    recursive: Annotated[bool, typer.Option("--recursive", help="What is in the folder LOCAL, into the folder PATH.")] = False,
) -> None:
    """Bring files into a site; they are safe when it returns. Putting again what has not changed makes no new version.

    Symbolic links are not followed. A local file whose name cannot be one in a site is left out, and reported with exit code 3.
    """
    app = this(context)
    if recursive:
        total = tree_bytes(local)
        app.plan("site.put", {"site": url, "local": str(local), "path": path, "total_bytes": total})
        with bytes_bar("putting", total) as update:
            result = app.using(lambda client: put_tree(client, url, local, path, update))
        app.show(result)
        for one in result.refused:
            app.warn(f"{one.path} was not put there: {one.reason}; rename it")
        if result.refused:
            raise typer.Exit(EXIT_REFUSED)
        return
    target = join_path((*split_path(path), local.name)) if not path or path.endswith("/") else path
    app.plan("site.put", {"site": url, "local": str(local), "path": target})
    with bytes_bar("putting", local.stat().st_size if local.is_file() else 0) as update:
        app.show(app.using(lambda client: put_file(client, url, local, target, update)))


@app.command()
def get(
    context: typer.Context,
    url: Url,
    path: Where,
    output: Annotated[Path, typer.Option(metavar="LOCAL", help="The file, or with --recursive the new or empty folder, that is written.")],
    recursive: Annotated[bool, typer.Option("--recursive", help="What is in the folder PATH, into the folder LOCAL.")] = False,
    version: Annotated[int | None, typer.Option(metavar="N", min=1, help="An older version of a file.")] = None,
) -> None:
    """Write files of a site to local ones, each whole or not at all, with their times. What is there is replaced with --yes alone."""
    app = this(context)
    if recursive:
        if version is not None:
            refuse_usage("a folder has no versions", "give --version or --recursive, not both")
        with bytes_bar("getting", 0) as update:
            app.show(app.using(lambda client: get_tree(client, url, path, output, overwrite=app.options.yes, on_progress=update)))
        return
    names = split_path(path)
    target = output / names[-1] if names and output.is_dir() else output
    fresh_file(target, overwrite=app.options.yes)
    with bytes_bar("getting", 0) as update:
        view = app.using(lambda client: get_file(client, url, path, target, version=version, on_progress=update))
    app.show(document(view, output=str(target)))


@app.command()
def mkdir(
    context: typer.Context,
    url: Url,
    path: Where,
    parents: Annotated[bool, typer.Option("--parents", help="The folders above it too; one that is there is taken for made.")] = False,
) -> None:
    """Make a folder."""
    app = this(context)
    app.show(app.call("site.mkdir", t.MakeFolder(site=url, path=path, parents=parents)))


@app.command()
def mv(
    context: typer.Context,
    url: Url,
    path: Where,
    to: Annotated[str, typer.Argument(metavar="TO", help="Its new path in the same site.")],
    replace: Annotated[bool, typer.Option("--replace", help="In place of a file that is there.")] = False,
) -> None:
    """Rename or move a file or folder."""
    app = this(context)
    app.show(app.call("site.mv", t.MoveFile(site=url, path=path, to=to, replace=replace)))


@app.command()
def rm(context: typer.Context, url: Url, path: Where, recursive: Recursive = False) -> None:
    """Delete a file with its versions, or a folder, for good."""
    app = this(context)
    app.confirm(f"Delete {clean(path)} of {url} for good?")
    app.show(app.call("site.rm", t.RemoveFile(site=url, path=path, recursive=recursive)))


@app.command()
def unlock(context: typer.Context, url: Url) -> None:
    """End all locks that clients of WebDAV hold in a site. Its owner may, and for what is no personal drive an administrator."""
    app = this(context)
    app.show(app.call("site.unlock", t.NameSite(site=url)))


@app.command()
def versions(context: typer.Context, url: Url, path: Where) -> None:
    """List the versions of a file, newest first."""
    app = this(context)
    app.show(app.call("site.versions", t.NameFile(site=url, path=path)))


@app.command("restore-version")
def restore_version(
    context: typer.Context,
    url: Url,
    path: Where,
    version: Annotated[int, typer.Option(metavar="N", min=1, help="Number of the old version.")],
) -> None:
    """Make a new version of a file with the content of an old one."""
    app = this(context)
    app.show(app.call("site.restore-version", t.RestoreVersion(site=url, path=path, version=version)))
