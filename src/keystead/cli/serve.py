"""`keystead serve`."""

from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.app import this

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def serve(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="HOST:PORT or unix:PATH, in place of the configured one; port 0 takes a free one.")
    ] = "",
    webdav: Annotated[
        str, typer.Option(metavar="ADDRESS", help="HOST:PORT for WebDAV on sites, in place of the configured one; port 0 takes a free one.")
    ] = "",
    processes: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="How many processes share the address.")] = 1,
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the address there when calls are taken; removed at the end.")
    ] = None,
) -> None:
    """Answer calls over HTTP, and run jobs beside, until interrupted (Ctrl-C, or SIGTERM).

    Calls under way are finished first; a second signal stops at once. Without TLS only this machine's own addresses are listened on.
    """
    current = this(context)
    home = current.options.home_path
    current.plan("serve", {"home": str(home), "listen": listen, "webdav": webdav, "processes": processes})
    from keystead.serving import run_servers

    def announced(url: str, webdav_url: str) -> None:
        if webdav_url:
            current.say(f"WebDAV at {webdav_url}; sign in with a UPN, and a token as the password")
        current.say(f"serving {home} at {url}; stop with Ctrl-C")

    run_servers(home, listen=listen, webdav=webdav, processes=processes, ready_file=ready_file, announced=announced)
