"""exlb lab: real machines on this host, to rehearse on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import typer

from exlb_fab import lab as labs
from exlb_fab.errors import ExlbError, UsageError
from exlb_fab.events import Event
from exlb_fab.lab import Lab
from exlb_fab.report import Screen
from exlb_fab.report.labs import lab_ready, lab_table

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Real systemd machines on this host, in a network of their own, to rehearse on.",
)

Name = Annotated[str, typer.Option("--name", metavar="LAB", help="Which lab; several may exist side by side.")]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="A node of the lab: lb1, lb2, ...")]


@contextmanager
def _told() -> Iterator[Screen]:
    """Turn errors into message, hint and exit code."""
    screen = Screen(verbose=False)
    try:
        yield screen
    except ExlbError as error:
        screen.error(error)
        raise typer.Exit(error.exit_code) from None


@app.command()
def up(
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", min=1, help="How many load-balancer nodes.", show_default="3, or one of each release"),
    ] = None,
    releases: Annotated[
        str,
        typer.Option(
            "--releases",
            metavar="A,B,...",
            help=f"What they run, in order: {', '.join(labs.RELEASES)}; mixed if several.",
        ),
    ] = labs.DEFAULT_RELEASE,
    name: Name = "default",
) -> None:
    """Make or complete a lab; returns when every node answers over SSH.

    Example: exlb lab up && exlb lab run -- exlb deploy
    """
    with _told() as screen:
        made = Lab.up(name, nodes, releases.split(","), lambda text: screen.emit(Event("step", text)))
        screen.stdout.print(lab_ready(made.status()))


@app.command()
def down(name: Name = "default") -> None:
    """Take a lab down; nothing of it stays but the image cache.

    Example: exlb lab down --name demo
    """
    with _told() as screen:
        existed = name in labs.labs()
        labs.down(name)
        screen.stdout.print(f"lab {name} is down" if existed else f"there is no lab {name}")


@app.command("list")
def list_labs() -> None:
    """Show the names of the labs that there are.

    Example: exlb lab list
    """
    with _told() as screen:
        screen.stdout.print("\n".join(labs.labs()) or "there is no lab")


@app.command()
def status(name: Name = "default") -> None:
    """Show the nodes of a lab.

    Example: exlb lab status
    """
    with _told() as screen:
        screen.stdout.print(lab_table(Lab.open(name).status()))


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD", help="The command and its words.")],
    name: Name = "default",
) -> None:
    """Run a command on the lab's bastion, with EXLB_ENV set.

    Example: exlb lab run -- exlb verify
    """
    _replace(name, lambda lab: lab.argv(command))


@app.command()
def shell(name: Name = "default") -> None:
    """Open a shell on the lab's bastion.

    Example: exlb lab shell
    """
    _replace(name, lambda lab: lab.argv([os.environ.get("SHELL", "/bin/sh")]))


@app.command(context_settings={"allow_interspersed_args": False})
def ssh(
    node: NodeName,
    command: Annotated[list[str] | None, typer.Argument(metavar="CMD", help="A command; else a shell.")] = None,
    name: Name = "default",
) -> None:
    """Log in to a node with the ordinary ssh.

    Example: exlb lab ssh lb1 journalctl -u keepalived
    """
    words = command[1:] if command and command[0] == "--" else command
    _replace(name, lambda lab: lab.ssh_argv(node, words or ()))


@app.command()
def poweroff(node: NodeName, name: Name = "default") -> None:
    """Shut a node down in order.

    Example: exlb lab poweroff lb1
    """
    _act(name, f"{node} is off", lambda lab: lab.poweroff(node))


@app.command()
def cut(node: NodeName, name: Name = "default") -> None:
    """Cut a node's power.

    Example: exlb lab cut lb1
    """
    _act(name, f"{node} has no power", lambda lab: lab.cut(node))


@app.command()
def boot(node: NodeName, name: Name = "default") -> None:
    """Switch a node on again; returns when it answers over SSH.

    Example: exlb lab boot lb1
    """
    _act(name, f"{node} is up", lambda lab: lab.boot(node))


@app.command()
def partition(node: NodeName, name: Name = "default") -> None:
    """Cut a node off the network, silently: its link stays up.

    Example: exlb lab partition lb1
    """
    _act(name, f"{node} is cut off", lambda lab: lab.partition(node))


@app.command()
def heal(node: NodeName, name: Name = "default") -> None:
    """End a partition.

    Example: exlb lab heal lb1
    """
    _act(name, f"{node} is back on the network", lambda lab: lab.heal(node))


@app.command()
def apiserver(
    node: NodeName,
    mode: Annotated[
        Literal["ok", "unhealthy", "hung", "unauthorized", "foreign", "off"],
        typer.Argument(help="How it answers from now on."),
    ],
    name: Name = "default",
) -> None:
    """Set how the kube-apiserver stand-in of a node answers.

    Example: exlb lab apiserver lb2 unhealthy
    """
    _act(name, f"the kube-apiserver stand-in of {node}: {mode}", lambda lab: lab.apiserver(node, mode))


def _act(name: str, done: str, action: Callable[[Lab], None]) -> None:
    with _told() as screen:
        action(Lab.open(name))
        screen.stdout.print(done)


def _replace(name: str, words: Callable[[Lab], list[str]]) -> None:
    """Become the command: its terminal, signals and exit status are the operator's own."""
    with _told():
        lab = Lab.open(name)
        argv = words(lab)
        try:
            os.execvpe(argv[0], argv, lab.command_environment())  # noqa: S606 - replacing this process is the point
        except OSError as error:
            raise UsageError(f"{argv[0]}: {error.strerror}") from error
