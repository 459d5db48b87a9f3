"""Several nodes hold the VIP: each time another cause, and it is named."""

from __future__ import annotations

from exlb_fab.lab.layout import VIP
from tests.lab.bastion import KEEPALIVED_PATH
from tests.lab.conditions.base import ALL, HOLDER, OVER_IPV6, SECOND, THIRD, Condition, Fault, fail, others, warn
from tests.lab.conditions.faults import On, Together, edited_keepalived, lost_adverts, rules, unheard_adverts

_DROP = """
table inet condition {{
    chain {hook} {{
        type filter hook {hook} priority filter; policy accept;
        meta l4proto 112 drop
    }}
}}
"""
LOST_ON_THEIR_WAY = lost_adverts(HOLDER)
_BACKUP_EDITED = fail("node.files", THIRD, says=f"{KEEPALIVED_PATH} differs")
_COMPLAINTS = warn("vrrp.complaints", *ALL, says="bogus VRRP packet")
# A master that hears adverts that it drops sends fewer of its own, and the third node may hear none for a while.
# So it takes the VIP, and gives it back.
_PUT_OFF = (
    *fail("vrrp.adverts", *ALL, says="drops adverts of the others"),
    *fail("vrrp.settled", says="does not come to rest"),
)


def _restarted(expression: str, node: str) -> Fault:
    """Edit keepalived.conf by hand; with keepalived on all nodes anew, what they have complained of is past."""
    load = "systemctl restart keepalived"
    return Together((On(ALL, "true", load), edited_keepalived(expression, node, load=load)))


