"""`keystead policy`."""

from typing import Annotated, Literal

import typer

from keystead.api.types import policies as t
from keystead.cli.app import App, refuse_usage, this

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXIT_NOT_VALID = 3
Policy = Annotated[str, typer.Argument(metavar="POLICY", help="Name, id, or id of any of its versions.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits, '-', '_' or '.'.")]
Keys = Annotated[list[str], typer.Option("--key", metavar="BASE-URI", help="Give it twice: keys in two vaults, subscriptions and regions.")]
Workload = Annotated[Literal["mail"], typer.Option(help="What it is for.")]
Description = Annotated[str, typer.Option(metavar="TEXT")]
Disabled = Annotated[bool, typer.Option("--disabled", help="Not to be assigned until it is enabled.")]


@app.callback()
def policy() -> None:
    """Data encryption policies."""


@app.command()
def validate(
    context: typer.Context, name: Name, key: Keys, workload: Workload = "mail", description: Description = "", disabled: Disabled = False
) -> None:
    """Run every check that `policy create` runs, and report all that fail with what mends each. Makes nothing.

    Exit code 3 when a check failed.
    """
    app = this(context)
    view = _validate(app, t.CreatePolicy(name=name, keys=key, workload=workload, description=description, enabled=not disabled))
    if not view.valid:
        raise typer.Exit(EXIT_NOT_VALID)


@app.command()
def create(
    context: typer.Context, name: Name, key: Keys, workload: Workload = "mail", description: Description = "", disabled: Disabled = False
) -> None:
    """Make a policy from two keys. An availability key is made with it. With --what-if: `policy validate`."""
    app = this(context)
    request = t.CreatePolicy(name=name, keys=key, workload=workload, description=description, enabled=not disabled)
    if app.options.what_if:
        _validate(app, request)
    else:
        app.show(app.call("policy.create", request))


@app.command("list")
def list_policies(context: typer.Context) -> None:
    """List the tenant's policies."""
    app = this(context)
    app.show(app.call("policy.list", t.ListPolicies()), ("name", "workload", "enabled", "state", "health", "version", "id"))


@app.command()
def show(context: typer.Context, policy: Policy) -> None:
    """Show a policy, and which key version each of its copies is wrapped by."""
    _named(context, "policy.show", policy)


@app.command()
def refresh(context: typer.Context, policy: Policy) -> None:
    """Wrap the policy's key again with the current version of both customer keys. The policy gets a new version id."""
    _named(context, "policy.refresh", policy)


@app.command("set")
def set_policy(
    context: typer.Context,
    policy: Policy,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A new name.")] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="A new description.")] = None,
) -> None:
    """Rename or describe a policy."""
    app = this(context)
    if name is None and description is None:
        refuse_usage("nothing is to be changed", "give --name or --description")
    app.show(app.call("policy.set", t.SetPolicy(policy=policy, name=name, description=description)))


@app.command()
def enable(context: typer.Context, policy: Policy) -> None:
    """Allow a policy to be assigned."""
    _named(context, "policy.enable", policy)


@app.command()
def disable(context: typer.Context, policy: Policy) -> None:
    """Stop a policy from being assigned. What lies under it stays readable."""
    _named(context, "policy.disable", policy)


@app.command()
def health(context: typer.Context, policy: Policy) -> None:
    """Ask both keys now, and say what they answered: healthy, degraded, unreachable or denied."""
    _named(context, "policy.health", policy)


def _named(context: typer.Context, route: str, policy: str) -> None:
    app = this(context)
    app.show(app.call(route, t.NamePolicy(policy=policy)))


def _validate(app: App, request: t.CreatePolicy) -> t.ValidationView:
    view: t.ValidationView = app.call("policy.validate", request)
    app.show(view)
    return view
