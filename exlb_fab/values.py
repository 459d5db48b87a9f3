"""From the text of one value to the value, or to what is wrong with it.

Whitelists only: whatever passes is safe in every file and on every command line that it is rendered into.
"""

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

from exlb_fab.cluster import (
    Address,
    Balance,
    Bind,
    CheckMethod,
    Failover,
    Firewall,
    Layout,
    Log,
    Secret,
    SendProxy,
    Sudo,
    Track,
    Vip,
    VrrpMode,
)

T = TypeVar("T")
Parse = Callable[[str], T]
GENERATE = Secret("generate")  # a password that exlb makes itself
HealthCheck = Literal["readyz", "healthz", "livez", "ssl-hello", "tcp"]
Timing = Literal["default", "documents", "fast"]
YesNo = Literal["yes", "no"]

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+,~=\[\]-]{1,60}")
_SHOWN_SIGNS = 60
_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_DOTTED = re.compile(r"[0-9.]+")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC_END = re.compile(r"(?:.*\.)?[0-9]+")
_HOSTNAME_LENGTH = 253
_URL = re.compile(r"https://(?P<host>\[[0-9A-Fa-f:.]*\]|[^/:@]*)(?::(?P<port>[^/:@]*))?")
_URL_WITH_PREFIX = re.compile(r"https://[0-9.]+/[0-9]{1,2}:.*")
_GATEWAY = re.compile(r"(?:(?P<user>[^@:]*)@)?(?P<host>[^@:]*)(?::(?P<port>[^@:]*))?")
_PASSWORD_LENGTH = 128
AUTH_PASS_LENGTH = 8  # keepalived cuts what is longer, and -t refuses it; source: RFC 2338 5.3.6
_AUTH_PASS = re.compile(r"[A-Za-z0-9._@+-]{1,8}")
_DURATION = re.compile(r"(0|[1-9][0-9]{0,8})(ms|s|m|h|d)?")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST_MS = 24 * 86_400_000  # haproxy refuses timers of more than 24.8 days: configuration manual, "Time format"
_SECONDS = re.compile(r"(0|[1-9][0-9]{0,2})(\.[0-9]{1,2})?")
_PATH_LENGTH = 4096
_HTTP_PATH = re.compile(r"/(?!/)[A-Za-z0-9_.~/%=&?-]{0,200}")
_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\n(?:[A-Za-z0-9+/=]{1,76}\n)+-----END CERTIFICATE-----",
)
_THIS_NETWORK = IPv4Network("0.0.0.0/8")


class Wrong(Exception):  # noqa: N818 - caught by whoever knows the variable's name, and never shown by itself
    """One value is not as it must be; without `right`, the table says what would be."""

    def __init__(self, wrong: str, right: str | None = None) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.right = right


