"""The lock of a session: one program per node that holds it, for as long as we are there and say so."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable
from types import TracebackType

from exlb_fab import node as programs
from exlb_fab.answers import parse_holder
from exlb_fab.cluster import Node
from exlb_fab.errors import ExlbError, LockedError, RemoteError
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet
from exlb_fab.remote import BEAT_SECONDS, Channel, Remote

ANSWER_SECONDS = 20
RETRY_SECONDS = 1
MARK = "exlb-lock: "


def operator() -> tuple[str, str]:
    """Return who is at work and on which host, as the nodes keep it: a number, or a dash, where there is no name."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a user without an entry, as in a container
        who = str(os.getuid())
    return who, socket.gethostname() or "-"


class Lock:
    """Holds nodes for one session, all or none; enter it before the first change, leave it after the last.

    The nodes are tried in the order of their addresses, so that of two sessions one gets all. `token` proves to the
    node's own programs that they run for the session that holds it. Entering raises LockedError at the first node that
    another session holds, after `wait_seconds` of trying, and UnreachableError or RemoteError.
    """

    def __init__(self, nodes: Iterable[Node], fleet: Fleet, what: str, wait_seconds: float = 0) -> None:
        self.token = secrets.token_hex(8)
        self._nodes = sorted(nodes, key=lambda node: int(node.address))
        self._fleet = fleet
        self._what = what
        self._wait_seconds = wait_seconds
        self._held: list[Channel] = []
        self._lost: str | None = None
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Lock:
        deadline = time.monotonic() + self._wait_seconds
        self._beating.start()
        try:
            while (busy := self._take_all()) is not None:
                if time.monotonic() >= deadline or self._fleet.stopped:
                    raise busy
                time.sleep(RETRY_SECONDS)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _take_all(self) -> LockedError | None:
        """Take every node, or release all and return why not."""
        for node in self._nodes:
            taken = self._fleet.tidy([node], self._take)
            for error in taken.errors.values():
                self._release()
                if not isinstance(error, LockedError):
                    raise error
                return error
            self._held.extend(taken.values.values())
        return None

    def _take(self, node: Node, remote: Remote) -> Channel:
        args = (self.token, *operator(), self._what)
        channel = remote.open(programs.lock(), args)
        try:
            said = channel.line(ANSWER_SECONDS)
            if said == f"{MARK}held":
                return channel
            lines = []
            while (line := channel.line(ANSWER_SECONDS)) is not None:
                lines.append(line)
        except ExlbError:
            channel.close()
            raise
        channel.close()
        if said != f"{MARK}busy":
            raise RemoteError(f"{node}: cannot be locked: {(said or 'no answer').removeprefix(MARK)}")
        holder = parse_holder("\n".join(lines)) or "another session"
        raise LockedError(
            f"{node} is locked by {holder}\nnothing was changed on any node",
            hint="--lock-wait SECONDS waits for it; exlb lock status shows who holds what",
        )

    def lost(self) -> str | None:
        """Return why a node is not held any more, None where all are: a node is held no more once it was lost."""
        self._say()
        return self._lost

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self._say()

    def _say(self) -> None:
        """Say to every node that we are there. One that is lost notices by itself, and refuses our next program."""
        for channel in list(self._held):
            try:
                channel.send("\n")
            except ExlbError as error:
                if channel in self._held:  # and was not released just now
                    self._lost = error.message
                self._fleet.emit(Event("detail", f"the lock is lost: {error.message}"))

    def _release(self) -> None:
        while self._held:
            self._held.pop().close()

    def _end(self) -> None:
        self._ended.set()
        self._release()
