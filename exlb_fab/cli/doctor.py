"""exlb doctor: what a first install would stand on."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from exlb_fab.cli.common import (
    Common,
    ExpectNoApiserver,
    ListChecks,
    OnlyChecks,
    SkipChecks,
    ending,
    globs,
    run,
    show,
    to_stdout,
    with_common,
)
from exlb_fab.commands.doctor import DOCTOR, DoctorOptions, DoctorReport, doctor
from exlb_fab.commands.questionnaire import Selection, check_list
from exlb_fab.report import Screen
from exlb_fab.report.junit import junit


@with_common
def doctor_command(
    ctx: typer.Context,
    common: Common,
    expect_no_apiserver: ExpectNoApiserver = False,
    only: OnlyChecks = None,
    skip: SkipChecks = None,
    list_checks: ListChecks = False,
    output: Annotated[
        Literal["table", "json", "junit"], typer.Option("--output", "-o", help="What stdout gets.")
    ] = "table",
) -> None:
    """Find out before a first install what would keep the entrance from working; change nothing.

    Example: exlb doctor --expect-no-apiserver
    """
    if output == "junit" and list_checks:
        raise typer.BadParameter("junit is for a look at the nodes", param_hint="--output")
    screen = Screen(verbose=common.verbose)
    chosen = Selection(globs(only), globs(skip))
    with ending(screen):
        if list_checks:
            show(screen, output, check_list(chosen, DOCTOR))
            return

    def tell(to: Screen, report: DoctorReport) -> None:
        if output == "junit":
            with to_stdout():
                to.raw(junit(report))
        else:
            show(to, output, report)

    options = DoctorOptions(common.globs, expect_no_apiserver, chosen)
    run(ctx, common, lambda cluster, fleet: doctor(cluster, options, fleet), screen, tell)