def is_plain(text: str) -> bool:
    """Tell whether a text is short and free of signs that mean something to a shell."""
    return _PLAIN.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address."""
    return _parsed(text) is not None


def _parsed(text: str) -> Address | None:
    """Return the address that a text is; one with a zone, which may hold any sign, is none."""
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None


def is_dotted(text: str) -> bool:
    """Tell whether a text can only be meant as an IPv4 address."""
    return _DOTTED.fullmatch(text) is not None


def shown(text: str) -> str:
    """Return a value for a message: on one line, not too long, and with its odd signs visible."""
    if is_plain(text):
        return text
    return ascii(text if len(text) <= _SHOWN_SIGNS else text[: _SHOWN_SIGNS - 3] + "...")


# Kinds of values


def _number(low: int, high: int) -> Parse[int]:
    """Return the parser of whole numbers in a range, in plain decimal digits."""

    def parse(text: str) -> int:
        if not _WHOLE_NUMBER.fullmatch(text):
            raise Wrong(f"{shown(text)} is not a whole number in plain digits")
        if not low <= int(text) <= high:
            raise Wrong(f"{text} is not between {low} and {high}")
        return int(text)

    return parse


def _choice(choices: Sequence[T], kind: str) -> Parse[T]:
    """Return the parser of texts of which there are only these."""

    def parse(text: str) -> T:
        for choice in choices:
            if choice == text:
                return choice
        raise Wrong(f"{shown(text)} is not {kind}")

    return parse


def _word(pattern: str, kind: str) -> Parse[str]:
    """Return the parser of texts that match a pattern as a whole."""
    whole = re.compile(pattern)

    def parse(text: str) -> str:
        if not whole.fullmatch(text):
            raise Wrong(f"{shown(text)} is not {kind}")
        return text

    return parse


port = _number(1, 65535)
small = _number(1, 255)
repeat = _number(0, 255)
priority = _number(1, 254)
maxconn = _number(1, 10_000_000)
health_check: Parse[HealthCheck] = _choice(get_args(HealthCheck), "a health check")
balance: Parse[Balance] = _choice(get_args(Balance), "a way to balance")
layout: Parse[Layout] = _choice(get_args(Layout), "a layout of listeners")
bind: Parse[Bind] = _choice(get_args(Bind), "a choice of addresses")
log: Parse[Log] = _choice(get_args(Log), "a place to log to")
send_proxy: Parse[SendProxy] = _choice(get_args(SendProxy), "a version of the PROXY protocol")
vrrp_mode: Parse[VrrpMode] = _choice(get_args(VrrpMode), "a mode of VRRP")
vrrp_version = _number(2, 3)
failover: Parse[Failover] = _choice(get_args(Failover), "a way to fail over")
timing: Parse[Timing] = _choice(get_args(Timing), "a set of timings")
firewall: Parse[Firewall] = _choice(get_args(Firewall), "a choice")
sudo: Parse[Sudo] = _choice(get_args(Sudo), "a choice")
_yes_no: Parse[YesNo] = _choice(get_args(YesNo), "yes or no")
_method: Parse[CheckMethod] = _choice(get_args(CheckMethod), "a check")
_track: Parse[Track] = _choice(get_args(Track), "a check that keepalived makes")
interface = _word(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,14}", "the name of a network interface")
server_name = _word(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}", "a name that the proxy accepts")
stats_user = _word(r"[A-Za-z0-9_.@-]{1,32}", "a name for the statistics page")
ssh_user = _word(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "a user name")


# Addresses and names


def address(text: str) -> Address:
    """Parse the address of one machine, IPv4 or IPv6."""
    parsed = _parsed(text)
    if parsed is None and _is_ipv6(text):
        raise Wrong(f"{shown(text)} is in brackets", f"write {text.strip('[]')}")
    if parsed is None:
        right = "write four numbers from 0 to 255, as in 192.0.2.10, or an IPv6 address, as in 2001:db8::10"
        raise Wrong(f"{shown(text)} is not an IP address", right)
    kind = _unusable(parsed)
    if kind:
        raise Wrong(f"{parsed} is {kind}", "write the address of one machine on the network")
    return parsed


def _is_ipv6(text: str) -> bool:
    """Tell whether a text is an IPv6 address, in brackets or not."""
    return isinstance(_parsed(text.strip("[]")), IPv6Address)


def _unusable(parsed: Address) -> str:
    """Return why an address cannot be one machine's on a network, "" if it can."""
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        return "an IPv4 address in disguise"
    if parsed == IPv4Address("255.255.255.255"):
        return "the broadcast address"
    if parsed.is_unspecified:
        return "the unspecified address"
    if parsed.is_loopback:
        return "a loopback address"
    if parsed.is_multicast:
        return "a multicast address"
    if isinstance(parsed, IPv6Address):
        return "a link-local address, which says nothing without an interface" if parsed.is_link_local else ""
    if parsed.is_reserved or parsed in _THIS_NETWORK:
        return "a reserved address"
    return ""


def vip(text: str) -> Vip:
    """Parse `address` or `address/prefix`."""
    base, slash, length = text.partition("/")
    parsed = address(base)
    if not slash:
        return Vip(parsed, None)
    usual = 24 if parsed.version == 4 else 64
    try:
        prefix = _number(1, parsed.max_prefixlen)(length)
    except Wrong as wrong:
        right = f"write {parsed}/{usual}, with a prefix from 1 to {parsed.max_prefixlen}"
        raise Wrong(f"its prefix {wrong.wrong}", right) from None
    network = ip_network((parsed, prefix), strict=False)
    if isinstance(network, IPv4Network) and prefix < 31 and parsed in (network[0], network[-1]):
        which = "network" if parsed == network[0] else "broadcast"
        raise Wrong(f"{parsed} is the {which} address of {network}", "write an address inside that network")
    return Vip(parsed, prefix)


