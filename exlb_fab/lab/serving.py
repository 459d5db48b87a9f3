"""What the stand-ins share: one thread per connection, until the process that is watched ends."""

import argparse
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable

LISTENS = "listens"  # the line that says it

_BREATH_S = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every stand-in has to be told."""
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--hostname", required=True, help="what it calls itself in its answers")
    parser.add_argument("--watch-pid", type=int, help="end when this process ends")


def run(options: argparse.Namespace, serve: Callable[[socket.socket], None]) -> int:
    """Have `serve` serve every connection to its end, in a thread of its own; return when the watched process ends."""
    watched = None
    if options.watch_pid is not None:
        try:
            watched = os.pidfd_open(options.watch_pid)
        except ProcessLookupError:
            return 0
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Several seconds of connections may wait in it.
    with socket.create_server((options.address, options.port), backlog=1024) as listener:
        print(LISTENS, flush=True)
        threading.Thread(target=_accept, args=(listener, serve), daemon=True).start()
        if watched is None:
            signal.pause()
        else:
            select.select([watched], [], [])
    return 0


def _accept(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()
        except (OSError, RuntimeError):
            # Out of descriptors or threads: those who wait get their turn.
            time.sleep(_BREATH_S)
