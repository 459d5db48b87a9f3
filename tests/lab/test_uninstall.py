"""exlb uninstall: the nodes are what they were before exlb, wherever the one before it was killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from exlb_fab.lab import Lab
from tests.lab.bastion import KEEPALIVED_PATH, PROXY_PATH, Bastion

# Not exlb's to take back: users that packages made (rpm leaves them, and their files have copies from before the last
# change), and what keepalived 2.3 tells iproute2 of itself as it starts.
WHAT_IS_THERE = r"""
set -e
cd /etc
users='-name passwd* -o -name group* -o -name *shadow*'
set -f
find . -type f ! \( $users \) ! -path './iproute2/*' | LC_ALL=C sort | while read -r path; do
    echo "$path $(stat -c '%a %u:%g' "$path") $(sha256sum <"$path")"
done
find . -type l -printf '%p -> %l\n' | LC_ALL=C sort
find . -type d ! -path './iproute2*' | LC_ALL=C sort
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n' | LC_ALL=C sort
if command -v rpm >/dev/null; then rpm -qa | LC_ALL=C sort; fi
systemctl list-unit-files --no-legend --no-pager | grep -v '^session-'
find /run /var/lib /etc /usr/local -name '*exlb*'
"""

HAND_MADE_PROXY = """\
global
    daemon
    maxconn 2000
defaults
    mode tcp
    timeout connect 5s
    timeout client 10m
    timeout server 10m
listen by-hand
    bind :8443
    server one {0}:6443 check
    server two {1}:6443 check
"""
HAND_MADE_KEEPALIVED = """\
vrrp_instance BY_HAND {{
    state BACKUP
    interface host0
    virtual_router_id 51
    priority {priority}
    advert_int 1
    virtual_ipaddress {{
        {vip}
    }}
}}
"""


def what_is_there(bastion: Bastion) -> dict[str, list[str]]:
    """Return the files below /etc, the packages and the unit files of every node, and what is named after exlb."""
    return {node: bastion.inside(node, "sh", "-c", WHAT_IS_THERE).splitlines() for node in bastion.nodes}


def unit_states(bastion: Bastion) -> dict[str, list[str]]:
    """Return per node: is-enabled and is-active of both units."""
    script = "for unit in haproxy keepalived; do systemctl is-enabled $unit; systemctl is-active $unit; done"
    return {node: bastion.inside(node, "sh", "-c", script, check=False).split() for node in bastion.nodes}


def gone(bastion: Bastion) -> bool:
    """Tell whether the session's own directory is gone: its lock takes it along, behind the session."""
    return not any(bastion.inside(node, "sh", "-c", "ls -d /run/exlb 2>/dev/null || true") for node in bastion.nodes)


def uninstalled(bastion: Bastion, before: dict[str, list[str]]) -> None:
    """Assert that nothing is left, and that there is nothing to do any more."""
    bastion.wait_until(lambda: gone(bastion))
    assert what_is_there(bastion) == before
    assert bastion.holders() == []
    again = bastion.exlb("uninstall", "--purge")
    assert "nothing to do: exlb is not on these nodes" in again.said
    assert what_is_there(bastion) == before, "not even the lock is left by a run that has nothing to do"


@contextmanager
def killed_at(bastion: Bastion, node: str, program: str, words: str) -> Iterator[None]:
    """Kill what runs on a node, with nothing left of it, when it comes to a program with such words."""
    with bastion.held(node, program, words, "exlb-apply") as stands:
        yield
        bastion.wait_until(stands)
        bastion.inside(node, "systemctl", "kill", "--signal=KILL", "exlb-apply.service")


def test_purge_leaves_the_nodes_as_they_were(bastion: Bastion) -> None:
    before = what_is_there(bastion)
    assert "nothing to do" in bastion.exlb("uninstall", "--purge").said
    bastion.exlb("deploy")
    planned = bastion.exlb("uninstall", "--purge", "--dry-run", "-o", "json")
    assert set(planned.results.values()) == {"pending"}
    asked = bastion.exlb("uninstall", "--purge", status=2)
    assert f"nobody will hold {bastion.lab.vip}" in asked.said
    assert "nobody will listen on port 8443" in asked.said
    assert bastion.served()
    bastion.exlb("uninstall", "--purge", "--yes")
    uninstalled(bastion, before)