def bind_address(text: str) -> Address:
    """Parse the address that a program of a node listens on: one of its own, or all of them."""
    parsed = _parsed(text)
    if parsed is None:
        raise Wrong(f"{shown(text)} is not an IP address")
    local = isinstance(parsed, IPv4Address) or not parsed.ipv4_mapped
    return parsed if local and (parsed.is_unspecified or parsed.is_loopback) else address(text)


def host(text: str) -> str:
    """Parse an IP address or a DNS name."""
    if is_dotted(text) or _is_ipv6(text):
        return str(address(text))
    if ":" in text:
        raise Wrong(f"{shown(text)} has a colon, and a port has a variable of its own")
    if not _is_hostname(text):
        raise Wrong(f"{shown(text)} is neither an IP address nor a DNS name")
    return text


def _is_hostname(text: str) -> bool:
    """Tell whether a text is a host name (RFC 1123 2.1) that nobody can take for an address."""
    is_name = len(text) <= _HOSTNAME_LENGTH and _HOSTNAME.fullmatch(text) is not None
    return is_name and not _NUMERIC_END.fullmatch(text)


def node_name(text: str) -> str:
    """Parse the name of a node; its own address will do, which only the whole can tell."""
    if not _is_hostname(text) and not is_dotted(text) and not is_address(text):
        raise Wrong(f"{shown(text)} is not a host name")
    return text


# Times, numbers and choices


