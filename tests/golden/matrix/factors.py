"""What the cases of the matrix are made of: each factor with its levels, and what a level writes into a file.

`understand` alone says which levels go together.
"""

from __future__ import annotations

import csv
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from exlb_fab.cluster import Cluster
from exlb_fab.environment import Environment, Location, Variable
from exlb_fab.platforms import Version, parse_version
from exlb_fab.understanding import InvalidEnvironment, understand

HERE = Path(__file__).parent
CASES_FILE = HERE / "cases.tsv"
AUTHORITY = "ca.crt"
FILE = Path("environment.sh")
MOST_NODES = 5

Value = str | Sequence[str]
Values = Mapping[str, Value]
Case = Mapping[str, str]  # factor -> level
Pair = tuple[tuple[str, str], tuple[str, str]]

BASE: Values = {
    "NODE_IPS": [f"198.51.100.{10 + number}" for number in range(1, MOST_NODES + 1)],
    "NODE_NAMES": [f"lb{number}" for number in range(1, MOST_NODES + 1)],
    "VIP_IF": "eth0",
    "MASTER_VIP": "198.51.100.100",
}
PER_NODE = ("NODE_IPS", "NODE_NAMES", "NODE_VIP_IFS", "VRRP_IPS", "PRIORITIES")

# Versions of EL7, EL8, Ubuntu 20.04, Debian 11, EL9, Debian 12, Debian 13, and the next of each program.
PROXIES = ("1.5.18", "1.8.27", "2.0.33", "2.2.9", "2.4.22", "2.6.12", "3.0.11", "3.2.26")
KEEPALIVEDS = ("1.3.5", "2.0.19", "2.1.5", "2.2.7", "2.3.3")

IPV6_NODES = [f"2001:db8::{10 + number}" for number in range(1, MOST_NODES + 1)]
NOTHING: Values = {}

# What a level writes. The first four are no variables: they are about the node, and how many there are.
FACTORS: Mapping[str, Mapping[str, Values]] = {
    "haproxy": dict.fromkeys(PROXIES, NOTHING),
    "keepalived": dict.fromkeys(KEEPALIVEDS, NOTHING),
    "container": {"no": NOTHING, "yes": NOTHING},
    "nodes": {"1": NOTHING, "2": NOTHING, "3": NOTHING, "5": NOTHING},
    "health": {kind: {"HEALTH_CHECK": kind} for kind in ("readyz", "healthz", "livez", "ssl-hello", "tcp")},
    "authority": {"no": NOTHING, "yes": {"APISERVER_CA": str(HERE / AUTHORITY)}},
    "backends": {
        "default": NOTHING,
        "slow": {"BACKEND_INTER": "500ms", "BACKEND_FALL": "3", "BACKEND_RISE": "1", "BACKEND_SLOWSTART": "1m"},
    },
    "apiservers": {
        "nodes": NOTHING,
        "own": {"APISERVER_IPS": ["198.51.100.51", "198.51.100.52"], "APISERVER_NAMES": ["api-1", "api-2"]},
        "dns": {"APISERVER_IPS": ["api-1.example.org", "198.51.100.52"], "APISERVER_SRC_PORT": "443"},
        "ipv6": {"APISERVER_IPS": ["2001:db8::51", "2001:db8::52"]},
    },
    "balance": {kind: {"BALANCE": kind} for kind in ("source", "roundrobin", "leastconn", "static-rr", "first")},
    "layout": {kind: {"LISTENER_LAYOUT": kind} for kind in ("listen", "frontend")},
    "bind": {kind: {"BIND": kind} for kind in ("all", "vip", "node")},
    "log": {kind: {"LOG": kind} for kind in ("journal", "syslog")},
    "hard-stop": {"no": NOTHING, "24h": {"HARD_STOP_AFTER": "24h"}},
    "state": {kind: {"SERVER_STATE": kind} for kind in ("no", "yes")},
    "maxconn": {"default": NOTHING, "4000": {"MAXCONN": "4000"}},
    "timeouts": {
        "default": NOTHING,
        "own": {
            "TIMEOUT_CONNECT": "1500ms",
            "TIMEOUT_CLIENT": "1h",
            "TIMEOUT_SERVER": "1d",
            "TIMEOUT_CHECK": "1s",
            "TIMEOUT_QUEUE": "20s",
        },
    },
    "ingress": {
        "none": NOTHING,
        "http": {"INGRESS_NODE_IPS": ["198.51.100.61", "198.51.100.62"], "INGRESS_HTTP_NODEPORT": "23456"},
        "https": {"INGRESS_NODE_IPS": ["ingress.example.org"], "INGRESS_HTTPS_NODEPORT": "23457"},
        "both": {
            "INGRESS_NODE_IPS": ["198.51.100.61", "2001:db8::62"],
            "INGRESS_HTTP_NODEPORT": "23456",
            "INGRESS_HTTPS_NODEPORT": "23457",
            "INGRESS_HTTP_PORT": "8080",
            "INGRESS_HTTPS_PORT": "9443",
        },
    },
    "proxy-protocol": {kind: {"INGRESS_PROXY_PROTOCOL": kind} for kind in ("no", "v1", "v2")},
    "extra": {
        "none": NOTHING,
        "one": {"EXTRA_LISTENERS": ["registry 5000 198.51.100.71:5000,registry.example.org:5001"]},
        "asked": {
            "EXTRA_LISTENERS": [
                "registry 5000 198.51.100.71:5000,198.51.100.72:5000 http:/v2/",
                "vault 8200 198.51.100.73:8200 https:/v1/sys/health?standbyok=true",
            ]
        },
        "rest": {
            "EXTRA_LISTENERS": [
                "ldaps 636 198.51.100.74:636 ssl-hello",
                "git 2222 [2001:db8::75]:22 none",
                "db 5432 198.51.100.76:5432 tcp",
            ]
        },
    },
    "stats": {
        "none": NOTHING,
        "password": {"STATS_PASSWORD": "p w\"'#$\\{é:"},
        "admin": {"STATS_USER": "ops", "STATS_PASSWORD": "plain", "STATS_ADMIN": "yes", "STATS_PORT": "9000"},
        "bind": {"STATS_BIND": "2001:db8::11"},
    },
    "exporter": {kind: {"EXPORTER": kind} for kind in ("no", "yes")},
    "mode": {kind: {"VRRP_MODE": kind} for kind in ("unicast", "multicast")},
    "vrrp": {"default": NOTHING, "2": {"VRRP_VERSION": "2"}, "3": {"VRRP_VERSION": "3"}},
    "password": {"no": NOTHING, "yes": {"AUTH_PASS": "k8s-lb@1"}},
    "track": {kind: {"TRACK": kind} for kind in ("process", "script", "apiserver", "port", "process,apiserver,port")},
    "failover": {
        "default": NOTHING,
        "fault": {"FAILOVER": "fault"},
        "no-preempt": {"PREEMPT": "no"},
    },
    "weight": {"default": NOTHING, "-100": {"CHECK_WEIGHT": "-100"}, "60": {"CHECK_WEIGHT": "60"}},
    "priorities": {"default": NOTHING, "own": {"PRIORITIES": ["150", "140", "130", "125", "120"]}},
    "timing": {
        "default": NOTHING,
        "documents": {"TIMING": "documents"},
        "fast": {"TIMING": "fast"},
        "own": {
            "ADVERT_INT": "2",
            "CHECK_INTERVAL": "3",
            "CHECK_TIMEOUT": "1",
            "CHECK_FALL": "10",
            "CHECK_RISE": "3",
            "PROCESS_DELAY": "3",
        },
    },
    "garp": {
        "default": NOTHING,
        "never": {"GARP_MASTER_DELAY": "0", "GARP_MASTER_REFRESH": "0"},
        "often": {
            "GARP_MASTER_DELAY": "1",
            "GARP_MASTER_REPEAT": "2",
            "GARP_MASTER_REFRESH": "60",
            "GARP_MASTER_REFRESH_REPEAT": "3",
        },
    },
    "vip": {
        "ipv4": NOTHING,
        "prefix": {"MASTER_VIP": "198.51.100.100/24"},
        "several": {"EXTRA_VIPS": ["198.51.100.101", "198.51.100.102/24"]},
        "ipv6": {"MASTER_VIP": "2001:db8::100/64", "VRRP_IPS": IPV6_NODES},
        "mixed": {"EXTRA_VIPS": ["2001:db8::100/64", "198.51.100.101/32"]},
    },
    "interface": {"same": NOTHING, "each": {"NODE_VIP_IFS": ["eth0", "bond0", "eth0", "ens3", "eth0"]}},
}


