"""exlb verify: the one command whose answer comes in many shapes, and again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import typer

from exlb_fab.cli.common import (
    Common,
    ExpectNoApiserver,
    ListChecks,
    OnlyChecks,
    SkipChecks,
    TemplateDir,
    ending,
    globs,
    run,
    show,
    to_stdout,
    with_common,
)
from exlb_fab.cluster import Cluster
from exlb_fab.commands.questionnaire import Selection, check_list
from exlb_fab.commands.verify import VERIFY, VerifyOptions, VerifyReport, verify, watch
from exlb_fab.fleet import Fleet
from exlb_fab.report import Screen
from exlb_fab.report.changes import Changes
from exlb_fab.report.html import check_place, page, write
from exlb_fab.report.junit import junit
from exlb_fab.report.tables import round_of_verify

PAUSE_DEFAULT_SECONDS = 2.0

Tell = Callable[[Screen, VerifyReport], None]


@with_common
def verify_command(
    ctx: typer.Context,
    common: Common,
    expect_no_apiserver: ExpectNoApiserver = False,
    template_dir: TemplateDir = None,
    only: OnlyChecks = None,
    skip: SkipChecks = None,
    list_checks: ListChecks = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one page, too.")
    ] = None,
    watching: Annotated[
        bool, typer.Option("--watch", help="Again and again until Ctrl-C, in place on a terminal.")
    ] = False,
    every: Annotated[
        float | None, typer.Option("--every", min=0.1, metavar="SECONDS", help="With --watch: the pause; 2 without.")
    ] = None,
    output: Annotated[
        Literal["table", "json", "junit"], typer.Option("--output", "-o", help="What stdout gets.")
    ] = "table",
) -> None:
    """Check every node, the VIP and the backends; green only if clients are served.

    Example: exlb verify -o json
    """
    if every is not None and not watching:
        raise typer.BadParameter("it needs --watch", param_hint="--every")
    if output == "junit" and (watching or list_checks):
        raise typer.BadParameter("junit is for one look at the nodes", param_hint="--output")
    if list_checks and (watching or html):
        raise typer.BadParameter("it looks at no node", param_hint="--list")
    screen = Screen(verbose=common.verbose)
    checks = Selection(globs(only), globs(skip))
    with ending(screen):
        if list_checks:
            show(screen, output, check_list(checks, VERIFY))
            return
        if html:
            check_place(html)
    options = VerifyOptions(common.globs, expect_no_apiserver, template_dir, checks)
    tell = _telling(output, html)
    if not watching:
        run(ctx, common, lambda cluster, fleet: verify(cluster, options, fleet), screen, tell)
        return

    def rounds(cluster: Cluster, fleet: Fleet) -> VerifyReport:
        reports = watch(cluster, options, fleet, pause_seconds)
        # The terminal is not taken before: to connect may ask for a passphrase.
        first = next(reports, None)
        if first is None:
            raise KeyboardInterrupt
        last = first
        with _watched(screen, output, pause_seconds) as next_round:
            for last in chain([first], reports):
                if html:
                    write(html, page(last))
                next_round(last)
        return last

    pause_seconds = every or PAUSE_DEFAULT_SECONDS
    in_place = output == "table" and screen.can_refresh
    run(ctx, common, rounds, screen, tell if in_place else lambda _, __: None)


def _telling(output: str, html: Path | None) -> Tell:
    def tell(screen: Screen, report: VerifyReport) -> None:
        try:
            if html:
                write(html, page(report))
        finally:
            if output == "junit":
                with to_stdout():
                    screen.raw(junit(report))
            else:
                show(screen, output, report)

    return tell


@contextmanager
def _watched(screen: Screen, output: str, pause_seconds: float) -> Iterator[Callable[[VerifyReport], None]]:
    """Give what shows a round: in place on a terminal, a line of JSON each, or a line for what has changed."""
    if output == "table" and screen.can_refresh:
        with screen.place(f"exlb verify, every {pause_seconds:g} s; Ctrl-C ends") as place:
            yield lambda report: place.show(round_of_verify(report))
        return
    changes = Changes()

    def in_lines(report: VerifyReport) -> None:
        lines = [report.model_dump_json()] if output == "json" else changes.lines(report)
        with to_stdout():
            for line in lines:
                screen.raw(line)

    yield in_lines