def milliseconds(text: str) -> int:
    """Parse a time as haproxy writes it: a number with a unit (ms, s, m, h, d), or plain milliseconds."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Wrong(
            f"{shown(text)} is not a time", "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds"
        )
    found = int(match[1]) * _UNIT_MS[match[2] or "ms"]
    if found > _LONGEST_MS:
        raise Wrong(f"{text} is more than 24 days", "write a shorter time")
    return found


def timeout(text: str) -> int:
    """Parse a time that is not 0, which would mean to wait for ever."""
    found = milliseconds(text)
    if not found:
        raise Wrong(f"{text} would mean to wait for ever", "write a time, as in 5s or 10m")
    return found


def seconds(text: str) -> float:
    """Parse seconds with up to two decimals, from 0.1 to 255."""
    if not _SECONDS.fullmatch(text):
        raise Wrong(f"{shown(text)} is not a number of seconds with up to two decimals")
    if not 0.1 <= float(text) <= 255:
        raise Wrong(f"{text} is not between 0.1 and 255")
    return float(text)


def weight(text: str) -> int:
    """Parse what a failed or passed check changes a priority by. Source: keepalived.conf(5), vrrp_script `weight`."""
    digits = text.removeprefix("-")
    if not _WHOLE_NUMBER.fullmatch(digits):
        raise Wrong(f"{shown(text)} is not a whole number in plain digits")
    if int(digits) > 253:
        raise Wrong(f"{text} is not between -253 and 253")
    if int(digits) == 0:
        raise Wrong("0 would take no part in any election", "write -60, or FAILOVER=fault for a check without weight")
    return int(text)


def yes(text: str) -> bool:
    """Parse `yes` or `no`."""
    return _yes_no(text) == "yes"


def tracks(text: str) -> tuple[Track, ...]:
    """Parse one or more kinds of checks, with commas between them."""
    if " " in text:
        raise Wrong(f"{shown(text)} has a blank", "write several with commas alone between them, as in process,port")
    found = tuple(_track(each) for each in text.split(","))
    if len(set(found)) < len(found):
        raise Wrong(f"{shown(text)} has a check twice")
    if {"process", "script"} <= set(found):
        raise Wrong(f"{shown(text)} checks the process twice, by events and by a script", "write one of the two")
    return found


# Everything else


class Url(NamedTuple):
    """The parts of KUBE_APISERVER."""

    text: str
    host: str
    port: int


def url(text: str) -> Url:
    """Parse `https://host:port`."""
    match = _URL.fullmatch(text)
    if _URL_WITH_PREFIX.fullmatch(text):
        raise Wrong(f"{shown(text)} has the prefix of MASTER_VIP in it", "write https://${MASTER_VIP%/*}:PORT")
    if match is None:
        raise Wrong(f"{shown(text)} is not https://HOST:PORT")
    if not match["host"]:
        raise Wrong(f"{shown(text)} has no host: a variable may be missing")
    if not match["port"]:
        raise Wrong(f"{shown(text)} has no port")
    return Url(text, host(match["host"].strip("[]")), port(match["port"]))


class Extra(NamedTuple):
    """One element of EXTRA_LISTENERS: `method` and `path` say how its backends are checked."""

    name: str
    port: int
    backends: tuple[tuple[str, int], ...]
    method: CheckMethod
    path: str

    def __str__(self) -> str:
        return self.name


def extra(text: str) -> Extra:
    """Parse `NAME PORT BACKEND:PORT,BACKEND:PORT [CHECK]`; without a CHECK, or with `check`, it is tcp."""
    words = text.split()
    if not 3 <= len(words) <= 4:
        raise Wrong(f"{shown(text)} has {len(words)} words")
    name, at, servers, *check = words
    try:
        backends = tuple(_endpoint(each) for each in servers.split(","))
        if len({(where.casefold(), number) for where, number in backends}) < len(backends):
            raise Wrong(f"{shown(servers)} has a backend twice")
        method, path = _check(check[0]) if check else ("tcp", "")
        return Extra(server_name(name), port(at), backends, method, path)
    except Wrong as wrong:
        raise Wrong(f"{shown(name)}: {wrong.wrong}") from None


def _endpoint(text: str) -> tuple[str, int]:
    """Parse `host:port`, an IPv6 address in brackets."""
    where, colon, number = text.rpartition(":")
    if not colon or (":" in where and not (where.startswith("[") and where.endswith("]"))):
        raise Wrong(f"{shown(text)} is not BACKEND:PORT")
    return host(where.strip("[]")), port(number)


def _check(text: str) -> tuple[CheckMethod, str]:
    """Parse how the backends of an extra listener are checked."""
    method, colon, path = text.partition(":")
    if not colon and method in ("tcp", "none", "ssl-hello", "check"):
        return ("tcp" if method == "check" else _method(method)), ""
    if method in ("http", "https") and _HTTP_PATH.fullmatch(path):
        return _method(method), path
    raise Wrong(f"{shown(text)} is not a check")


def ca(text: str) -> str:
    """Parse the path of a file with certificates, and return the certificates in it, as they stand there."""
    try:
        found = path(text).read_text(encoding="ascii")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "has other signs than ASCII"
        raise Wrong(f"{shown(text)}: {reason}") from None
    certificates = _CERTIFICATE.findall(found)
    if not certificates:
        raise Wrong(f"{shown(text)} has no certificate in it")
    if "PRIVATE KEY" in found:
        raise Wrong(f"{shown(text)} has a private key in it", "write the path of a file with certificates only")
    return "".join(f"{each}\n" for each in certificates)


def gateway(text: str) -> str:
    """Parse `[user@]host[:port]`."""
    match = _GATEWAY.fullmatch(text)
    if match is None or not match["host"]:
        raise Wrong(f"{shown(text)} does not name a host to jump through")
    if match["user"] is not None:
        ssh_user(match["user"])
    host(match["host"])
    if match["port"] is not None:
        port(match["port"])
    return text


def password(text: str) -> Secret:
    """Parse a password; what is wrong with it never shows it."""
    if not text.isprintable():
        raise Wrong("has a sign that is not printable")
    if len(text) > _PASSWORD_LENGTH:
        raise Wrong(f"has {len(text)} signs")
    return Secret(text)


def auth_pass(text: str) -> Secret:
    """Parse VRRP's password; what is wrong with it never shows it."""
    if len(text) > AUTH_PASS_LENGTH:
        right = "write 1 to 8 letters, digits and . _ @ + -: VRRP cuts what is longer"
        raise Wrong(f"has {len(text)} signs, and VRRP takes 8", right)
    if not _AUTH_PASS.fullmatch(text):
        raise Wrong("has a sign that keepalived.conf could take for something else")
    return Secret(text)


def path(text: str) -> Path:
    """Parse the path of a file on this host."""
    if not text.isprintable() or len(text) > _PATH_LENGTH:
        raise Wrong(f"{shown(text)} is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise Wrong(f"{shown(text)} is in the home directory of a user who has none") from None
