"""`exlb status` and `exlb top`, as Typer sees them."""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Literal

import typer

from exlb_fab.cli.common import Common, run, with_common
from exlb_fab.cluster import Cluster
from exlb_fab.commands.status import StatusOptions, StatusReport, status, watch
from exlb_fab.errors import UsageError
from exlb_fab.fleet import Fleet
from exlb_fab.report import Screen, answer


@with_common
def status_command(ctx: typer.Context, common: Common) -> None:
    """Show who holds the VIP since when, the nodes and their backends, on one screen.

    Example: exlb status
    """
    options = StatusOptions(common.globs)
    run(ctx, common, lambda cluster, fleet: status(cluster, options, fleet))


@with_common
def top_command(
    ctx: typer.Context,
    common: Common,
    refresh: Annotated[float, typer.Option("--refresh", min=0.5, metavar="SECONDS", help="How often it looks.")] = 2.0,
    # In the place of the common one, because a screen has no other shape.
    output: Annotated[Literal["table"], typer.Option("--output", "-o", hidden=True)] = "table",  # noqa: ARG001
) -> None:
    """Show the same, live, until Ctrl-C.

    Example: exlb top --refresh 5
    """
    options = StatusOptions(common.globs)
    screen = Screen(verbose=common.verbose)

    def rounds(cluster: Cluster, fleet: Fleet) -> StatusReport:
        if not screen.can_refresh:
            raise UsageError("top needs a terminal that can be refreshed", hint="exlb status")
        reports = watch(cluster, options, fleet, refresh)
        # The terminal is not taken before: to connect may ask for a passphrase.
        first = next(reports, None)
        if first is None:
            raise KeyboardInterrupt
        last = first
        with screen.place(f"exlb top, every {refresh:g} s; Ctrl-C ends") as place:
            for last in chain([first], reports):
                place.show(answer(last))
        return last

    run(ctx, common, rounds, screen)
