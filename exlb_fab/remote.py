"""What the rest of exlb may ask of a node, whatever carries it there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from exlb_fab.cluster import Node

BEAT_SECONDS = 5  # a program that is left open ends when it hears no line for 20 s. Source: node/session.sh


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended on a node."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """Return what it printed, stderr behind stdout."""
        return "\n".join(part.rstrip("\n") for part in (self.stdout, self.stderr) if part.strip())


class Channel(Protocol):
    """A program that runs on a node while its stdin is open.

    Both calls raise UnreachableError when the connection is lost.
    """

    def line(self, limit_seconds: float) -> str | None:
        """Return the next line of its stdout without its end, None when the program has ended.

        Raises RemoteError at the limit.
        """

    def send(self, text: str) -> None:
        """Write to its stdin."""

    def close(self) -> None:
        """End its stdin; never raises."""


class Remote(Protocol):
    """One node, connected.

    Both ways to run something raise UnreachableError when the connection is lost and RemoteError at the time limit, an
    OverdueError where the node has ended a program there.
    """

    def run(self, program: str, args: Sequence[str] = (), data: str = "", limit_seconds: float = 60) -> Completed:
        """Run a POSIX shell program as root, with positional parameters and `data` on its stdin.

        Neither program nor data appears in the node's process list. Raises PrivilegeError where root is refused.
        """

    def execute(self, command: Sequence[str], *, sudo: bool, limit_seconds: float) -> Completed:
        """Run one command line of the operator's."""

    def open(self, program: str, args: Sequence[str] = ()) -> Channel:
        """Start a program as `run` does, and leave its stdin open. Raises PrivilegeError where root is refused."""

    def close(self) -> None:
        """Close the connection; never raises."""


Connect = Callable[[Node], Remote]
