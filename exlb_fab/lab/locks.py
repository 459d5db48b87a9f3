"""One thing at a time: an exclusive lock on a file, gone with the process that holds it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exlb_fab.errors import LabError
from exlb_fab.lab.waiting import until


@contextmanager
def locked(path: Path, *, what: str, limit_s: float) -> Iterator[None]:
    """Hold the lock at `path`, whose directory is made (0700) where it is missing.

    The holder may remove file and directory: who waited for them starts again on new ones. Programs that inherit
    descriptors hold it too: after the death of this process it is free when their half-done work has ended as well.
    Raises LabError when the lock is not free within the limit.
    """
    descriptor = until(lambda: _try(path), limit_s=limit_s, every_s=0.1)
    if descriptor is None:
        raise LabError(f"{what}: another exlb has been at work on it for {limit_s:.0f} s", hint=f"fuser -v {path}")
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _try(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, FileExistsError):  # removed by the one who held it, perhaps right while it was made
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - its only parameter
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
