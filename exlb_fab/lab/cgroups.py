"""Control groups: each node in one of its own, on every hierarchy that the host mounts.

In a shared group the systemds of several nodes stop each other's services. The group is also what says which
processes are a node's: membership cannot be mistaken the way a recorded process id can, which a later process may bear.
"""

import errno
import os
import signal
from contextlib import suppress
from pathlib import Path

from exlb_fab.errors import LabError
from exlb_fab.lab.waiting import until

_ROOT = Path("/sys/fs/cgroup")
_KILL_LIMIT_S = 20
_REMOVE_LIMIT_S = 10


def parse_hierarchies(mounts: str) -> tuple[Path, ...]:
    """Return the mount points of version 1 and 2 hierarchies in the text of /proc/mounts."""
    fields = (line.split() for line in mounts.splitlines())
    found = (Path(field[1]) for field in fields if len(field) > 2 and field[2] in ("cgroup", "cgroup2"))
    # A container engine's own mounts of the same hierarchies lie elsewhere.
    return tuple(dict.fromkeys(path for path in found if path.is_relative_to(_ROOT)))


def hierarchies() -> tuple[Path, ...]:
    """Return the mount points of this host's hierarchies."""
    return parse_hierarchies(Path("/proc/self/mounts").read_text())


def has_unified_hierarchy() -> bool:
    """Tell whether the host mounts version 2, alone or beside version 1."""
    fields = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return any(field[2] == "cgroup2" for field in fields if len(field) > 2)


def make(group: str) -> None:
    """Make the group, and the groups above it, on every hierarchy."""
    for hierarchy in hierarchies():
        path = hierarchy
        for part in Path(group).parts:
            path /= part
            path.mkdir(exist_ok=True)
            # A version 1 cpuset admits nobody before it has processors and memory.
            for name in ("cpuset.cpus", "cpuset.mems"):
                values = path / name
                if hierarchy.name == "cpuset" and values.exists() and not values.read_text().strip():
                    values.write_text((path.parent / name).read_text())


def admit(pid: int, group: str) -> None:
    """Move a process into the group on every hierarchy."""
    for hierarchy in hierarchies():
        (hierarchy / group / "cgroup.procs").write_text(str(pid))


def processes(group: str) -> frozenset[int]:
    """Return the ids of all processes in the group or below it, on any hierarchy."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        for directory, _, _ in os.walk(hierarchy / group):
            # A group may vanish while it is read.
            with suppress(FileNotFoundError, OSError):
                found.update(int(word) for word in Path(directory, "cgroup.procs").read_text().split())
    return frozenset(found - {0})


def send(group: str, number: int, only: int | None = None) -> frozenset[int]:
    """Send a signal to all processes of the group, or to one if it (still) is in it; return which were there.

    All at once, as far as that goes: a process that sees another one die would take it for a failure of that one.
    """
    held: dict[int, int] = {}
    try:
        for pid in processes(group):
            if only in (None, pid):
                with suppress(ProcessLookupError):
                    held[pid] = os.pidfd_open(pid)
        # Asked after the processes are held: an id that was reused meanwhile is in no group of ours.
        members = processes(group) if held else frozenset()
        for pid in sorted(held):
            if pid in members:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(held[pid], number)
    finally:
        for descriptor in held.values():
            os.close(descriptor)
    return members


def kill(group: str) -> None:
    """Kill every process in the group and below, and wait until they are gone; raises LabError."""
    if not until(lambda: not send(group, signal.SIGKILL), limit_s=_KILL_LIMIT_S):
        left = ", ".join(map(str, sorted(processes(group))))
        raise LabError(f"{group}: processes {left} survive SIGKILL", hint="exlb lab down")


def remove(group: str) -> None:
    """Remove the group and those below it on every hierarchy; it must have no process. Raises LabError."""

    def gone() -> bool:
        paths = [hierarchy / group for hierarchy in hierarchies()]
        return not [path for path in paths if not _remove_tree(path)]

    if not until(gone, limit_s=_REMOVE_LIMIT_S):
        raise LabError(f"the control group {group} cannot be removed", hint=f"systemd-cgls /{group}")


def _remove_tree(path: Path) -> bool:
    """Remove one group and those below it; False if the kernel still holds one."""
    for directory, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(directory)  # noqa: PTH106 - the files in it are the kernel's, and no obstacle
        except FileNotFoundError:
            continue
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                raise
            return False
    return True
