"""The commands, as Typer sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exlb_fab import __version__
from exlb_fab.cli import backend, drill, lab, logs, ssh_into, status
from exlb_fab.cli.common import Changing, Common, ExpectNoApiserver, TemplateDir, run, with_common
from exlb_fab.cli.doctor import doctor_command
from exlb_fab.cli.verify import verify_command
from exlb_fab.cluster import Cluster
from exlb_fab.commands.changing import ChangeOptions
from exlb_fab.commands.config import config
from exlb_fab.commands.decommission import DecommissionOptions, decommission
from exlb_fab.commands.deploy import DeployOptions, deploy
from exlb_fab.commands.diff import DiffOptions, diff
from exlb_fab.commands.execute import ExecOptions, execute
from exlb_fab.commands.history import HistoryOptions, history
from exlb_fab.commands.install import InstallOptions, install
from exlb_fab.commands.lock import LockOptions, lock_status
from exlb_fab.commands.push_config import PushOptions, push_config
from exlb_fab.commands.recover import recover
from exlb_fab.commands.render import RenderOptions, RenderReport, render
from exlb_fab.commands.render import target as render_target
from exlb_fab.commands.restart import RestartOptions, restart
from exlb_fab.commands.rollback import RollbackOptions, rollback
from exlb_fab.commands.uninstall import UninstallOptions, uninstall
from exlb_fab.commands.verify import VerifyOptions
from exlb_fab.environment import example
from exlb_fab.fleet import Fleet
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES

CHANGE = "Change the nodes"
LOOK = "Look"
REHEARSE = "Rehearse"
UNITS = " | ".join((*(proxy.unit for proxy in PROXIES.values()), KEEPALIVED_UNIT))

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Deploy and operate a highly available entrance to a Kubernetes control plane.",
)
app.add_typer(lab.app, name="lab", rich_help_panel=REHEARSE)
locks = typer.Typer(no_args_is_help=True, help="Look at the locks that sessions hold on the nodes.")
app.add_typer(locks, name="lock", rich_help_panel=LOOK)
app.add_typer(backend.app, name="backend", rich_help_panel=CHANGE)
app.command("drill", rich_help_panel=REHEARSE)(drill.drill_command)
app.command("status", rich_help_panel=LOOK)(status.status_command)
app.command("top", rich_help_panel=LOOK)(status.top_command)
app.command("logs", rich_help_panel=LOOK)(logs.logs_command)
app.command("ssh", rich_help_panel=LOOK)(ssh_into.ssh_command)

Unvalidated = Annotated[
    bool, typer.Option("--unvalidated", help="Go on also where keepalived is too old to validate (below 2.0.4).")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and the differences; touch nothing.")]

Purge = Annotated[bool, typer.Option("--purge", help="Remove the packages that exlb installed, too.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"exlb {__version__}")
        raise typer.Exit


def _example(wanted: bool) -> None:
    if wanted:
        typer.echo(example(), nl=False)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Deploy and operate a highly available entrance to a Kubernetes control plane."""
    del version


@app.command("deploy", rich_help_panel=CHANGE)
@with_common
def deploy_command(
    ctx: typer.Context,
    common: Common,
    changing: Changing,
    template_dir: TemplateDir = None,
    expect_no_apiserver: ExpectNoApiserver = False,
) -> None:
    """Install, push the configuration, verify.

    Example: exlb deploy
    """
    options = DeployOptions(
        InstallOptions(**changing.options(common), limit_seconds=common.timeout),
        PushOptions(**changing.options(common), templates=template_dir),
        VerifyOptions(common.globs, expect_no_apiserver, template_dir),
    )
    run(ctx, common, lambda cluster, fleet: deploy(cluster, options, fleet))


