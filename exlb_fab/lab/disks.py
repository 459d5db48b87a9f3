"""Where the nodes' disks are: the state directory itself, or memory where that cannot hold them."""

import shutil
from pathlib import Path

from exlb_fab.errors import LabError, LabUnavailable
from exlb_fab.lab.host import run_program
from exlb_fab.lab.layout import LabLayout

_TRY = ".try"

# $1 image  $2 a directory; in a mount namespace of its own, so that the mount ends with the shell
_TRY_OVERLAY = """
set -eu
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" exlb-lab "$2/root"
: >"$2/root/written"
"""


def ensure(lab: LabLayout, image_root: Path) -> None:
    """Make the directory of the disks and see to it that an overlay can lie in it; raises LabUnavailable."""
    lab.disks.mkdir(mode=0o700, exist_ok=True)
    if any(path.name != _TRY for path in lab.disks.iterdir()) or _holds_overlays(lab, image_root):
        return
    # Inside a container the state directory is an overlay itself, and overlays cannot be stacked that way.
    run_program(["mount", "-t", "tmpfs", "-o", "mode=0700", "exlb-lab", str(lab.disks)])
    if not _holds_overlays(lab, image_root):
        raise LabUnavailable(
            "the lab needs overlay mounts, and this host's kernel refuses them", hint="modprobe overlay"
        )


def _holds_overlays(lab: LabLayout, image_root: Path) -> bool:
    """Tell whether an overlay mount with its upper directory here works, by making one and writing to it."""
    place = lab.disks / _TRY
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        run_program(["unshare", "--mount", "sh", "-c", _TRY_OVERLAY, "exlb-lab", str(image_root), str(place)])
    except LabError:
        return False
    finally:
        shutil.rmtree(place)
    return True


def unmount(lab: LabLayout) -> None:
    """Unmount whatever is mounted below the lab's directory."""
    for path in mounts_below(Path("/proc/self/mountinfo").read_text(), lab.directory):
        run_program(["umount", str(path)])


def mounts_below(mountinfo: str, directory: Path) -> tuple[Path, ...]:
    """Return the mount points in or below the directory in the text of /proc/self/mountinfo, last one first."""
    # proc(5): the fifth field, blanks and backslashes as three octal digits
    fields = (line.split(" ") for line in mountinfo.splitlines())
    points = (Path(field[4].encode().decode("unicode_escape")) for field in fields if len(field) > 4)
    return tuple(point for point in reversed(list(points)) if point.is_relative_to(directory))