def values(case: Case) -> dict[str, Value]:
    """Return what the environment file of a case sets; a case may lack factors."""
    found = dict(BASE)
    for factor, level in case.items():
        found |= FACTORS[factor][level]
    nodes = int(case.get("nodes", "3"))
    return {name: value[:nodes] if name in PER_NODE else value for name, value in found.items()}


def environment(values: Values) -> Environment:
    """Return what bash would say of a file that has each value on a line of its own."""
    places = {name: Location(FILE, line) for line, name in enumerate(values, 1)}
    variables = {
        name: Variable(
            name,
            (value,) if isinstance(value, str) else tuple(value),
            is_array=not isinstance(value, str),
            location=places[name],
        )
        for name, value in values.items()
    }
    return Environment(FILE, variables, places, (), frozenset())


def text(values: Values) -> str:
    """Return the environment file that sets these values, as somebody would write it."""

    def words(value: Value) -> str:
        return shlex.quote(value) if isinstance(value, str) else f"({' '.join(map(shlex.quote, value))})"

    return "".join(f"{name}={words(value)}\n".replace(f"{HERE}/", "") for name, value in values.items())


def cluster(case: Case, **changes: Value) -> Cluster:
    """Return the cluster of a case but for some variables. Raises InvalidEnvironment."""
    return understand(environment({**values(case), **changes}), resolve=lambda _: ())


def is_valid(case: Case) -> bool:
    """Tell whether exlb takes these levels together, whatever the other factors are."""
    try:
        cluster(case)
    except InvalidEnvironment:
        return False
    return True


def version(text: str) -> Version:
    found = parse_version(text)
    assert found, text
    return found


def pairs(case: Case) -> Iterator[Pair]:
    """Yield all pairs of levels of a case, in the order of the factors; a case may lack factors."""
    return itertools.combinations(((factor, case[factor]) for factor in FACTORS if factor in case), 2)


def all_pairs() -> Iterator[Pair]:
    """Yield every pair of levels that exlb takes."""
    for (one, ones), (other, others) in itertools.combinations(FACTORS.items(), 2):
        for level, another in itertools.product(ones, others):
            if is_valid({one: level, other: another}):
                yield (one, level), (other, another)


def cases() -> dict[str, Case]:
    """Return the chosen cases by their number."""
    with CASES_FILE.open(encoding="utf-8", newline="") as file:
        return {row.pop("case"): row for row in csv.DictReader(file, delimiter="\t")}
