"""Passwords that exlb makes itself: kept beside the environment file, for its owner alone."""

import fcntl
import os
import re
import secrets
import string
from pathlib import Path

from exlb_fab.errors import EnvironmentFileError

_SIGNS = string.ascii_letters + string.digits
_LINE = re.compile(r"([A-Z_]+)=([A-Za-z0-9]+)")


def secrets_path(environment: Path) -> Path:
    """Return the file that keeps the passwords made for an environment file."""
    return environment.with_name(f"{environment.name}.secrets")


def password(path: Path, name: str, length: int) -> str:
    """Return the password of a name that a file keeps, made and kept first where there is none yet.

    The file is the owner's alone (0600). Raises EnvironmentFileError where others may read it, or where it can
    neither be read nor written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "r+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise EnvironmentFileError(f"{path}: mode {mode:04o} lets others read it", hint=f"chmod 600 {path}")
            text = file.read()
            kept = _kept(path, text)
            if name not in kept:
                kept[name] = "".join(secrets.choice(_SIGNS) for _ in range(length))
                # An editor may have left the last line without an end.
                end = "\n" if text and not text.endswith("\n") else ""
                file.write(f"{end}{name}={kept[name]}\n")
                file.flush()
                os.fsync(file.fileno())
            return kept[name]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a file of passwords"
        hint = f"write the password itself into {name}, or make {path.parent} writable"
        raise EnvironmentFileError(f"{path}: cannot keep a password: {reason}", hint=hint) from error


def _kept(path: Path, text: str) -> dict[str, str]:
    """Parse `NAME=PASSWORD` lines; no error shows one."""
    kept: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise EnvironmentFileError(f"{path}:{number}: not NAME=PASSWORD", hint=f"correct or remove {path}")
        kept[match[1]] = match[2]
    return kept
