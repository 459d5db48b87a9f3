"""haproxy: layer-4 listeners, and what its admin socket says of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping

from exlb_fab.errors import FactsError
from exlb_fab.platforms import Feature
from exlb_fab.proxies.base import Admission, Domain, Load, Proxy, ProxyState, Server

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.,:/@+=-")
# A password that somebody wrote by hand may be quoted, or hold escaped blanks: all to the end of the line is hidden.
# So is what follows a word like `auth`: a typing error is refused, and shown.
_SECRETS = (
    re.compile(r"(\bstats[ \t]+[\"']?(?!admin\b)a\w*[\"']?[ \t]+(?:[^\s:\"'\\]+:)?)\S.*"),
    re.compile(r"(\buser[ \t]+\S+[ \t]+[\w-]*pass\w*[ \t]+)\S.*"),
)


# Rendered for 1.5 (EL7) and 1.8 to 3.x. What is not listed here, all of these read alike. Which of them the tests run,
# and the words around this table: docs/haproxy-versions.md.
FEATURES = (
    Feature("state-file", "1.6 configuration manual, `server-state-file`", since=(1, 6)),
    Feature("init-addr", "1.7 configuration manual, `init-addr`", since=(1, 7)),
    Feature("hard-stop-after", "1.8 configuration manual, `hard-stop-after`", since=(1, 8)),
    Feature("expose-fd", "1.8 configuration manual, `stats socket`: `expose-fd listeners`", since=(1, 8)),
    Feature("log-stdout", "1.9 configuration manual, `log`: `stdout`, `format short`", since=(1, 9)),
    Feature(
        "exporter", "2.0 release notes: the exporter for Prometheus, a service that is built in or not", since=(2, 0)
    ),
    Feature("http-check-send", "2.2 configuration manual, `http-check send`", since=(2, 2)),
    Feature("nbproc", "2.5 release notes: an error from then on. Never rendered", until=(2, 5)),
    Feature(
        "same-names",
        "3.2.26 warns of a frontend and a backend of one name, 3.4.7 does not start. Never rendered",
        until=(3, 3),
    ),
)


def services(text: str) -> frozenset[str]:
    """Return what `haproxy -vv` names as available services, the exporter for Prometheus among them."""
    found = re.search(r"^Available services *:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def file_limit(connections: int) -> int:
    """Return how many open files so many connections need: two each, and some for listeners, checks and logs."""
    return 2 * connections + 1000


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
    """Parse what `proxy_state` of `node/haproxy.sh` prints: `show info`, `show stat`, `show servers state`.

    The last one came with 1.6; behind it are lines `leaving COUNT ADDRESS:PORT`.
    Raises FactsError where the statistics have no header line, or not the columns that are needed.
    """
    info, mark, rest = text.partition("# pxname")
    if not mark:
        raise FactsError(f"haproxy's admin socket did not answer `show stat`: {text.strip()[:200] or 'no answer'}")
    statistics, _, states = rest.partition("# be_id")
    found = re.search(r"^description: exlb-([0-9a-f]+)$", info, re.MULTILINE)
    admissions = _admissions(states)
    try:
        rows = list(csv.DictReader(("pxname" + statistics).split("\n"), restval=""))
        servers = tuple(_server(row, admissions) for row in rows if row.get("type") == "2")
    except (KeyError, csv.Error) as error:
        raise FactsError(f"haproxy's `show stat` is not understood: {error}") from error
    leaving = {address: int(count) for count, address in re.findall(r"^leaving ([0-9]+) (\S+)$", states, re.MULTILINE)}
    return ProxyState(found[1] if found else None, servers, leaving, tuple(_loads(info, rows)))


def _loads(info: str, rows: Iterable[Mapping[str, str]]) -> Iterator[Load]:
    """Yield the load of the whole process, then those of its frontends, by the names that their backends have.

    Source: haproxy management guide, `show info`; `show stat`, columns `scur` and `slim`.
    """
    told = dict(re.findall(r"^(CurrConns|Maxconn): ([0-9]+)$", info, re.MULTILINE))
    yield from _load(told.get("CurrConns"), told.get("Maxconn"))
    for row in rows:
        if row.get("type") == "0":
            yield from _load(row.get("scur"), row.get("slim"), row["pxname"].removesuffix("-frontend"))


def _load(connections: str | None, limit: str | None, listener: str = "") -> Iterator[Load]:
    if (open_ := _count(connections)) is not None and (most := _count(limit)):
        yield Load(open_, most, listener)


def _admissions(states: str) -> dict[tuple[str, str], Admission]:
    """Return what the admin socket was told of each server. A server that is down does not show it in its status.

    Source: haproxy management guide, "show servers state", srv_admin_state: 1 is SRV_ADMF_FMAINT, 8 SRV_ADMF_FDRAIN.
    """
    rows = [line.split(" ") for line in states.split("\n")[1:]]
    flags = {(row[1], row[3]): int(row[6]) for row in rows if len(row) > 6 and re.fullmatch("[0-9]+", row[6])}
    return {name: "disable" if flag & 1 else "drain" if flag & 8 else "ready" for name, flag in flags.items()}


def _server(row: dict[str, str], admissions: Mapping[tuple[str, str], Admission]) -> Server:
    status = row["status"]
    told: Admission = "disable" if status.startswith("MAINT") else "drain" if status.startswith("DRAIN") else "ready"
    return Server(
        listener=row["pxname"],
        name=row["svname"],
        address=row.get("addr") or "",
        status=status,
        check=(row.get("check_status") or "").removeprefix("* "),
        code=_count(row.get("check_code")),
        detail=row.get("last_chk") or row.get("check_desc") or "",
        sessions=_count(row.get("scur")) or 0,
        bytes_in=_count(row.get("bin")) or 0,
        bytes_out=_count(row.get("bout")) or 0,
        changed_seconds=_count(row.get("lastchg")),
        admission=admissions.get((row["pxname"], row["svname"]), told),
    )


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


# Source: fedora-selinux/selinux-policy, policy/modules/contrib/rhcs.te, "haproxy local policy".
DOMAIN = Domain(
    boolean="haproxy_connect_any",
    binds=frozenset({"commplex_main_port_t", "http_port_t", "http_cache_port_t"}),
    connects=frozenset(
        {
            *("commplex_link_port_t", "commplex_main_port_t", "fmpro_internal_port_t"),
            *("http_port_t", "http_cache_port_t", "rtp_media_port_t"),
        }
    ),
    label="http_port_t",
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
    log_socket="/var/lib/haproxy/dev/log",
    program="haproxy.sh",
    quote=quote,
    ports=ports,
    mask=mask,
    mark=mark,
    features=FEATURES,
    services=services,
    file_limit=file_limit,
    domain=DOMAIN,
    parse_state=parse_state,
)
