"""From the text of one value to the value, or to what is wrong with it.

Whitelists only: whatever passes is safe in every file and on every command line that it is rendered into.
"""

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args

from exlb_fab.cluster import Balance, HealthCheck, Secret, Sudo, Vip

T = TypeVar("T")
Parse = Callable[[str], T]

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+,~=\[\]-]{1,60}")
_SHOWN_SIGNS = 60
_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_DOTTED = re.compile(r"[0-9.]+")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC_END = re.compile(r"(?:.*\.)?[0-9]+")
_HOSTNAME_LENGTH = 253
_URL = re.compile(r"https://(?P<host>[^/:@]*)(?::(?P<port>[^/:@]*))?")
_URL_WITH_PREFIX = re.compile(r"https://[0-9.]+/[0-9]{1,2}:.*")
_GATEWAY = re.compile(r"(?:(?P<user>[^@:]*)@)?(?P<host>[^@:]*)(?::(?P<port>[^@:]*))?")
_PASSWORD_LENGTH = 128
_PATH_LENGTH = 4096
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
_prefix = _number(1, 32)
health_check: Parse[HealthCheck] = _choice(get_args(HealthCheck), "a health check")
balance: Parse[Balance] = _choice(get_args(Balance), "a way to balance")
sudo: Parse[Sudo] = _choice(get_args(Sudo), "a choice")
interface = _word(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,14}", "the name of a network interface")
server_name = _word(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}", "a name that the proxy accepts")
stats_user = _word(r"[A-Za-z0-9_.@-]{1,32}", "a name for the statistics page")
ssh_user = _word(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "a user name")


# Addresses and names


def address(text: str) -> IPv4Address:
    """Parse the address of one machine."""
    if _is_ipv6(text):
        raise Wrong(f"{shown(text)} is an IPv6 address, and only IPv4 is supported so far", "write an IPv4 address")
    try:
        parsed = IPv4Address(text)
    except ValueError:
        right = "write four numbers from 0 to 255, as in 192.0.2.10"
        raise Wrong(f"{shown(text)} is not an IPv4 address", right) from None
    kind = _unusable(parsed)
    if kind:
        raise Wrong(f"{parsed} is {kind}", "write the address of one machine on the network")
    return parsed


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _unusable(parsed: IPv4Address) -> str:
    """Return why an address cannot be one machine's on a network, "" if it can."""
    if parsed == IPv4Address("255.255.255.255"):
        return "the broadcast address"
    if parsed.is_unspecified:
        return "the unspecified address"
    if parsed.is_loopback:
        return "a loopback address"
    if parsed.is_multicast:
        return "a multicast address"
    if parsed.is_reserved or parsed in _THIS_NETWORK:
        return "a reserved address"
    return ""


def vip(text: str) -> Vip:
    """Parse `address` or `address/prefix`."""
    base, slash, length = text.partition("/")
    parsed = address(base)
    if not slash:
        return Vip(parsed, None)
    try:
        prefix = _prefix(length)
    except Wrong as wrong:
        raise Wrong(f"its prefix {wrong.wrong}", f"write {parsed}/24, with a prefix from 1 to 32") from None
    network = IPv4Network((parsed, prefix), strict=False)
    if prefix < 31 and parsed in (network.network_address, network.broadcast_address):
        which = "network" if parsed == network.network_address else "broadcast"
        raise Wrong(f"{parsed} is the {which} address of {network}", "write an address inside that network")
    return Vip(parsed, prefix)


def host(text: str) -> str:
    """Parse an IPv4 address or a DNS name."""
    if is_dotted(text) or _is_ipv6(text):
        return str(address(text))
    if ":" in text:
        raise Wrong(f"{shown(text)} has a colon, and a port has a variable of its own")
    if not _is_hostname(text):
        raise Wrong(f"{shown(text)} is neither an IPv4 address nor a DNS name")
    return text


def _is_hostname(text: str) -> bool:
    """Tell whether a text is a host name (RFC 1123 2.1) that nobody can take for an address."""
    is_name = len(text) <= _HOSTNAME_LENGTH and _HOSTNAME.fullmatch(text) is not None
    return is_name and not _NUMERIC_END.fullmatch(text)


def node_name(text: str) -> str:
    """Parse the name of a node; its own address will do, which only the whole can tell."""
    if not _is_hostname(text) and not is_dotted(text):
        raise Wrong(f"{shown(text)} is not a host name")
    return text


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
    return Url(text, host(match["host"]), port(match["port"]))


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


def path(text: str) -> Path:
    """Parse the path of a file on this host."""
    if not text.isprintable() or len(text) > _PATH_LENGTH:
        raise Wrong(f"{shown(text)} is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise Wrong(f"{shown(text)} is in the home directory of a user who has none") from None
