"""exlb drill: a failover on purpose, and the folder that its report is kept in."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from exlb_fab.cli.common import Common, TemplateDir, ending, run, show, with_common
from exlb_fab.commands.drill import Choice, DrillOptions, drill
from exlb_fab.commands.drill_report import DrillReport
from exlb_fab.errors import UsageError
from exlb_fab.events import Event
from exlb_fab.report import Screen
from exlb_fab.report.drill import check_folder, keep


@with_common
def drill_command(
    ctx: typer.Context,
    common: Common,
    fault: Annotated[
        Choice,
        typer.Argument(help="What happens to the holder; kill: signal 9 to keepalived; all: one after the other."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Go on without asking.")] = False,
    allow_poweroff: Annotated[
        bool, typer.Option("--allow-poweroff", help="The holder may be powered off, by node or all; needs --power-on.")
    ] = False,
    power_on: Annotated[
        str | None,
        typer.Option(
            "--power-on", metavar="COMMAND", help="Run here to power it on; finds $EXLB_NODE and $EXLB_ADDRESS."
        ),
    ] = None,
    reports: Annotated[
        Path | None, typer.Option("--reports", metavar="DIR", help="Where the folder of the report is made.")
    ] = None,
    lock_wait: Annotated[
        int, typer.Option("--lock-wait", min=0, metavar="SECONDS", help="How long to wait for another session's lock.")
    ] = 0,
    template_dir: TemplateDir = None,
) -> None:
    """Inject a fault on the holder of the VIP, measure what clients notice, and undo it.

    Example: exlb drill proxy
    """
    if common.globs:
        raise typer.BadParameter("the fault is on the holder, and all nodes watch", param_hint="--nodes")
    options = DrillOptions(fault, yes, lock_wait, allow_poweroff, power_on, template_dir)
    screen = Screen(verbose=common.verbose)
    with ending(screen):
        folder = (reports or _home()) / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{fault}-{os.getpid()}"
        check_folder(folder)
    try:
        run(ctx, common, lambda cluster, fleet: drill(cluster, options, fleet), screen, _keeping(folder, common.output))
    finally:
        if not any(folder.iterdir()):  # nothing was drilled
            folder.rmdir()


def _keeping(folder: Path, output: str) -> Callable[[Screen, DrillReport], None]:
    def tell(screen: Screen, report: DrillReport) -> None:
        try:
            keep(report, folder)  # first: whoever reads stdout may be gone by now
        finally:
            show(screen, output, report)  # in any case: a drill cannot be repeated for its answer
        screen.emit(Event("done", f"the report is in {folder}"))

    return tell


def _home() -> Path:
    """Return where reports are kept. Source: XDG Base Directory Specification, XDG_STATE_HOME.

    Raises UsageError where the user has no home.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        return (Path(state) if state.startswith("/") else Path.home() / ".local/state") / "exlb/drills"
    except RuntimeError as error:
        raise UsageError(f"no place for the report: {error}", hint="--reports DIR names one") from error
