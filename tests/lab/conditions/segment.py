"""What others on the nodes' network do: adverts with the same VRID, the VIP on another host, wrong neighbours."""

from __future__ import annotations

from exlb_fab.lab.layout import SECOND_VIP, VIP
from tests.lab.bastion import KEEPALIVED_PATH
from tests.lab.conditions.base import ADDRESSES, ALL, HOLDER, SECOND, THIRD, Condition, fail, warn
from tests.lab.conditions.faults import (
    ADVERT,
    ARPING,
    RARE_ADVERT,
    STRANGER_ADDRESS,
    STRANGER_INTERFACE,
    STRANGER_MAC,
    WORSE_ADVERT,
    On,
    Together,
    on_bastion,
    stranger,
)

_NOBODYS_MAC = "02:00:00:00:99:99"
_HAS_VIP = f"ip addr add {VIP}/32 dev {STRANGER_INTERFACE}"
# So that it says nothing of the VIP by itself, neither as an answer nor as a question of its own.
_SAYS_NOTHING = (
    "echo 8 >/proc/sys/net/ipv4/conf/all/arp_ignore; "
    f"ip neigh replace 198.51.100.1 lladdr 02:00:00:00:33:64 dev {STRANGER_INTERFACE} nud permanent"
)

_LEFT = f"{ADDRESSES[0]} was a node of this cluster"


def _told_to_send(node: str, address: str) -> On:
    """Have a node send to that of an address, for ever, what is meant for the VIP."""
    return On(
        (node,),
        f"ping -c 1 {address} >/dev/null && "
        f"mac=$(ip neigh show to {address} | sed -n 's/.*lladdr \\([^ ]*\\).*/\\1/p') && "
        f"ip neigh replace {VIP} lladdr $mac dev host0 nud permanent",
        f"ip neigh del {VIP} dev host0 || true",
    )


