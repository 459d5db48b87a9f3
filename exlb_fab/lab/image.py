"""The image of a release: its root file system and its offline repository, built once and kept."""

import hashlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
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
# What `exlb install` installs, and what somebody may have on a node beside it: firewalls, another network manager.
_OFFLINE = (
    *("haproxy", "keepalived", "psmisc", "curl", "socat"),
    *("firewalld", "ufw", "nftables", "iptables", "network-manager", "tcpdump"),
)
_HERE = Path(__file__).parent
_FURNISH = _HERE / "image.sh"
_EL9 = _HERE / "el9"
_BUILD_LIMIT_S = 1200
_UNFINISHED = ".building-"

# What is killed with this process, its mounts included: a build that died half way leaves only files.
_TIED_TO_US = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)


@dataclass(frozen=True)
class _Recipe:
    """What an image is made of."""

    suite: str  # of Debian
    system: tuple[str, ...]  # packages of the root file system
    offline: tuple[str, ...]  # packages of the repository, which come with their dependencies
    hooks: tuple[Path, ...] = (_FURNISH,)  # programs, each called with root file system, repository and `offline`
    also: tuple[Path, ...] = ()  # directories of files that the hooks use

    @property
    def text(self) -> str:
        """All of it: an image is known by its digest."""
        files = [*self.hooks, *(path for each in self.also for path in sorted(each.rglob("*")) if path.is_file())]
        texts = (f"{path.relative_to(_HERE)}\n{path.read_text()}" for path in files)
        return "\n".join((self.suite, *self.system, "", *self.offline, *texts))


def _debian(suite: str) -> _Recipe:
    return _Recipe(suite, _SYSTEM, (*_OFFLINE, "iputils-arping", "fish", "tcsh", "zsh"))


_RECIPES = {
    "bullseye": _debian("bullseye"),
    "bookworm": _debian("bookworm"),
    "trixie": _debian("trixie"),
    "el9-like": _Recipe(
        "bookworm",
        (*_SYSTEM, "dnf", "rpm", "createrepo-c"),
        (*_OFFLINE, "iproute2", "iputils-ping"),
        hooks=(_FURNISH, _EL9 / "build.sh"),
        also=(_EL9,),
    ),
}
RELEASES = tuple(_RECIPES)


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
    if release not in _RECIPES:
        raise LabError(f"no lab for {release!r}", hint=f"one of: {', '.join(RELEASES)}")
    digest = hashlib.sha256(_RECIPES[release].text.encode()).hexdigest()
    return Image(layout.cache() / f"{release}-{digest[:12]}")


def ensure(releases: Iterable[str], progress: Callable[[str], None]) -> dict[str, Image]:
    """Return the built images of the releases, building those first that are missing, one after the other.

    Raises LabError with the builder's last line, or on a release that the lab does not know before any is built.
    """
    wanted = {release: image(release) for release in releases}
    for release, each in wanted.items():
        _ensure(release, each, progress)
    return wanted


def _ensure(release: str, wanted: Image, progress: Callable[[str], None]) -> None:
    if wanted.present():
        return
    cache = wanted.directory.parent
    with locked(cache / "lock", what="the image cache", limit_s=_BUILD_LIMIT_S):
        if wanted.present():
            return
        for left in cache.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)
        progress(f"building the {release} image, once: about a minute")
        unfinished = Image(Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=cache)))
        _build(release, unfinished, log=cache / f"{release}.log")
        unfinished.directory.rename(wanted.directory)


def _build(release: str, unfinished: Image, *, log: Path) -> None:
    """Run mmdebstrap; raises LabError."""
    recipe = _RECIPES[release]
    words = [
        *_TIED_TO_US,
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(recipe.system)}",
        # mmdebstrap hands each hook to a shell with the directory as $1.
        *(
            f'--customize-hook=sh {shlex.quote(str(hook))} "$1" "$EXLB_REPOSITORY" $EXLB_PACKAGES'
            for hook in recipe.hooks
        ),
        recipe.suite,
        str(unfinished.root),
    ]
    env = program_environment(
        EXLB_REPOSITORY=str(unfinished.repository),
        EXLB_PACKAGES=" ".join(recipe.offline),
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
