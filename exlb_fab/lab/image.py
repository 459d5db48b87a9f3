"""The image of a release: its root file system and its offline repository, built once and kept."""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exlb_fab.errors import LabError
from exlb_fab.lab import layout
from exlb_fab.lab.host import program_environment
from exlb_fab.lab.launch import last_line
from exlb_fab.lab.locks import locked

# No Python, and none of what `exlb install` installs.
_SYSTEM = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "iproute2",
    "iputils-ping",
    "procps",
    "libpam-systemd",
    "ca-certificates",
    "sudo",
    "dash",
)
# What `exlb install` installs, and login shells that somebody may have on a node.
_OFFLINE = ("haproxy", "keepalived", "psmisc", "curl", "socat", "fish", "tcsh", "zsh")
_HOOK = Path(__file__).with_name("image.sh")
_BUILD_LIMIT_S = 1200
_UNFINISHED = ".building-"

# What is killed with this process, its mounts included: a build that died half way leaves only files.
_TIED_TO_US = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)


@dataclass(frozen=True)
class Image:
    """One built image; read-only for everybody."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def repository(self) -> Path:
        return self.directory / "repo"

    def present(self) -> bool:
        """Tell whether the image is built; only whole ones ever bear its name."""
        return self.directory.is_dir()


def image(release: str) -> Image:
    """Return the image of a release, built or not; raises LabError on a release that the lab does not know."""
    if release not in layout.RELEASES:
        raise LabError(f"no lab for {release!r}", hint=f"one of: {', '.join(layout.RELEASES)}")
    recipe = "\n".join((release, *_SYSTEM, "", *_OFFLINE, _HOOK.read_text()))
    return Image(layout.cache() / f"{release}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}")


def ensure(release: str, progress: Callable[[str], None]) -> Image:
    """Return the built image of a release, building it first if need be (about 30 s).

    Raises LabError with the builder's last line.
    """
    wanted = image(release)
    if wanted.present():
        return wanted
    cache = wanted.directory.parent
    with locked(cache / "lock", what="the image cache", limit_s=_BUILD_LIMIT_S):
        if wanted.present():
            return wanted
        for left in cache.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)
        progress(f"building the {release} image, once: about 30 s")
        unfinished = Image(Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=cache)))
        _build(release, unfinished, log=cache / f"{release}.log")
        unfinished.directory.rename(wanted.directory)
    return wanted


def _build(release: str, unfinished: Image, *, log: Path) -> None:
    """Run mmdebstrap; raises LabError."""
    words = [
        *_TIED_TO_US,
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(_SYSTEM)}",
        # mmdebstrap hands the hook to a shell with the directory as $1.
        '--customize-hook=sh "$EXLB_HOOK" "$1" "$EXLB_REPOSITORY" $EXLB_PACKAGES',
        release,
        str(unfinished.root),
    ]
    env = program_environment(
        EXLB_HOOK=str(_HOOK),
        EXLB_REPOSITORY=str(unfinished.repository),
        EXLB_PACKAGES=" ".join(_OFFLINE),
        DEBIAN_FRONTEND="noninteractive",
    )
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                close_fds=False,  # it holds the cache's lock, until the last of it is dead
                timeout=_BUILD_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"the {release} image is not built after {_BUILD_LIMIT_S} s", hint=f"less {log}") from None
    if done.returncode != 0:
        raise LabError(f"the {release} image cannot be built: {last_line(log)}", hint=f"less {log}")
