"""What all commands have in common: their flags, and the one way in which a command is run."""

from __future__ import annotations

import getpass
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import typer

from exlb_fab import environment
from exlb_fab.cli.interrupt import Interrupt
from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import Report
from exlb_fab.errors import EXIT_INTERRUPTED, ExlbError, UsageError
from exlb_fab.events import Emit, Event
from exlb_fab.fleet import Fleet
from exlb_fab.remote import Connect
from exlb_fab.report import Screen, answer
from exlb_fab.understanding import InvalidEnvironment, load

PARALLEL_DEFAULT = 32

R = TypeVar("R", bound=Report)

TemplateDir = Annotated[
    Path | None,
    typer.Option(
        "--template-dir", metavar="DIR", exists=True, file_okay=False, help="Templates that replace exlb's by name."
    ),
]
ExpectNoApiserver = Annotated[
    bool,
    typer.Option("--expect-no-apiserver", help="Before `kubeadm init`: the entrance stands, no backend lives yet."),
]
OnlyChecks = Annotated[
    list[str] | None, typer.Option("--only", metavar="ID|FAMILY", help="Ask these checks alone; may be repeated.")
]
SkipChecks = Annotated[
    list[str] | None, typer.Option("--skip", metavar="ID|FAMILY", help="Leave these checks out; may be repeated.")
]
ListChecks = Annotated[bool, typer.Option("--list", help="Show what is asked; no node is contacted.")]


@dataclass(frozen=True, slots=True)
class Common:
    """The flags of every command; the annotations are what Typer reads."""

    env: Annotated[
        Path | None,
        typer.Option("--env", "-e", metavar="FILE", help="Environment file; else $EXLB_ENV, else ./environment.sh."),
    ] = None
    nodes: Annotated[
        list[str] | None,
        typer.Option("--nodes", "-n", metavar="GLOB", help="Only these nodes, by name or address; may be repeated."),
    ] = None
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, help="How many nodes are worked on at once, where order is free.")
    ] = PARALLEL_DEFAULT
    output: Annotated[
        Literal["table", "json"], typer.Option("--output", "-o", help="What stdout gets: tables or JSON.")
    ] = "table"
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell more on stderr, traffic included.")] = False
    host_key_check: Annotated[
        Literal["strict", "accept-new", "no"],
        typer.Option("--host-key-check", help="What to do with a host key that known_hosts does not have."),
    ] = "strict"
    ask_sudo_pass: Annotated[
        bool, typer.Option("--ask-sudo-pass", help="Ask once for the password that sudo wants on the nodes.")
    ] = False
    timeout: Annotated[
        int, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long one program may run on a node.")
    ] = 600

    @property
    def globs(self) -> tuple[str, ...]:
        return globs(self.nodes)


def globs(values: Iterable[str] | None) -> tuple[str, ...]:
    """Return the globs of an option that may be repeated, and may have several separated by commas."""
    return tuple(glob for each in values or () for glob in each.split(",") if glob)


@dataclass(frozen=True, slots=True)
class Changing:
    """The flags of every command that changes nodes with the order and the gates of a push."""

    skip_unreachable: Annotated[
        bool, typer.Option("--skip-unreachable", help="Go on without nodes that cannot be reached.")
    ] = False
    lock_wait: Annotated[
        int, typer.Option("--lock-wait", min=0, metavar="SECONDS", help="How long to wait for another session's lock.")
    ] = 0
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Go on without asking, whatever it costs.")] = False
    on_failure: Annotated[
        Literal["stop", "rollback-all"],
        typer.Option("--on-failure", help="Whether nodes that are done stay so, or go back as well."),
    ] = "stop"

    def options(self, common: Common) -> dict[str, Any]:
        """Return them as the commands' options have them."""
        return {
            "nodes": common.globs,
            "skip_unreachable": self.skip_unreachable,
            "lock_wait_seconds": self.lock_wait,
            "yes": self.yes,
            "on_failure": self.on_failure,
        }


class Connector(Protocol):
    """Opens connections for one run; the tests hand in another than SSH."""

    def __call__(self, cluster: Cluster, common: Common, emit: Emit) -> tuple[Connect, Callable[[], None]]: ...


