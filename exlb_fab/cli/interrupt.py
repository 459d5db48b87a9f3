"""Ctrl-C: the first lets what runs end in order, the second ends at once; the exit code is 130 both times."""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
from types import FrameType, TracebackType

from exlb_fab.errors import EXIT_INTERRUPTED
from exlb_fab.events import Emit, Event


class Interrupt:
    """Sets `stop` at the first SIGINT while it is open, and leaves the process at the second."""

    def __init__(self, stop: threading.Event, emit: Emit) -> None:
        self._stop = stop
        self._emit = emit
        self._before: object = None
        self._terminal: list[object] | None = None

    def __enter__(self) -> Interrupt:
        # A passphrase prompt in another thread may have the echo off when the process leaves.
        if sys.stdin.isatty():
            self._terminal = termios.tcgetattr(sys.stdin)
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stop.is_set():
            if self._terminal is not None:
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._terminal)  # type: ignore[arg-type]
            os._exit(EXIT_INTERRUPTED)
        self._stop.set()
        # From a thread of its own: the handler may have interrupted the holder of the screen's lock.
        text = "interrupted: what runs ends, nothing new starts; Ctrl-C again ends at once"
        threading.Thread(target=self._emit, args=(Event("warning", text),), daemon=True).start()
