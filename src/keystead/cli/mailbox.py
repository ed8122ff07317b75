"""`keystead mailbox`."""

import base64
from pathlib import Path
from typing import Annotated, Literal

import typer

from keystead.api.errors import EXIT_REFUSED
from keystead.api.types import mailboxes as t
from keystead.cli.app import App, refuse_usage, show_claim, this
from keystead.cli.output import document, emit
from keystead.cli.progress import bytes_bar, percent_bar
from keystead.cli.values import fresh_file
from keystead.client.exporting import export_items
from keystead.client.importing import import_source
from keystead.client.local_files import write_file
from keystead.client.sources import open_source

app = typer.Typer(rich_markup_mode=None, add_completion=False)

Upn = Annotated[str, typer.Argument(metavar="UPN")]
Item = Annotated[str, typer.Argument(metavar="ITEM", help="Id of an item.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait; a worker or `job wait` does the work.")]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many at most.")]


@app.callback()
def mailbox() -> None:
    """Mailboxes, what is in them, and the policy they are under."""


@app.command()
def create(
    context: typer.Context,
    upn: Upn,
    type: Annotated[Literal["user", "shared", "public-folder", "group", "mail-user"], typer.Option(help="What kind.")] = "user",
    unlicensed: Annotated[bool, typer.Option("--unlicensed", help="Without the licence that a policy needs.")] = False,
    claim_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the claim token there instead of showing it.")] = None,
) -> None:
    """Make a mailbox, and its person where there is none of that name yet; outside dev homes a new person gets a one-time claim token."""
    app = this(context)
    show_claim(app, app.call("mailbox.create", t.CreateMailbox(upn=upn, type=type, licensed=not unlicensed)), claim_file)


@app.command("import")
def import_mail(
    context: typer.Context,
    upn: Upn,
    source: Annotated[
        Path, typer.Option("--from", metavar="SOURCE", help="An mbox file, a Maildir, an .eml or .ics file, or a folder of these.")
    ],
) -> None:
    """Bring mail in. Each item is kept byte for byte and is safe when it is counted; importing again adds nothing.

    Malformed items are imported too, and reported. An item over the setting max_item_bytes is left out, and reported with exit code 3.
    """
    app = this(context)
    found = open_source(source)
    app.plan(
        "mailbox.import",
        {"upn": upn, "source": str(source), "kind": found.kind.value, "total_bytes": found.total_bytes, "skipped": found.skipped},
    )
    if found.skipped:
        app.say(f"{found.skipped} files are no mail and are passed over")
    with bytes_bar("importing", found.total_bytes) as update:
        result = app.using(lambda client: import_source(client, upn, found, update))
    app.show(result)
    for one in result.refused:
        app.warn(f"item {one.position} was not imported: {one.reason}; the setting max_item_bytes decides")
    if result.refused:
        raise typer.Exit(EXIT_REFUSED)


@app.command("export")
def export_mail(
    context: typer.Context, upn: Upn, output: Annotated[Path, typer.Option(metavar="FOLDER", help="A new or empty folder.")]
) -> None:
    """Write every item to a folder, as ITEM-ID.eml with its original bytes. With --yes into a folder that is not empty, too."""
    app = this(context)
    with percent_bar("exporting") as update:
        app.show(app.using(lambda client: export_items(client, upn, output, overwrite=app.options.yes, on_progress=update)))


@app.command("list")
def list_mailboxes(
    context: typer.Context, after: Annotated[str, typer.Option(metavar="UPN", help="Those after this one.")] = "", limit: Limit = 100
) -> None:
    """List the tenant's mailboxes."""
    app = this(context)
    app.show(app.call("mailbox.list", t.ListMailboxes(after=after, limit=limit)), ("upn", "type", "licensed", "policy_name", "id"))


@app.command()
def statistics(context: typer.Context, upn: Upn) -> None:
    """Show what a mailbox holds, under which policy version, and whether everything in it is encrypted under that."""
    app = this(context)
    app.show(app.call("mailbox.statistics", t.NameMailbox(upn=upn)))


@app.command()
def items(
    context: typer.Context,
    upn: Upn,
    after: Annotated[str, typer.Option(metavar="ITEM", help="Those after this one.")] = "",
    limit: Limit = 100,
) -> None:
    """List items, newest first: for the owner and whom the owner lets in."""
    app = this(context)
    found = app.call("mailbox.items", t.ListItems(upn=upn, after=after, limit=limit))
    app.show(found, ("id", "kind", "received", "size_bytes", "folder", "sender", "subject"))


