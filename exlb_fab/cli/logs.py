"""`exlb logs`, as Typer sees it."""

from __future__ import annotations

from typing import Annotated

import typer

from exlb_fab.cli.common import Common, run, to_stdout, with_common
from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import select
from exlb_fab.commands.logs import LINES, MOST_LINES, LogLine, LogsOptions, LogsReport, follow, logs
from exlb_fab.errors import UsageError
from exlb_fab.fleet import Fleet
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES
from exlb_fab.report import printer

UNITS = " | ".join((*(proxy.unit for proxy in PROXIES.values()), KEEPALIVED_UNIT, "all"))


@with_common
def logs_command(
    ctx: typer.Context,
    common: Common,
    unit: Annotated[str, typer.Argument(metavar="UNIT", help=UNITS)] = "all",
    following: Annotated[bool, typer.Option("--follow", "-f", help="Show what comes, too, until Ctrl-C.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="As journalctl takes it, in the time of the nodes.")
    ] = "",
    lines: Annotated[
        int | None,
        typer.Option("--lines", min=0, metavar="N", help=f"So many of each node; {LINES}, with --since {MOST_LINES}."),
    ] = None,
    transitions: Annotated[bool, typer.Option("--transitions", help="Only the changes of the VRRP state.")] = False,
) -> None:
    """Show the journals of all nodes as one, by time (UTC).

    Example: exlb logs keepalived --transitions --since '1 hour ago'
    """
    options = LogsOptions(None if unit == "all" else unit, common.globs, since, lines, transitions, common.timeout)

    def command(cluster: Cluster, fleet: Fleet) -> LogsReport:
        if not following:
            return logs(cluster, options, fleet)
        if common.output != "table":
            raise UsageError("--follow shows lines as they come, and ends with no answer", hint="exlb logs -o json")
        if common.parallel < len(select(cluster, common.globs)):
            raise UsageError("--follow needs all nodes at once", hint="leave --parallel out, or choose --nodes")
        to_screen = printer()

        def tell(line: LogLine) -> None:
            with to_stdout():
                to_screen(line)

        return follow(cluster, options, fleet, tell)

    run(ctx, common, command)