CONDITIONS = (
    Condition(
        "another host has the VIP and says so",
        "segment",
        stranger("announce", STRANGER_INTERFACE, STRANGER_MAC, VIP, line=_HAS_VIP),
        (
            *fail("vip.mac", SECOND, THIRD, says="another host has the same address"),
            *fail("vip.request", SECOND, THIRD, says=f"Failed to connect to {VIP}"),
            *fail("vip.bastion", says="Connection refused"),
        ),
        takes="an election",
    ),
    Condition(
        "another cluster sends better adverts with the same VRID and VIP",
        "segment",
        stranger(*ADVERT, VIP, *ADDRESSES),
        (
            *fail("vrrp.strangers", says=f"{STRANGER_ADDRESS} is master of VRID 68"),
            *fail("vip.single-holder", says=f"no node holds {VIP}\n{STRANGER_ADDRESS} is master of VRID 68"),
            *fail("vip.ping", *ALL, says="does not answer ping"),
            *fail("vip.request", *ALL, says=f"Failed to connect to {VIP}"),
        ),
        takes="an election",
    ),
    Condition(
        "another router sends worse adverts with the same VRID and VIP to the holder",
        "segment",
        # With keepalived anew, what it has complained of is past.
        Together(
            (
                On((HOLDER,), "true", "systemctl restart keepalived"),
                stranger(*WORSE_ADVERT, VIP, ADDRESSES[0]),
            )
        ),
        warn("vrrp.complaints", HOLDER, says=f"{STRANGER_ADDRESS} has sent adverts with VRID 68"),
        status=0,
        takes="an election",
    ),
    Condition(
        "the holder is no longer in environment.sh, and was not decommissioned",
        "segment",
        None,
        (
            *fail("vrrp.strangers", says=f"{_LEFT}: lb2 and lb3 still have it as a peer"),
            *fail("vip.single-holder", says=_LEFT),
            *fail("node.files", SECOND, THIRD, says=f"{KEEPALIVED_PATH} differs"),
            *fail("vrrp.running", SECOND, THIRD, says="peers 198.51.100.11, "),
        ),
        asked={
            "NODE_IPS": f"({' '.join(ADDRESSES[1:])})",
            "NODE_NAMES": f"({SECOND} {THIRD})",
            "APISERVER_IPS": f"({' '.join(ADDRESSES)})",
        },
    ),
    Condition(
        "another cluster has the same VRID and another VIP",
        "segment",
        Together(
            (
                On(ALL, "true", "systemctl restart keepalived"),
                stranger(*RARE_ADVERT, "198.51.100.200", "224.0.0.18"),
            )
        ),
        warn("vrrp.complaints", *ALL, says="VRID 68"),
        status=0,
        takes="an election",
        variables={"VRRP_MODE": "multicast"},
    ),
    Condition(
        "another host has the second VIP and says so",
        "segment",
        stranger(
            *("announce", STRANGER_INTERFACE, STRANGER_MAC, SECOND_VIP),
            line=f"ip addr add {SECOND_VIP}/32 dev {STRANGER_INTERFACE}",
        ),
        (
            *fail("vip.mac", SECOND, THIRD, says=f"and {HOLDER} holds {SECOND_VIP}"),
            *fail("vip.request", SECOND, THIRD, says=f"https://{SECOND_VIP}:8443/readyz from"),
        ),
        takes="an election",
        variables={"EXTRA_VIPS": f"({SECOND_VIP})"},
    ),
    Condition(
        "another host has the VIP and answers too late",
        "segment",
        stranger("answer", STRANGER_INTERFACE, STRANGER_MAC, VIP, line=_SAYS_NOTHING),
        fail("vip.mac", SECOND, THIRD, says=f"{STRANGER_MAC}, which is no node's, answers"),
        needs=On(ALL, ARPING, "true"),
    ),
    Condition(
        "another host has the VIP and answers too late, and no node can ask who has it",
        "segment",
        stranger("answer", STRANGER_INTERFACE, STRANGER_MAC, VIP, line=_SAYS_NOTHING),
        fail("vip.bastion", says=f"{STRANGER_MAC}, which is no node's, answers the bastion for {VIP}"),
        needs=On(ALL, "chmod -f -x /usr/bin/arping || true", "chmod -f +x /usr/bin/arping || true"),
    ),
    Condition(
        "the bastion alone sends to nobody what is meant for the VIP",
        "segment",
        on_bastion(
            f"ip neigh replace {VIP} lladdr {_NOBODYS_MAC} dev $br nud permanent", f"ip neigh del {VIP} dev $br"
        ),
        fail("vip.bastion", says=f"the bastion reaches {HOLDER}, and not {VIP}"),
    ),
    Condition(
        "the bastion alone is led to another host",
        "segment",
        Together(
            (
                stranger(line=f"{_SAYS_NOTHING}; {_HAS_VIP}"),
                on_bastion(
                    f"ip neigh replace {VIP} lladdr {STRANGER_MAC} dev $br nud permanent", f"ip neigh del {VIP} dev $br"
                ),
            )
        ),
        fail("vip.bastion", says=f"it is between the bastion and {VIP}"),
    ),
    Condition(
        "a node sends to a backup what is meant for the VIP",
        "segment",
        _told_to_send(THIRD, "198.51.100.12"),
        fail("vip.mac", THIRD, says=f"which is {SECOND}'s, and {HOLDER} holds {VIP}\na static entry"),
        # A node that forwards brings it to the holder all the same.
        also=(
            *fail("vip.ping", THIRD, says="does not answer ping"),
            *fail("vip.request", THIRD, says=f"Failed to connect to {VIP}"),
        ),
        typed=f"exlb exec --sudo --nodes {THIRD} -- ip neigh del {VIP} dev host0",
    ),
    Condition(
        "a node sends to the holder what is meant for the VIP, whoever holds it",
        "segment",
        _told_to_send(THIRD, "198.51.100.11"),
        fail("vip.mac", THIRD, says=f"which is {HOLDER}'s, and still will once another node holds {VIP}"),
        typed=f"exlb exec --sudo --nodes {THIRD} -- ip neigh del {VIP} dev host0",
    ),
)
