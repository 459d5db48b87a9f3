"""One node as a machine: boot it, power it off, cut its power, enter it."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from exlb_fab.errors import LabError
from exlb_fab.lab import cgroups, network
from exlb_fab.lab.host import program_environment
from exlb_fab.lab.image import Image
from exlb_fab.lab.launch import last_line, launch
from exlb_fab.lab.layout import LAB_BRIDGE, REPOSITORY_IN_NODE, LabLayout, NodeLayout, command
from exlb_fab.lab.waiting import until

_BOOT_SCRIPT = Path(__file__).with_name("boot.sh")
_START_LIMIT_S = 20
_POWEROFF_TRIES = 20
_CUT_LIMIT_S = 2
_POWEROFF_TRY_S = 3
_SIGNAL_POWEROFF = signal.SIGRTMIN + 4  # systemd(1), SIGNALS


def is_running(node: NodeLayout) -> bool:
    """Tell whether the machine has any process."""
    return bool(cgroups.processes(node.cgroup))


def leader(node: NodeLayout) -> int | None:
    """Return the process that is process 1 of the machine, None while there is none."""
    own_depth = len(_pids_by_namespace("self"))
    for pid in cgroups.processes(node.cgroup):
        inner = _pids_by_namespace(str(pid))
        if len(inner) == own_depth + 1 and inner[-1] == "1":
            return pid
    return None


def _pids_by_namespace(pid: str) -> list[str]:
    """Return a process's ids from our PID namespace down to its own, outermost first; none if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])


def require_leader(node: NodeLayout) -> int:
    """Return the process that is process 1 of the machine; raises LabError if it is off."""
    pid = leader(node)
    if pid is None:
        raise LabError(f"{node.node} is off", hint=command("boot", node.lab, node.node.name))
    return pid


def start(lab: LabLayout, node: NodeLayout, image: Image) -> int:
    """Start the machine, if it is not running, and return its leader; its systemd is not ready yet.

    Raises LabError with the last line of its console.
    """
    if not is_running(node):
        cgroups.remove(node.cgroup)
        cgroups.make(node.cgroup)
        for name in ("work", "root"):
            (node.disk / name).mkdir(mode=0o755, exist_ok=True)
        launch(
            _boot_words(lab, node, image),
            group=node.cgroup,
            log=node.console_log,
            env=program_environment(**_nspawn_variables()),
        )

    def own_network() -> int | None:
        pid = leader(node)
        return pid if pid is not None and network.has_own_namespace(lab, pid) else None

    def started_or_dead() -> bool:
        return own_network() is not None or not is_running(node)

    until(started_or_dead, limit_s=_START_LIMIT_S)
    pid = own_network()
    if pid is None:
        raise LabError(f"{node.node} does not boot: {last_line(node.console_log)}", hint=f"less {node.console_log}")
    return pid


def _boot_words(lab: LabLayout, node: NodeLayout, image: Image) -> list[str]:
    arguments = [
        str(image.root),
        str(node.disk),
        str(lab.namespace_file),
        LAB_BRIDGE,
        node.machine,
        node.node.name,
        str(image.repository),
        REPOSITORY_IN_NODE,
    ]
    return ["unshare", "--mount", "--propagation", "slave", "--", "/bin/sh", str(_BOOT_SCRIPT), *arguments]


def _nspawn_variables() -> dict[str, str]:
    # On a hybrid host nspawn would otherwise give the node the version 1 hierarchies, which new systemds refuse.
    return {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} if cgroups.has_unified_hierarchy() else {}


def power_off(node: NodeLayout) -> None:
    """Have the machine's systemd power it off, and wait until it is off; raises LabError at the limit."""
    for _ in range(_POWEROFF_TRIES):
        # Again and again: a systemd that has only just started does not listen yet.
        if (pid := leader(node)) is not None:
            cgroups.send(node.cgroup, _SIGNAL_POWEROFF, only=pid)
            _resume_entered(pid)
        if until(lambda: not is_running(node), limit_s=_POWEROFF_TRY_S):
            cgroups.remove(node.cgroup)
            return
    limit_s = _POWEROFF_TRIES * _POWEROFF_TRY_S
    raise LabError(f"{node.node} is not off after {limit_s} s", hint=command("cut", node.lab, node.node.name))


def _resume_entered(pid: int) -> None:
    """Resume the nsenters of programs that were run inside: each stops with its program, and so keeps it a zombie.

    systemd-shutdown stops all processes of the machine before it kills them, and then waits for the last of them.
    """
    words = f"nsenter\0--target={pid}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if (process / "cmdline").read_bytes().startswith(words):
                os.kill(int(process.name), signal.SIGCONT)


def cut_power(node: NodeLayout) -> None:
    """Kill everything of the machine at once."""
    # With process 1 of a PID namespace the kernel kills all others in it: nobody in there gets to say goodbye, or to
    # see another one die first. Those outside of it end by themselves then, or are killed.
    if (pid := leader(node)) is not None:
        cgroups.send(node.cgroup, signal.SIGKILL, only=pid)
        until(lambda: not is_running(node), limit_s=_CUT_LIMIT_S)
    cgroups.kill(node.cgroup)
    cgroups.remove(node.cgroup)


def words_inside(node: NodeLayout, words: Sequence[str]) -> list[str]:
    """Return the words that run `words` as root in all namespaces of the machine; raises LabError if it is off."""
    pid = require_leader(node)
    environment = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "LANG=C.UTF-8",
        "TERM=dumb",
    ]
    enter = ["nsenter", f"--target={pid}", "--all", "--root", "--wd", "--"]
    return [*enter, "/usr/bin/env", "-i", *environment, *words]