CONDITIONS = (
    Condition(
        "the VRID of a backup differs",
        "split brain",
        _restarted("s/virtual_router_id 68/virtual_router_id 69/", THIRD),
        (
            *fail("vip.single-holder", says=f"VRID: 68 on {HOLDER}, 69 on {THIRD}"),
            *fail("vrrp.agree", says=f"69 on {THIRD}"),
            *fail("vrrp.running", THIRD, says="VRID 69 instead of 68"),
            *_BACKUP_EDITED,
        ),
        also=_COMPLAINTS,
        takes="an election",
    ),
    Condition(
        "firewalls on all nodes drop protocol 112",
        "split brain",
        rules(_DROP.format(hook="input"), *ALL),
        (
            *fail("vip.single-holder", says="nftables on lb1, lb2 and lb3 does not let VRRP (protocol 112) in"),
            *fail("firewall.vrrp", *ALL, says="nftables does not let in: VRRP (protocol 112)"),
        ),
        takes="an election",
    ),
    Condition(
        "the firewall of one backup drops protocol 112",
        "split brain",
        rules(_DROP.format(hook="input"), THIRD),
        (
            *fail("vip.single-holder", says=f"nftables on {THIRD} does not let VRRP (protocol 112) in"),
            *fail("firewall.vrrp", THIRD, says="nftables does not let in: VRRP (protocol 112)"),
        ),
        takes="an election",
    ),
    Condition(
        "the holder's own firewall holds its adverts back",
        "split brain",
        rules(_DROP.format(hook="output"), HOLDER),
        (
            *fail("vip.single-holder", says=f"nftables on {HOLDER} does not let VRRP (protocol 112) out"),
            *fail("firewall.vrrp", HOLDER, says="nftables does not let out: VRRP (protocol 112)"),
        ),
        takes="an election",
    ),
    Condition(
        "firewalls on all nodes hold the adverts back",
        "split brain",
        rules(_DROP.format(hook="output"), *ALL),
        (
            *fail("vip.single-holder", says="nftables on lb1, lb2 and lb3 does not let VRRP (protocol 112) out"),
            *fail("firewall.vrrp", *ALL, says="nftables does not let out: VRRP (protocol 112)"),
        ),
        takes="an election",
    ),
    Condition(
        "adverts of the holder are lost on their way: one way is cut",
        "split brain",
        LOST_ON_THEIR_WAY,
        fail("vip.single-holder", says=f"adverts reach {HOLDER}, and do not reach {SECOND}: one way is cut"),
        takes="an election",
    ),
    Condition(
        "adverts of the holder to the group are lost on their way",
        "split brain",
        LOST_ON_THEIR_WAY,
        fail("vip.single-holder", says=f"adverts reach {HOLDER}, and do not reach {SECOND}: one way is cut"),
        takes="an election",
        variables={"VRRP_MODE": "multicast"},
    ),
    Condition(
        "adverts of the holder of an IPv6 VIP are lost on their way",
        "split brain",
        LOST_ON_THEIR_WAY,
        fail("vip.single-holder", says=f"adverts reach {HOLDER}, and do not reach {SECOND}: one way is cut"),
        takes="an election",
        variables=OVER_IPV6,
    ),
    Condition(
        "a backup that waits long hears no adverts",
        "split brain",
        Together(
            (edited_keepalived("s/^( *)advert_int 1/&\\n\\1down_timer_adverts 100/", THIRD), unheard_adverts(THIRD))
        ),
        (
            *fail("vrrp.adverts", THIRD, says="hears no adverts, and will take the VIP"),
            *_BACKUP_EDITED,
        ),
        takes="an election",
    ),
    Condition(
        "all adverts are lost on their way",
        "split brain",
        lost_adverts(*ALL),
        fail("vip.single-holder", says="they do not hear each other's adverts"),
        takes="an election",
    ),
    Condition(
        "a peer of the holder is wrong",
        "split brain",
        edited_keepalived(r"s/^ +198\.51\.100\.12$/        198.51.100.99/", HOLDER),
        (
            *fail("vip.single-holder", says=f"{HOLDER} does not have {SECOND} among its peers"),
            *fail("vrrp.agree", says=f"{HOLDER} does not have {SECOND} among its peers"),
            *fail("vrrp.running", HOLDER, says="peers 198.51.100.13, 198.51.100.99 instead of"),
            *fail("node.files", HOLDER, says=f"{KEEPALIVED_PATH} differs"),
        ),
        takes="an election",
    ),
    Condition(
        "the password of a backup differs",
        "split brain",
        _restarted("s/auth_pass .*/auth_pass another1/", THIRD),
        (
            *fail("vip.single-holder", says="drops adverts of the others: the passwords differ"),
            *warn("vrrp.complaints", *ALL, says="dropped adverts in the last minutes"),
            *_BACKUP_EDITED,
        ),
        also=_PUT_OFF,
        takes="an election",
        variables={"AUTH_PASS": "verdict1"},
    ),
    Condition(
        "only a backup has a password",
        "split brain",
        _restarted(
            r"s/^( *)virtual_router_id 68/&\n\1authentication {\n\1auth_type PASS\n\1auth_pass another1\n\1}/", THIRD
        ),
        (
            *fail("vip.single-holder", says=f"password: no on {HOLDER}, yes on {THIRD}"),
            *fail("vrrp.agree", says=f"yes on {THIRD}"),
            *fail("vrrp.running", THIRD, says="password yes instead of no"),
            *_BACKUP_EDITED,
        ),
        also=(*_COMPLAINTS, *_PUT_OFF),
        takes="an election",
    ),
    Condition(
        "the advert interval of a backup differs",
        "split brain",
        _restarted("s/advert_int 1/advert_int 2/", THIRD),
        (
            *fail("vip.single-holder", says=f"advert interval: 1 s on {HOLDER}, 2 s on {THIRD}"),
            *fail("vrrp.agree", says=f"2 s on {THIRD}"),
            *fail("vrrp.running", THIRD, says="advert interval 2.0 instead of 1"),
            *_BACKUP_EDITED,
        ),
        also=(*_COMPLAINTS, *_PUT_OFF),
        takes="an election",
    ),
    Condition(
        "keepalived of a backup runs on another interface",
        "split brain",
        Together(
            (
                On(
                    (THIRD,),
                    "ip link add wrong0 type veth peer name wrong1 && ip link set wrong1 up && ip link set wrong0 up",
                    "ip link del wrong0",
                ),
                _restarted("s/interface host0/interface wrong0/", THIRD),
            )
        ),
        (
            *fail("vip.single-holder", says=f"{THIRD} runs on wrong0 instead of host0"),
            *fail("vrrp.running", THIRD, says="interface wrong0 instead of host0"),
            *_BACKUP_EDITED,
        ),
        takes="an election",
    ),
    Condition(
        "the VIP by hand on a backup",
        "split brain",
        On((SECOND,), f"ip addr add {VIP}/32 dev host0", f"ip addr del {VIP}/32 dev host0 || true"),
        (
            *fail("vip.single-holder", says=f"keepalived on {SECOND} is not MASTER"),
            *fail("vrrp.state", SECOND, says="the address is stale"),
        ),
        typed=f"exlb restart keepalived --nodes {SECOND}",
    ),
    Condition(
        "the VIP by hand on the loopback of a backup",
        "split brain",
        On((SECOND,), f"ip addr add {VIP}/32 dev lo", f"ip addr del {VIP}/32 dev lo || true"),
        (
            *fail("vip.single-holder", says=f"somebody else than keepalived has added {VIP}/32 on lo of {SECOND}"),
            *fail("vrrp.state", SECOND, says=f"somebody else than keepalived has added {VIP}/32 on lo of {SECOND}"),
        ),
        typed=f"exlb exec --sudo --nodes {SECOND} -- ip addr del {VIP}/32 dev lo",
    ),
    Condition(
        "the VIP by hand on the loopback of the holder, where it would stay",
        "split brain",
        On((HOLDER,), f"ip addr add {VIP}/32 dev lo", f"ip addr del {VIP}/32 dev lo || true"),
        fail("vip.once", says=f"somebody else than keepalived has added {VIP}/32 on lo of {HOLDER}"),
        typed=f"exlb exec --sudo --nodes {HOLDER} -- ip addr del {VIP}/32 dev lo",
    ),
    Condition(
        "another VIP in the file of a backup",
        "split brain",
        _restarted(r"s/198\.51\.100\.100/198.51.100.101/", THIRD),
        (
            *fail("vrrp.state", THIRD, says=f"keepalived runs without {VIP}"),
            *fail("vrrp.running", THIRD, says=f"keepalived runs without {VIP}"),
            # Each node misses its own in the adverts of the others.
            *warn("vrrp.complaints", *others(THIRD), says=f"VRID 68 not present in MASTER advert: {VIP}"),
            *warn("vrrp.complaints", THIRD, says="VRID 68 not present in MASTER advert: 198.51.100.101"),
            *_BACKUP_EDITED,
        ),
        also=_PUT_OFF,
        takes="an election",
    ),
    Condition(
        "a second VIP is on two nodes",
        "split brain",
        On((SECOND,), "ip addr add 198.51.100.101/32 dev host0", "ip addr del 198.51.100.101/32 dev host0 || true"),
        fail("vip.extra", says=f"198.51.100.101 is on {HOLDER}, {SECOND}"),
        variables={"EXTRA_VIPS": "(198.51.100.101)"},
        typed=f"exlb restart keepalived --nodes {SECOND}",
    ),
)
