"""The command line: flags -> one command, one report -> exit code; no logic."""

from exlb_fab.cli.app import app


def main() -> None:
    """Run exlb."""
    app(prog_name="exlb")


__all__ = ["app", "main"]
