"""Starting a process that outlives this one, in a control group of its own from its first moment."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from exlb_fab.errors import LabError
from exlb_fab.lab import cgroups

# Whoever is killed between starting it and admitting it to the group leaves a shell that reads end-of-file and exits.
_WAIT_FOR_GO = 'read -r go && exec setsid --fork "$@" </dev/null'


def launch(words: Sequence[str], *, group: str, log: Path, env: Mapping[str, str]) -> None:
    """Start `words` detached, in the (existing) group, its output in a new file `log`; raises LabError."""
    with log.open("wb") as output:
        launcher = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_FOR_GO, "exlb-lab", *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env=dict(env),
        )
        try:
            cgroups.admit(launcher.pid, group)
            launcher.communicate(b"go\n", timeout=10)
        except BaseException:
            launcher.kill()
            launcher.communicate()
            raise
    if launcher.returncode != 0:
        raise LabError(f"{words[0]} does not start: {last_line(log)}", hint=f"less {log}")


def last_line(log: Path) -> str:
    """Return the last line of a log, or words for its absence."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
