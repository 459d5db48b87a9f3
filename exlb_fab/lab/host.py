"""What the lab needs of this host, and running its programs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from exlb_fab.errors import LabError, LabUnavailable
from exlb_fab.lab import cgroups

# program or file -> Debian package
_NEEDED = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "dpkg-scanpackages": "dpkg-dev",
    "apt-get": "apt",
    "ip": "iproute2",
    "mount": "mount",
    "umount": "mount",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "setsid": "util-linux",
    "unshare": "util-linux",
    "ssh": "openssh-client",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
_INOTIFY_INSTANCES_PER_NODE = 10  # seen: 8 of systemd and of the session managers, 1 of logind
_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def require_host() -> None:
    """Raise LabUnavailable, saying what to type, unless this host can run a lab."""
    if not sys.platform.startswith("linux"):
        raise LabUnavailable(
            f"the lab needs Linux: its nodes are systemd containers, and this is {sys.platform}",
            hint="run it in a Debian or Ubuntu virtual machine",
        )
    require_root()
    if packages := missing_packages():
        raise LabUnavailable(
            f"the lab needs {', '.join(packages)}, which this host does not have",
            hint=f"apt-get install -y {' '.join(packages)}",
        )
    hierarchies = cgroups.hierarchies()
    if not hierarchies or not all(os.access(hierarchy, os.W_OK) for hierarchy in hierarchies):
        raise LabUnavailable(
            "the lab needs to make control groups, and /sys/fs/cgroup is not mounted or read-only here",
            hint="run it on the host or in a virtual machine, not in a container",
        )


def require_root() -> None:
    """Raise LabUnavailable, saying what to type, unless this process is root."""
    if os.geteuid() != 0:
        raise LabUnavailable("the lab needs root: it makes namespaces and mounts", hint="sudo exlb lab up")


def require_watches(nodes: int) -> None:
    """Raise LabError, saying what to type, unless root may have the inotify instances that so many nodes need.

    Their systemds would otherwise fail in odd places. The nodes count as this host's root.
    """
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    used = sum(map(_inotify_instances, Path("/proc").glob("[0-9]*")))
    needed = used + nodes * _INOTIFY_INSTANCES_PER_NODE
    if needed > limit:
        raise LabError(
            f"{nodes} more nodes need {needed} inotify instances in all, and this host allows root {limit}",
            hint=f"sysctl -w fs.inotify.max_user_instances={max(1024, 2 * needed)}",
        )


def _inotify_instances(process: Path) -> int:
    """Return how many inotify instances a process of root has; none if it has ended."""
    try:
        if process.stat().st_uid != 0:
            return 0
        return sum(str(link.readlink()) == "anon_inode:inotify" for link in (process / "fd").iterdir())
    except OSError:
        return 0


def missing_packages() -> tuple[str, ...]:
    """Return the Debian packages to install before a lab can run, sorted."""
    return tuple(sorted({package for needed, package in _NEEDED.items() if not _present(needed)}))


def _present(needed: str) -> bool:
    if needed.startswith("/"):
        return Path(needed).exists()
    return shutil.which(needed, path=search_path()) is not None


def search_path() -> str:
    """Return $PATH with the system's directories behind it: a user's PATH often lacks the sbin ones."""
    given = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*filter(None, given), *_SYSTEM_PATH]))


def program_environment(**extra: str) -> dict[str, str]:
    """Return the environment for programs whose text is read: ours, in the C locale."""
    return {**os.environ, "PATH": search_path(), "LC_ALL": "C.UTF-8", **extra}


def python_words(module: str) -> list[str]:
    """Return the words that run a module of exlb with this Python, from any directory, however exlb was found here."""
    packages = Path(__file__).parents[2]
    # -P: what lies in the working directory is not to be imported.
    return ["env", f"PYTHONPATH={packages}", sys.executable, "-P", "-m", module]


def run_program(
    words: Sequence[str], *, text: str | None = None, limit_s: float = 60, failure: str | None = None
) -> str:
    """Run a program of this host and return its output.

    `text` is its input. Raises LabError, saying `failure` and the program's own last line, unless it exits with 0.
    """
    try:
        done = subprocess.run(
            words,
            input=text or "",
            capture_output=True,
            text=True,
            timeout=limit_s,
            env=program_environment(),
            close_fds=False,  # it may hold the lab's lock: see locks
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{failure or words[0]}: no end within {limit_s:.0f} s", hint=" ".join(words)) from None
    except FileNotFoundError:
        raise LabUnavailable(
            f"{words[0]}: no such program on this host", hint="exlb lab up names the package"
        ) from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LabError(
            f"{failure or ' '.join(words)}: {said[-1] if said else f'exit status {done.returncode}'}",
            hint="exlb lab down, then exlb lab up",
        )
    return done.stdout


def succeeds(words: Sequence[str], *, limit_s: float) -> bool:
    """Run a program that only looks, and tell whether it exits with 0 within the limit; it dies with this process."""
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=program_environment(),
            close_fds=False,  # as above: it may hold the lab's lock
            timeout=limit_s,
            check=False,
        )
        return done.returncode == 0
    return False
