"""Files that are complete or not there, whenever the writer is killed."""

from pathlib import Path


def write(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file by renaming a finished one into place; the directory is ours alone."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    unfinished.chmod(mode)
    unfinished.rename(path)
