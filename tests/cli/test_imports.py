"""What is not needed is not loaded: speed is counted here, not timed."""

from __future__ import annotations

import subprocess
import sys


def loaded(code: str) -> set[str]:
    """Return the top-level packages that a fresh Python has loaded after some code."""
    tail = "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + tail], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_command_line_loads_no_ssh_before_a_node_is_contacted() -> None:
    assert not loaded("import exlb_fab.cli") & {"fabric", "paramiko", "invoke"}


def test_the_model_loads_no_terminal() -> None:
    modules = "planning, rendering, checks, client, facts, vrrp, fleet, rollout"
    others = {"rich", "typer", "click", "fabric", "pydantic", "cryptography", "ssl", "http"}
    assert not loaded(f"from exlb_fab import {modules}") & others
