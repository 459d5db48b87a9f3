"""haproxy: layer-4 listeners, and what its admin socket says of them."""

from __future__ import annotations

import csv
import re

from exlb_fab.errors import FactsError
from exlb_fab.proxies.base import Proxy, ProxyState, Server

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.,:/@+=-")
# A password that somebody wrote by hand may be quoted, or hold escaped blanks: all to the end of the line is hidden.
# So is what follows a word like `auth`: a typing error is refused, and shown.
_SECRETS = (
    re.compile(r"(\bstats[ \t]+[\"']?(?!admin\b)a\w*[\"']?[ \t]+(?:[^\s:\"'\\]+:)?)\S.*"),
    re.compile(r"(\buser[ \t]+\S+[ \t]+[\w-]*pass\w*[ \t]+)\S.*"),
)


def quote(text: str) -> str:
    r"""Return `text` as one word of haproxy.cfg.

    Every byte that could mean something becomes `\xHH`, which all versions read, while quotes came with 1.6.
    Source: haproxy configuration manual 2.2, "Quoting and escaping".
    """
    return "".join(chr(byte) if byte in _PLAIN else f"\\x{byte:02x}" for byte in text.encode())


def mark(digest: str) -> str:
    """Return the line of the global section that comes back in `show info`."""
    return f"description exlb-{digest}"


def ports(text: str) -> frozenset[int]:
    """Return the ports that a configuration binds; ranges and variables are left out."""
    lines = re.findall(r"^[ \t]*bind[ \t]+(\S+)", text, re.MULTILINE)
    return frozenset(int(port) for line in lines for port in re.findall(r":(\d+)(?=,|$)", line))


def mask(text: str) -> str:
    """Return configuration text without the passwords in it."""
    for secret in _SECRETS:
        text = secret.sub(r"\1********", text)
    return text


def parse_state(text: str) -> ProxyState:
    """Parse the answers to `show info` and `show stat` as `node/haproxy.sh` prints them, one after the other.

    Raises FactsError where the statistics have no header line, or not the columns that are needed.
    """
    info, mark, statistics = text.partition("# pxname")
    if not mark:
        raise FactsError(f"haproxy's admin socket did not answer `show stat`: {text.strip()[:200] or 'no answer'}")
    found = re.search(r"^description: exlb-([0-9a-f]+)$", info, re.MULTILINE)
    rows = csv.DictReader(("pxname" + statistics).split("\n"), restval="")
    try:
        servers = tuple(_server(row) for row in rows if row.get("type") == "2")
    except (KeyError, csv.Error) as error:
        raise FactsError(f"haproxy's `show stat` is not understood: {error}") from error
    return ProxyState(found[1] if found else None, servers)


def _server(row: dict[str, str]) -> Server:
    code = row.get("check_code") or ""
    return Server(
        listener=row["pxname"],
        name=row["svname"],
        address=row.get("addr") or "",
        status=row["status"],
        check=(row.get("check_status") or "").removeprefix("* "),
        code=int(code) if code.isdecimal() else None,
        detail=row.get("last_chk") or row.get("check_desc") or "",
    )


HAPROXY = Proxy(
    name="haproxy",
    unit="haproxy",
    process="haproxy",
    packages=("haproxy",),
    path="/etc/haproxy/haproxy.cfg",
    template="haproxy.cfg.j2",
    admin_socket="/run/haproxy-admin.sock",
    memory="/run/haproxy-server-state",
    program="haproxy.sh",
    quote=quote,
    ports=ports,
    mask=mask,
    mark=mark,
    parse_state=parse_state,
)