@pytest.mark.slow
def test_without_purge_the_packages_stay_and_nothing_runs(bastion: Bastion) -> None:
    before = what_is_there(bastion)
    bastion.exlb("deploy")
    said = bastion.exlb("uninstall", "--yes").said
    assert "the packages that exlb installed on lb1, lb2, lb3 stay" in said
    assert set(map(tuple, unit_states(bastion).values())) == {("disabled", "inactive", "disabled", "inactive")}
    assert bastion.bytes_of("lb1")[1] == "", "there was no keepalived.conf"
    bastion.exlb("deploy")
    assert bastion.served()
    bastion.exlb("uninstall", "--purge", "--yes")
    packages = "apt-get purge -y --autoremove haproxy keepalived psmisc curl socat"
    for node in bastion.nodes:
        bastion.inside(node, "sh", "-c", packages)
    assert what_is_there(bastion) == before


@pytest.mark.slow
def test_killed_exlb_is_ended_by_the_next(bastion: Bastion) -> None:
    before = what_is_there(bastion)
    bastion.exlb("deploy")
    last = bastion.holders()
    running = bastion.start("uninstall", "--purge", "--yes")
    bastion.wait_until(lambda: bastion.bytes_of("lb2")[1] == "")
    running.kill()
    running.communicate()
    assert bastion.holders() == last, "who holds the VIP is the last to go"
    bastion.exlb("recover", "--lock-wait", "60")
    assert bastion.served(), "one node serves until the next run ends it"
    bastion.exlb("uninstall", "--purge", "--yes", "--lock-wait", "60")
    uninstalled(bastion, before)


@pytest.mark.slow
@pytest.mark.parametrize(("program", "words"), [("dpkg", "--purge"), ("rm", "/var/lib/exlb/generations")])
def test_killed_program_of_a_node_is_ended_by_the_next(bastion: Bastion, program: str, words: str) -> None:
    before = what_is_there(bastion)
    bastion.exlb("deploy")
    with killed_at(bastion, "lb1", program, words):
        running = bastion.start("uninstall", "--purge", "--yes")
    said = running.communicate(timeout=120)
    assert running.returncode == 1, said
    assert b"the same command again ends it" in said[0]
    assert "exlb was being removed from this node" in bastion.exlb("deploy", status=1).said
    bastion.exlb("recover")
    bastion.exlb("uninstall", "--purge", "--yes", "--lock-wait", "60")
    uninstalled(bastion, before)


@pytest.mark.slow
def test_what_ran_before_exlb_runs_on_its_own_bytes_again(bastion: Bastion, fresh_lab: Lab) -> None:
    addresses = [bastion.address(node) for node in bastion.nodes]
    for place, node in enumerate(bastion.nodes):
        bastion.inside(
            node, "sh", "-c", "apt-get update -qq && apt-get install -qq -y haproxy keepalived >/dev/null 2>&1"
        )
        proxy = HAND_MADE_PROXY.format(*addresses)
        own = HAND_MADE_KEEPALIVED.format(priority=103 - place, vip=fresh_lab.vip)
        for path, text, mode in ((PROXY_PATH, proxy, "640"), (KEEPALIVED_PATH, own, "600")):
            bastion.inside(node, "sh", "-c", f"printf '%s' '{text}' >{path} && chmod {mode} {path}")
        bastion.inside(node, "sh", "-c", "systemctl restart haproxy keepalived && systemctl disable -q keepalived")
    bastion.wait_until(lambda: bastion.served() and len(bastion.holders()) == 1)
    before, states = what_is_there(bastion), unit_states(bastion)
    bastion.exlb("deploy", "--yes")
    with bastion.watched() as watch:
        bastion.exlb("uninstall", "--purge", "--yes")
    assert watch.seen.most_holders == 1, watch.seen
    bastion.wait_until(lambda: bastion.served() and len(bastion.holders()) == 1)
    assert unit_states(bastion) == states
    bastion.wait_until(lambda: gone(bastion))
    assert what_is_there(bastion) == before
    assert "nothing to do" in bastion.exlb("uninstall").said
