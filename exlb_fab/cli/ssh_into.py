"""`exlb ssh`, as Typer sees it."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from exlb_fab.cli.common import Common, run, with_common
from exlb_fab.cluster import Cluster
from exlb_fab.commands.ssh_into import SshIntoOptions, ssh_into
from exlb_fab.errors import ExlbError, UsageError
from exlb_fab.fleet import Fleet


@with_common
def ssh_command(
    ctx: typer.Context,
    common: Common,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its name or address.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- CMD]", help="A command and its words; else a shell.")
    ] = None,
) -> None:
    """Log in to a node with the system's ssh, which takes the place of exlb.

    Example: exlb ssh lb1 -- systemctl status keepalived
    """
    if common.globs:
        raise typer.BadParameter("the node is the argument", param_hint="--nodes")
    options = SshIntoOptions(node, tuple(command or ()), common.host_key_check)

    def replaced(cluster: Cluster, _: Fleet) -> NoReturn:
        words = ssh_into(cluster, options)
        sys.stderr.flush()
        try:
            os.execvp(words[0], words)  # noqa: S606 - a list of words, and no shell
        except FileNotFoundError as error:
            raise UsageError("there is no ssh on this host", hint="install the OpenSSH client") from error
        except OSError as error:
            raise ExlbError(f"ssh does not start: {error.strerror}") from error

    run(ctx, common, replaced)
