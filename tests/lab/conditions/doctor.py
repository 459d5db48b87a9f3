"""What a first install may meet, on nodes that are fresh but for tcpdump, nftables and lists of their repositories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exlb_fab.errors import EXIT_FAILED, EXIT_OK, EXIT_UNREACHABLE
from exlb_fab.lab import Lab
from exlb_fab.lab.layout import VIP
from tests.lab.bastion import listens
from tests.lab.conditions.base import (
    ADDRESSES,
    ALL,
    SECOND,
    THIRD,
    Condition,
    Fault,
    Finding,
    fail,
    healthy,
    others,
    warn,
)
from tests.lab.conditions.faults import (
    ADVERT,
    APISERVER_CLOSED,
    STRANGER_ADDRESS,
    STRANGER_INTERFACE,
    On,
    apiservers,
    closed_but_for,
    powered_off,
    rules,
    stranger,
)

APT = "export DEBIAN_FRONTEND=noninteractive; apt-get"
PREPARED = f"{APT} update -qq && {APT} install -y -qq --no-install-recommends tcpdump nftables"

_OUTSIDE = "2001:db8:99::1"
_IPV6 = {"VRRP_IPS": "(2001:db8:0:51::11 2001:db8:0:51::12 2001:db8:0:51::13)", "KUBE_APISERVER": ""}
_SYSFS = "/run/class"
_OTHER = "vip0"
_ON_OTHER = {"NODE_VIP_IFS": f"(host0 {_OTHER} host0)"}
_EMPTY = "Package: nothing\\nVersion: 1\\nArchitecture: all\\nFilename: ./nothing.deb\\nSize: 1\\n"
_GUARD = closed_but_for()
_OLD_PROXY = (
    "defaults\\n mode tcp\\n timeout connect 5s\\n timeout client 5s\\n timeout server 5s\\nlisten old\\n bind :8443\\n"
)


def prepare(lab: Lab) -> None:
    """Have fresh nodes able to hear adverts, with a firewall without rules, and knowing their repositories."""
    for node in lab.nodes:
        done = lab.shell_in(node, ["sh", "-c", PREPARED], timeout=120)
        assert done.returncode == 0, done.stderr


def _doctor(
    name: str,
    family: str,
    *findings: Finding,
    fault: Fault | None = None,
    also: Sequence[Finding] = (),
    status: int = EXIT_FAILED,
    asked: Mapping[str, str] | None = None,
) -> Condition:
    return Condition(
        name,
        f"doctor: {family}",
        fault,
        findings,
        also,
        status,
        takes="an election",  # which stands for how long a neighbour may be remembered, too
        command="doctor",
        asked=asked or {},
    )


def _other_interface(state: str, peer: str) -> On:
    """Give a node another interface in a state, and the other end of its cable in one, too."""
    return On(
        (SECOND,),
        f"ip link add {_OTHER} type veth peer name {_OTHER}-peer && ip link set {_OTHER}-peer {peer} && "
        f"ip link set {_OTHER} {state}",
        f"ip link del {_OTHER}",
    )


def _firmware(vendor: str) -> On:
    """Have a node's kernel tell of a firmware, in a /sys/class with nothing else than that and the network."""
    return On(
        (SECOND,),
        f"mkdir -p {_SYSFS}/net {_SYSFS}/dmi/id && echo '{vendor}' >{_SYSFS}/dmi/id/sys_vendor && "
        f'for each in /sys/class/net/*; do ln -s "$(readlink -f "$each")" {_SYSFS}/net/; done && '
        f"mount --bind {_SYSFS} /sys/class",
        f"umount -l /sys/class && rm -r {_SYSFS}",
    )


