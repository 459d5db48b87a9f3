"""The commands below `exlb backend`, as Typer sees them."""

from __future__ import annotations

from typing import Annotated

import typer

from exlb_fab.cli.common import Common, run, with_common
from exlb_fab.commands.backend import BackendListOptions, BackendOptions, backend, backend_list

WAIT_SECONDS = 600

Name = Annotated[str, typer.Argument(metavar="NAME", help="The server's name, address or host, or a pattern of these.")]
OfListener = Annotated[
    str | None, typer.Option("--listener", "-l", metavar="LISTENER", help="Behind this listener only.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it has no session any more on any node.")]
WaitLimit = Annotated[
    int, typer.Option("--wait-limit", min=1, metavar="SECONDS", help="How long --wait waits.", show_default=True)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Go on without asking, also where clients will be refused.")]
LockWait = Annotated[
    int, typer.Option("--lock-wait", min=0, metavar="SECONDS", help="How long to wait for another session's lock.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; touch nothing.")]

app = typer.Typer(no_args_is_help=True, help="Drain a backend before its upgrade, and bring it back.")


@app.command("list")
@with_common
def list_command(ctx: typer.Context, common: Common, listener: OfListener = None) -> None:
    """Show every backend as the proxy of each node sees it, and what is drained.

    Example: exlb backend list --listener kube-master
    """
    options = BackendListOptions(common.globs, listener)
    run(ctx, common, lambda cluster, fleet: backend_list(cluster, options, fleet))


@app.command("drain")
@with_common
def drain_command(
    ctx: typer.Context,
    common: Common,
    name: Name,
    listener: OfListener = None,
    wait: Wait = False,
    wait_limit: WaitLimit = WAIT_SECONDS,
    lock_wait: LockWait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Send no new connection to a backend on any node; what it has, it keeps.

    Example: exlb backend drain 198.51.100.11 --wait
    """
    limit = wait_limit if wait else None
    _change(ctx, common, BackendOptions("drain", name, common.globs, listener, limit, lock_wait, yes, dry_run))


@app.command("disable")
@with_common
def disable_command(
    ctx: typer.Context,
    common: Common,
    name: Name,
    listener: OfListener = None,
    wait: Wait = False,
    wait_limit: WaitLimit = WAIT_SECONDS,
    lock_wait: LockWait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Do the same, and check its health no more.

    Example: exlb backend disable 198.51.100.11
    """
    limit = wait_limit if wait else None
    _change(ctx, common, BackendOptions("disable", name, common.globs, listener, limit, lock_wait, yes, dry_run))


@app.command("ready")
@with_common
def ready_command(
    ctx: typer.Context,
    common: Common,
    name: Name,
    listener: OfListener = None,
    lock_wait: LockWait = 0,
    dry_run: DryRun = False,
) -> None:
    """Send a backend connections again, as its health check allows.

    Example: exlb backend ready 198.51.100.11
    """
    _change(
        ctx, common, BackendOptions("ready", name, common.globs, listener, lock_wait_seconds=lock_wait, dry_run=dry_run)
    )


def _change(ctx: typer.Context, common: Common, options: BackendOptions) -> None:
    run(ctx, common, lambda cluster, fleet: backend(cluster, options, fleet))