@app.command("install", rich_help_panel=CHANGE)
@with_common
def install_command(
    ctx: typer.Context,
    common: Common,
    changing: Changing,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Bring the packages to their newest versions, one node at a time.")
    ] = False,
    package_lock_wait: Annotated[
        int,
        typer.Option(
            "--package-lock-wait", min=0, metavar="SECONDS", help="How long to wait for another package manager."
        ),
    ] = 120,
) -> None:
    """Install the proxy, keepalived and their tools by each node's own package manager.

    Example: exlb install --nodes 'lb*'
    """
    options = InstallOptions(
        **changing.options(common),
        limit_seconds=common.timeout,
        package_lock_seconds=package_lock_wait,
        upgrade=upgrade,
    )
    run(ctx, common, lambda cluster, fleet: install(cluster, options, fleet))


@app.command("push-config", rich_help_panel=CHANGE)
@with_common
def push_config_command(
    ctx: typer.Context,
    common: Common,
    changing: Changing,
    dry_run: DryRun = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="With --dry-run: exit 6 when changes are pending.")
    ] = False,
    unvalidated: Unvalidated = False,
    template_dir: TemplateDir = None,
) -> None:
    """Render, validate on every node and push the configuration, backups first.

    Example: exlb push-config --dry-run
    """
    if exit_code and not dry_run:
        raise typer.BadParameter("it needs --dry-run: a push exits by how it went", param_hint="--exit-code")
    options = PushOptions(
        **changing.options(common),
        dry_run=dry_run,
        pending_exit_code=exit_code,
        templates=template_dir,
        unvalidated=unvalidated,
    )
    run(ctx, common, lambda cluster, fleet: push_config(cluster, options, fleet))


@app.command("restart", rich_help_panel=CHANGE)
@with_common
def restart_command(
    ctx: typer.Context,
    common: Common,
    changing: Changing,
    unit: Annotated[str | None, typer.Argument(help=f"{UNITS}; both without.", metavar="UNIT")] = None,
) -> None:
    """Restart units one node at a time, the holder of the VIP last.

    Example: exlb restart keepalived
    """
    options = RestartOptions(**changing.options(common), unit=unit)
    run(ctx, common, lambda cluster, fleet: restart(cluster, options, fleet))


@app.command("rollback", rich_help_panel=CHANGE)
@with_common
def rollback_command(
    ctx: typer.Context,
    common: Common,
    changing: Changing,
    to: Annotated[
        int | None,
        typer.Option("--to", min=0, metavar="N", help="The generation to go back to; 0 is what was there before exlb."),
    ] = None,
    dry_run: DryRun = False,
    unvalidated: Unvalidated = False,
) -> None:
    """Bring the nodes back to an earlier generation, with the order and the gates of a push.

    Example: exlb rollback --to 7
    """
    options = RollbackOptions(**changing.options(common), to=to, dry_run=dry_run, unvalidated=unvalidated)
    run(ctx, common, lambda cluster, fleet: rollback(cluster, options, fleet))


@app.command("recover", rich_help_panel=CHANGE)
@with_common
def recover_command(ctx: typer.Context, common: Common, changing: Changing) -> None:
    """Bring nodes on which a change was interrupted back to one complete generation.

    Example: exlb recover
    """
    options = ChangeOptions(**changing.options(common))
    run(ctx, common, lambda cluster, fleet: recover(cluster, options, fleet))


@app.command("uninstall", rich_help_panel=CHANGE)
@with_common
def uninstall_command(
    ctx: typer.Context, common: Common, changing: Changing, purge: Purge = False, dry_run: DryRun = False
) -> None:
    """End the entrance: put back what was there before exlb, and leave nothing of exlb on the nodes.

    Example: exlb uninstall --purge --dry-run
    """
    options = UninstallOptions(**changing.options(common), purge=purge, dry_run=dry_run)
    run(ctx, common, lambda cluster, fleet: uninstall(cluster, options, fleet))