CONDITIONS: tuple[Condition, ...] = (
    _doctor(
        "no host key is known, before a first install",
        "access",
        *fail("access.ssh", *ALL, says="is not known"),
        status=EXIT_UNREACHABLE,
        asked={"SSH_KNOWN_HOSTS": "/dev/null"},
    ),
    _doctor(
        "sudo wants a password, before a first install",
        "access",
        *fail("access.root", *ALL, says="sudo refuses: sudo: a password is required"),
        asked={"SSH_USER": "clerk"},
    ),
    _doctor(
        "a node without power, before a first install",
        "access",
        *fail("access.ssh", THIRD, says="cannot connect"),
        *warn("network.apiservers", *others(THIRD), says="198.51.100.13:6443"),
        fault=powered_off(THIRD),
        status=EXIT_UNREACHABLE,
    ),
    _doctor(
        "a distribution that nobody knows",
        "system",
        *fail("system.release", SECOND, says="exlb does not know how to install on Something else"),
        fault=On(
            (SECOND,),
            "printf 'ID=else\\nPRETTY_NAME=\"Something else\"\\n' >/run/os-release && "
            "mount --bind /run/os-release /usr/lib/os-release",
            "umount -l /usr/lib/os-release",
        ),
    ),
    _doctor(
        "no list of any repository",
        "system",
        *warn("system.packages", SECOND, says="cannot tell whether it has haproxy"),
        fault=On((SECOND,), "rm -rf /var/lib/apt/lists/*", "apt-get update -qq"),
        status=EXIT_OK,
    ),
    _doctor(
        "no repository has the packages",
        "system",
        *fail("system.packages", SECOND, says="no repository of the node has haproxy"),
        fault=On(
            (SECOND,),
            f"mkdir -p /srv/empty && printf '{_EMPTY}' >/srv/empty/Packages && "
            "cp /etc/apt/sources.list /root/sources.list && "
            "echo 'deb [trusted=yes] file:/srv/empty ./' >/etc/apt/sources.list && apt-get update -qq",
            "mv /root/sources.list /etc/apt/sources.list && apt-get update -qq && rm -r /srv/empty",
        ),
    ),
    _doctor(
        "a machine of a public cloud",
        "system",
        *warn("system.machine", SECOND, says="on a machine of Amazon EC2"),
        fault=_firmware("Amazon EC2"),
        status=EXIT_OK,
    ),
    _doctor(
        "another proxy runs already",
        "system",
        *warn("system.vacant", THIRD, says="not of exlb: haproxy runs already"),
        fault=On(
            (THIRD,),
            f"{APT} install -y -qq --no-install-recommends haproxy && systemctl is-active haproxy",
            f"{APT} purge -y -qq --autoremove haproxy",
        ),
        status=EXIT_OK,
    ),
    _doctor(
        "the unit of the proxy is masked",
        "system",
        *fail("system.vacant", THIRD, says="masked: haproxy"),
        fault=On((THIRD,), "systemctl mask haproxy.service", "systemctl unmask haproxy.service"),
    ),
    _doctor(
        "disk full, before a first install",
        "host",
        *fail("host.space", SECOND, says="no space for a change: /var/log"),
        fault=On((SECOND,), "mount -t tmpfs -o size=512k condition /var/log", "umount -l /var/log"),
    ),
    _doctor(
        "no room for the packages, before a first install",
        "host",
        *fail("host.space", SECOND, says="no space for the packages: /var/cache"),
        fault=On((SECOND,), "mount -t tmpfs -o size=5m condition /var/cache", "umount -l /var/cache"),
    ),
    _doctor(
        "little room for the packages, before a first install",
        "host",
        *warn("host.space", SECOND, says="/var/cache (on /var/cache): 5"),
        fault=On((SECOND,), "mount -t tmpfs -o size=50m condition /var/cache", "umount -l /var/cache"),
        status=EXIT_OK,
    ),
    _doctor(
        "VIP_IF is on no node",
        "network",
        *fail("network.interface", *ALL, says="there is no interface eth9"),
        asked={"VIP_IF": "eth9"},
    ),
    _doctor(
        "VIP_IF of a node is down",
        "network",
        *fail("network.interface", SECOND, says=f"{_OTHER} is down"),
        fault=_other_interface("down", "up"),
        asked=_ON_OTHER,
    ),
    _doctor(
        "VIP_IF of a node has no carrier",
        "network",
        *fail("network.interface", SECOND, says=f"{_OTHER} has no carrier"),
        fault=_other_interface("up", "down"),
        asked=_ON_OTHER,
    ),
    _doctor(
        "VIP_IF of a node is not in the network of the VIP",
        "network",
        *fail("network.interface", SECOND, says=f"{_OTHER} has no network with {VIP}"),
        fault=_other_interface("up", "up"),
        asked=_ON_OTHER,
    ),
    _doctor(
        "the VIP is outside of the network of VIP_IF",
        "network",
        *fail("network.interface", *ALL, says=f"host0 has no network with {_OUTSIDE}"),
        asked={"MASTER_VIP": _OUTSIDE, **_IPV6},
    ),
    _doctor(
        "the VIP is outside of the network of VIP_IF, and brings one",
        "network",
        *fail("network.interface", *ALL, says=f"host0 has no network with {_OUTSIDE}"),
        asked={"MASTER_VIP": f"{_OUTSIDE}/64", **_IPV6},
    ),
    _doctor(
        "the MTU of a node differs",
        "network",
        *warn("network.mtu", says=f"1400 on {THIRD}"),
        fault=On((THIRD,), "ip link set host0 mtu 1400", "ip link set host0 mtu 1500"),
        status=EXIT_OK,
    ),
    _doctor(
        "a port of the proxy is taken",
        "network",
        *fail("network.ports", THIRD, says="systemd listens on 8443"),
        fault=On(
            (THIRD,),
            "systemd-run -q --unit=foreign --socket-property=ListenStream=8443 sleep infinity",
            "systemctl stop foreign.socket; systemctl stop foreign.service || true",
        ),
    ),
    _doctor(
        "a port of the proxy is taken by a proxy that is not its unit",
        "network",
        *fail("network.ports", THIRD, says="a haproxy that is not the unit haproxy"),
        fault=On(
            (THIRD,),
            f"{APT} install -y -qq --no-install-recommends haproxy && systemctl stop haproxy && "
            f"printf '{_OLD_PROXY}' >/run/old.cfg && "
            "systemd-run -q --collect --unit=foreign haproxy -db -f /run/old.cfg && "
            f"{listens(8443, 'haproxy')}",
            f"systemctl stop foreign; rm /run/old.cfg; {APT} purge -y -qq --autoremove haproxy",
        ),
    ),
    _doctor(
        "one apiserver off, before a first install",
        "network",
        *warn("network.apiservers", *ALL, says="198.51.100.12:6443"),
        fault=apiservers("off", SECOND),
        status=EXIT_OK,
    ),
    _doctor(
        "all apiservers off, before a first install",
        "network",
        *fail("network.apiservers", *ALL, says="reaches 0 of 3"),
        fault=apiservers("off", *ALL),
    ),
    _doctor(
        "another host answers for the VIP",
        "segment",
        *fail("segment.vip", *ALL, says=f"answers for {VIP}"),
        fault=stranger(line=f"ip addr add {VIP}/32 dev {STRANGER_INTERFACE}"),
    ),
    _doctor(
        "the VIP is an address of a node's own",
        "segment",
        *fail("segment.vip", SECOND, says="no keepalived runs there"),
        fault=On((SECOND,), f"ip addr add {VIP}/32 dev host0", f"ip addr del {VIP}/32 dev host0"),
    ),
    _doctor(
        "another cluster sends adverts with the VRID to the nodes",
        "segment",
        *fail("segment.vrid", *ALL, says=f"{STRANGER_ADDRESS} sends adverts with VRID 68"),
        fault=stranger(*ADVERT, VIP, *ADDRESSES),
    ),
    _doctor(
        "another cluster sends adverts with the VRID to its group",
        "segment",
        *warn("segment.vrid", *ALL, says=f"{STRANGER_ADDRESS} sends adverts with VRID 68"),
        fault=stranger(*ADVERT, VIP, "224.0.0.18"),
        status=EXIT_OK,
    ),
    _doctor(
        "another cluster sends adverts with the VRID to its group, which is that of the nodes",
        "segment",
        *fail("segment.vrid", *ALL, says=f"{STRANGER_ADDRESS} sends adverts with VRID 68"),
        fault=stranger(*ADVERT, VIP, "224.0.0.18"),
        asked={"VRRP_MODE": "multicast"},
    ),
    _doctor(
        "a firewall lets neither adverts nor clients in",
        "firewall",
        *fail("firewall.vrrp", SECOND, says="nftables does not let in: VRRP (protocol 112)"),
        *fail("firewall.ports", SECOND, says="nftables does not let in: TCP port 8443"),
        fault=rules(_GUARD, SECOND),
    ),
    _doctor(
        "a firewall keeps the other nodes from an apiserver",
        "firewall",
        *warn("firewall.backends", SECOND, says="nftables does not let in: TCP port 6443"),
        *warn("network.apiservers", *others(SECOND), says="198.51.100.12:6443"),
        fault=rules(APISERVER_CLOSED, SECOND),
        status=EXIT_OK,
    ),
    healthy("fresh nodes", command="doctor"),
    healthy(
        "fresh nodes, before kubeadm init",
        fault=apiservers("off", *ALL),
        options=("--expect-no-apiserver",),
        command="doctor",
    ),
    healthy(
        "fresh nodes with a firewall that a push opens",
        fault=rules(_GUARD, SECOND),
        asked={"FIREWALL": "manage"},
        command="doctor",
    ),
)
