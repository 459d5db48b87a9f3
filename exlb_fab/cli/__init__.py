"""The command line: flags -> one command, one report -> exit code; no logic."""

import io
import sys

from exlb_fab.cli.app import app


def main() -> None:
    """Run exlb."""
    for stream in (sys.stdout, sys.stderr):
        # A sign that the terminal's encoding does not have is no reason to lose an answer.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="exlb")


__all__ = ["app", "main"]