def with_common(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common flags behind its own; it gets them as one `common`, and the Typer context first.

    One that takes a `changing` gets the flags of a change as well. A flag of its own takes the place of a common one of
    the same name.
    """
    named = inspect.signature(command, eval_str=True).parameters
    groups = {name: kind for name, kind in (("changing", Changing), ("common", Common)) if name in named}
    own = [parameter for name, parameter in named.items() if name not in ("ctx", *groups)]
    offered = [each for kind in groups.values() for each in inspect.signature(kind, eval_str=True).parameters.values()]
    shared = [each for each in offered if each.name not in named]

    @wraps(command)
    def wrapper(ctx: typer.Context, **values: Any) -> None:
        grouped = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind) if field.name not in named})
            for name, kind in groups.items()
        }
        command(ctx, **grouped, **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("ctx", keyword, annotation=typer.Context)]
    parameters += [parameter.replace(kind=keyword) for parameter in (*own, *shared)]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def run(
    ctx: typer.Context,
    common: Common,
    work: Callable[[Cluster, Fleet], R],
    screen: Screen | None = None,
    tell: Callable[[Screen, R], None] | None = None,
) -> None:
    """Read the environment file, carry one command out, print its report, and exit as the report says.

    `tell` prints it in another way than that of all commands.
    """
    screen = screen or Screen(verbose=common.verbose)
    with ending(screen):
        raise typer.Exit(_run(ctx, common, work, screen, tell or (lambda to, report: show(to, common.output, report))))


@contextmanager
def ending(screen: Screen) -> Iterator[None]:
    """Turn what fails into its message, its hint and its exit code."""
    try:
        yield
    except ExlbError as error:
        screen.error(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _run(
    ctx: typer.Context,
    common: Common,
    work: Callable[[Cluster, Fleet], R],
    screen: Screen,
    tell: Callable[[Screen, R], None],
) -> int:
    cluster = _load(common, screen)
    connector: Connector = ctx.obj or _over_ssh
    connect, close = connector(cluster, common, screen.emit)
    stop = threading.Event()
    with Interrupt(stop, screen.emit):
        try:
            with Fleet(connect, screen.emit, stop, common.parallel, _confirm if sys.stdin.isatty() else None) as fleet:
                report = work(cluster, fleet)
        finally:
            close()
    tell(screen, report)
    return EXIT_INTERRUPTED if stop.is_set() else report.exit_code


def _load(common: Common, screen: Screen) -> Cluster:
    """Read the environment file; its warnings are shown first, because they may tell where its faults come from."""
    try:
        cluster = load(environment.find(common.env, os.environ, Path.cwd()))
    except InvalidEnvironment as error:
        _warn(error.warnings, screen)
        raise
    _warn(cluster.warnings, screen)
    return cluster


def _warn(warnings: Iterable[str], screen: Screen) -> None:
    for warning in warnings:
        screen.emit(Event("warning", f"warning: {warning}"))


def show(screen: Screen, output: str, report: Report) -> None:
    """Print a report on stdout. Raises ExlbError where that cannot be written to."""
    with to_stdout():
        if output == "json":
            screen.raw(report.model_dump_json(indent=2))
        else:
            screen.stdout.print(answer(report), crop=False)


@contextmanager
def to_stdout() -> Iterator[None]:
    """Write something to stdout, now. Raises ExlbError where that cannot be written to."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise ExlbError(f"the answer cannot be written to stdout: {error.strerror}") from error


def _over_ssh(cluster: Cluster, common: Common, emit: Emit) -> tuple[Connect, Callable[[], None]]:
    # Fabric takes a fifth of a second to import, which `exlb --help` and `exlb render` need not wait for.
    from exlb_fab.ssh import SshConnector, SshOptions

    password = _ask("sudo password on the nodes") if common.ask_sudo_pass else None
    options = SshOptions(
        host_key_check=common.host_key_check,
        sudo_password=password,
        ask=_ask if sys.stdin.isatty() else None,
    )
    made = SshConnector(cluster.ssh, options, emit)

    def close() -> None:
        made.close()
        emit(Event("detail", f"traffic: {made.traffic}"))

    return made, close


def _confirm(question: str) -> bool:
    return typer.confirm(question, err=True)


def _ask(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(f"there is no terminal to ask for: {prompt}")
    return getpass.getpass(f"{prompt}: ")
