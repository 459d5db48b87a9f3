"""The POSIX shell programs that run on nodes, as files; this module only loads them."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def program(*names: str) -> str:
    """Return the text of node programs, one after the other: the functions of a proxy, then what uses them."""
    folder = resources.files(__name__)
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