@app.command("decommission", rich_help_panel=CHANGE)
@with_common
def decommission_command(
    ctx: typer.Context,
    common: Common,
    changing: Changing,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its address, or a name that resolves to it.")],
    purge: Purge = False,
    dry_run: DryRun = False,
) -> None:
    """Clean a node that is out of NODE_IPS, after the push that has told the others.

    Example: exlb decommission 198.51.100.13 --purge
    """
    if common.globs:
        raise typer.BadParameter("the node is the argument", param_hint="--nodes")
    options = DecommissionOptions(**changing.options(common), purge=purge, dry_run=dry_run, node=node)
    run(ctx, common, lambda cluster, fleet: decommission(cluster, options, fleet))


@app.command("history", rich_help_panel=LOOK)
@with_common
def history_command(ctx: typer.Context, common: Common) -> None:
    """Show the generations that every node keeps: what changed, when, and who did it.

    Example: exlb history --nodes lb1
    """
    options = HistoryOptions(common.globs)
    run(ctx, common, lambda cluster, fleet: history(cluster, options, fleet))


@app.command("diff", rich_help_panel=LOOK)
@with_common
def diff_command(
    ctx: typer.Context,
    common: Common,
    template_dir: TemplateDir = None,
) -> None:
    """Show how the active files differ from what would be pushed; exit 6 where they do.

    Example: exlb diff --nodes lb1
    """
    options = DiffOptions(common.globs, template_dir)
    run(ctx, common, lambda cluster, fleet: diff(cluster, options, fleet))


@locks.command("status")
@with_common
def lock_status_command(ctx: typer.Context, common: Common) -> None:
    """Show who changes which node right now.

    Example: exlb lock status
    """
    options = LockOptions(common.globs)
    run(ctx, common, lambda cluster, fleet: lock_status(cluster, options, fleet))


app.command("verify", rich_help_panel=LOOK)(verify_command)
app.command("doctor", rich_help_panel=LOOK)(doctor_command)


@app.command("exec", rich_help_panel=CHANGE, context_settings={"ignore_unknown_options": False})
@with_common
def exec_command(
    ctx: typer.Context,
    common: Common,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD", help="The command and its words.")],
    sudo: Annotated[bool, typer.Option("--sudo", help="Run it as root.")] = False,
) -> None:
    """Run a command on every node; the worst exit status is the answer.

    Example: exlb exec --sudo -- journalctl -u keepalived -n 20
    """
    options = ExecOptions(tuple(command), common.globs, sudo, common.timeout)
    run(ctx, common, lambda cluster, fleet: execute(cluster, options, fleet))


@app.command("render", rich_help_panel=LOOK)
@with_common
def render_command(
    ctx: typer.Context,
    common: Common,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write the files to DIR/NODE/PATH instead.")
    ] = None,
    template_dir: TemplateDir = None,
    proxy_version: Annotated[
        str | None, typer.Option("--proxy-version", metavar="VERSION", help="For this version, not the newest.")
    ] = None,
    keepalived_version: Annotated[
        str | None, typer.Option("--keepalived-version", metavar="VERSION", help="For this version, not the newest.")
    ] = None,
    interface: Annotated[
        str | None, typer.Option("--interface", metavar="NAME", help="What VIP_IF=auto finds on the nodes.")
    ] = None,
) -> None:
    """Show the files of every node; no node is contacted.

    Example: exlb render --out /tmp/rendered
    """

    def command(cluster: Cluster, _: Fleet) -> RenderReport:
        target = render_target(proxy_version, keepalived_version, interface)
        return render(cluster, RenderOptions(common.globs, out, template_dir, target))

    run(ctx, common, command)


@app.command("config", rich_help_panel=LOOK)
@with_common
def config_command(
    ctx: typer.Context,
    common: Common,
    show_example: Annotated[
        bool,
        typer.Option("--example", callback=_example, is_eager=True, help="Print an example of the file and exit."),
    ] = False,
) -> None:
    """Show what was understood of the environment file, secrets masked.

    Example: exlb config -e /opt/k8s/bin/environment.sh
    """
    del show_example
    run(ctx, common, lambda cluster, _: config(cluster))