@app.command()
def read(
    context: typer.Context,
    upn: Upn,
    item: Item,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there instead of showing it.")] = None,
) -> None:
    """Read an item: its original bytes."""
    app = this(context)
    content = app.call("mailbox.read", t.NameItem(upn=upn, item=item))
    if output is not None:
        write_file(fresh_file(output, overwrite=app.options.yes), content.chunks)
        app.show({"item": item, "size_bytes": content.size, "output": str(output)})
    elif app.options.json:
        data = b"".join(content.chunks)
        app.show({"item": item, "size_bytes": len(data), "data": base64.b64encode(data).decode()})
    else:
        for chunk in content.chunks:
            emit(chunk)


@app.command()
def search(
    context: typer.Context,
    upn: Annotated[str, typer.Argument(metavar="[UPN]", help="One mailbox; all of the tenant where none is named.")] = "",
    text: Annotated[str, typer.Option(metavar="TEXT", help="What to look for; upper and lower case are the same.")] = "",
    after: Annotated[str, typer.Option(metavar="UPN", help="Those in mailboxes after this one.")] = "",
    limit: Limit = 1000,
) -> None:
    """Find items that contain a text. Gives ids, never content; the text is stored nowhere."""
    app = this(context)
    if not text:
        refuse_usage("there is no text to look for", "give --text")
    found = app.call("mailbox.search", t.Search(text=text, upn=upn, after=after, limit=limit))
    app.show(found, ("mailbox", "item_id", "kind", "received", "size_bytes"))


@app.command()
def assign(
    context: typer.Context,
    policy: Annotated[str, typer.Option(metavar="POLICY", help="Name, id, or id of any of its versions.")],
    upn: Annotated[list[str] | None, typer.Argument(metavar="[UPN]...")] = None,
    all: Annotated[bool, typer.Option("--all", help="Every mailbox of the tenant that may have a policy.")] = False,
    no_wait: NoWait = False,
) -> None:
    """Put mailboxes under a policy: re-wrap their keys at once, then re-encrypt what is in them."""
    app = this(context)
    if bool(upn) == all:
        refuse_usage("mailboxes are named, or all are meant", "give UPNs, or --all")
    _finish(app, app.call("mailbox.assign", t.AssignPolicy(policy=policy, upns=upn or [], all=all)), wait=not no_wait)


@app.command()
def unassign(context: typer.Context, upn: Upn, no_wait: NoWait = False) -> None:
    """Put a mailbox back under the provider's keys. No data is lost; the customer's keys must stay usable until it is done."""
    app = this(context)
    app.confirm(f"Take the mailbox {upn} out of its policy, back under the provider's keys?")
    _finish(app, app.call("mailbox.unassign", t.UnassignPolicy(upn=upn)), wait=not no_wait)


@app.command("move-status")
def move_status(context: typer.Context, upn: Upn) -> None:
    """Show where a mailbox's change of policy stands."""
    app = this(context)
    app.show(app.call("mailbox.move-status", t.NameMailbox(upn=upn)))


@app.command()
def delegate(
    context: typer.Context,
    upn: Upn,
    to: Annotated[str, typer.Option(metavar="UPN", help="Who.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the access away.")] = False,
) -> None:
    """Let somebody else open a mailbox: for its owner; for shared kinds, for an administrator."""
    app = this(context)
    app.show(app.call("mailbox.delegate", t.DelegateRequest(upn=upn, delegate=to, remove=remove)))


@app.command()
def delete(context: typer.Context, upn: Upn) -> None:
    """Delete a mailbox and everything in it, for good."""
    app = this(context)
    app.confirm(f"Delete the mailbox {upn} and everything in it for good?")
    app.show(app.call("mailbox.delete", t.NameMailbox(upn=upn)))


@app.command("delete-item")
def delete_item(context: typer.Context, upn: Upn, item: Item) -> None:
    """Delete an item for good."""
    app = this(context)
    app.confirm(f"Delete the item {item} of {upn} for good?")
    app.show(app.call("mailbox.delete-item", t.NameItem(upn=upn, item=item)))


def _finish(app: App, assignment: t.AssignmentView, *, wait: bool) -> None:
    """Show an assignment; by default when its job is done, with how that ended."""
    if not wait or not assignment.job_id:
        app.show(assignment)
        return
    job = app.wait(assignment.job_id)
    details = {"job": job} if app.options.json else {}
    app.show(document(assignment, state=job.state, progress_percent=job.progress_percent, **details))
    app.finish_job(job)
