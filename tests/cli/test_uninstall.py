"""uninstall and decommission: the end of the entrance, and of one node of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.conftest import Site
from tests.fake import KEEPALIVED_PATH, PROXY, FakeFile, FakeUnit

LB3 = "198.51.100.13"
OWN_PROXY = "listen own\n    bind *:8443\n    server a 198.51.100.1:6443\n"
OWN_KEEPALIVED = """\
vrrp_instance OWN {
    virtual_router_id 9
    interface eth0
    priority 100
    virtual_ipaddress {
        198.51.100.100
    }
}
"""


def changing(site: Site) -> list[str]:
    """Return what was done to the nodes, in its order."""
    words = ("activate", "units", "uninstall", "stage", "install")
    return [entry for entry in site.fleet.journal if entry.split(" ")[1] in words]


def inhabited(site: Site, *names: str) -> Site:
    """Give nodes a proxy and a keepalived of their own that run, and are not started at boot."""
    for name in names:
        fake = site.fleet[name]
        fake.programs |= {"haproxy", "keepalived"}
        fake.files = {PROXY.path: FakeFile(OWN_PROXY, 0o640), KEEPALIVED_PATH: FakeFile(OWN_KEEPALIVED, 0o600)}
        fake.running = OWN_PROXY
        fake.units = {
            "haproxy": FakeUnit("active", "enabled", "loaded", OWN_PROXY),
            "keepalived": FakeUnit("active", "disabled", "loaded", OWN_KEEPALIVED),
        }
    return site


@pytest.fixture
def without_lb3(green: Site) -> Site:
    """A cluster that lb3 has left; it still has all that exlb brought."""
    green.change(NODE_IPS="(198.51.100.11 198.51.100.12)", NODE_NAMES="(lb1 lb2)", APISERVER_IPS=f"({LB3})")
    green.exlb("push-config", "--yes")
    return green


def test_purge_leaves_nothing_and_says_so(green: Site, fresh: Site) -> None:
    ran = green.exlb("uninstall", "--purge", "--yes", "-o", "json")
    assert set(ran.results.values()) == {"changed"}
    for fake in green.fleet:
        assert (fake.files, fake.generations, fake.record, fake.running) == ({}, {}, None, None)
        assert fake.programs == {"ip", "ss", "ping"}
    assert green.fleet.holder is None
    assert "nothing to do: exlb is not on these nodes" in green.exlb("uninstall", "--purge").stdout


def test_backups_go_first_the_holder_last_and_only_then_what_exlb_keeps(green: Site) -> None:
    green.exlb("uninstall", "--yes")
    assert [entry.split(" ")[:2] for entry in changing(green)[:3]] == [
        ["lb2", "activate"],
        ["lb3", "activate"],
        ["lb1", "activate"],
    ]
    assert {entry.split(" ")[1] for entry in changing(green)[3:]} == {"uninstall"}
    assert green.fleet.most_holders == 1


def test_packages_stay_unless_they_are_to_go(green: Site) -> None:
    said = green.exlb("uninstall", "--yes").said
    assert "the packages that exlb installed on lb1, lb2, lb3 stay" in said
    for fake in green.fleet:
        assert {"haproxy", "keepalived", "curl"} <= fake.programs
        assert {(unit.active, unit.file_state) for unit in fake.units.values()} == {("inactive", "disabled")}


def test_end_of_the_entrance_is_asked_for(green: Site) -> None:
    before = green.fleet.state
    asked = green.exlb("uninstall", status=2)
    assert "nothing can be rolled back" in asked.stderr
    assert "keepalived stops on all nodes: nobody will hold 198.51.100.100" in asked.stderr
    assert "nobody will listen on port 8443 of lb1, lb2, lb3 any more" in asked.stderr
    assert green.fleet.state == before


def test_dry_run_is_the_same_plan_and_touches_nothing(green: Site) -> None:
    before = green.fleet.state
    planned = green.exlb("uninstall", "--purge", "--dry-run", "-o", "json").json
    assert green.fleet.state == before
    done = green.exlb("uninstall", "--purge", "--yes", "-o", "json").json
    assert [row["detail"] for row in planned["nodes"]] == [row["detail"] for row in done["nodes"]]
    assert planned["notices"] == done["notices"]


def test_what_ran_before_exlb_runs_again_and_its_packages_stay(fresh: Site) -> None:
    before = [fake.state for fake in inhabited(fresh, "lb1", "lb2", "lb3").fleet]
    fresh.exlb("deploy", "--yes")
    assert fresh.fleet["lb1"].files[PROXY.path].text != OWN_PROXY
    fresh.exlb("uninstall", "--purge", "--yes")
    assert [fake.state for fake in fresh.fleet] == before
    assert fresh.fleet.most_holders == 1


def test_without_a_record_only_what_did_not_run_before_goes(green: Site) -> None:
    for fake in green.fleet:
        fake.record = None
        fake.generations[0].units = "haproxy enabled active\nkeepalived enabled inactive\n"
        fake.generations[0].files[PROXY.path] = FakeFile(OWN_PROXY)
    ran = green.exlb("uninstall", "--purge", "--yes")
    assert "nothing has recorded what exlb installed on lb1, lb2, lb3" in ran.stderr
    for fake in green.fleet:
        assert fake.programs == {"ip", "ss", "ping", "killall", "curl", "socat", "haproxy"}
        assert fake.running == OWN_PROXY


def test_files_that_no_unit_will_run_on_are_not_validated(green: Site) -> None:
    for fake in green.fleet:
        fake.generations[0].files[PROXY.path] = FakeFile("nbproc 1\n")
    green.exlb("uninstall", "--yes")
    assert green.fleet.count("prepare 0000 idle-proxy") == {"lb1": 1, "lb2": 1, "lb3": 1}
    assert green.fleet["lb1"].files[PROXY.path].text == "nbproc 1\n"


def test_node_on_which_it_fails_is_ended_by_the_next_run(green: Site) -> None:
    green.fleet["lb2"].failing["uninstall"] = "dpkg: error: dpkg frontend lock was locked"
    failed = green.exlb("uninstall", "--purge", "--yes", status=1)
    assert "dpkg frontend lock" in failed.stdout
    assert "the same command again ends it" in failed.stdout
    assert green.fleet["lb2"].leaving
    green.fleet["lb2"].failing.clear()
    ran = green.exlb("uninstall", "--purge", "--yes", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "changed", "lb3": "unchanged"}
    assert green.fleet["lb2"].programs == {"ip", "ss", "ping"}


def test_node_that_fails_to_go_back_stops_it_before_anything_is_lost(green: Site) -> None:
    green.fleet["lb3"].failing["activate"] = "the files cannot be put back"
    ran = green.exlb("uninstall", "--yes", "--on-failure", "rollback-all", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "restored", "lb3": "failed"}
    assert green.fleet.count("uninstall") == {"lb1": 0, "lb2": 0, "lb3": 0}
    assert green.fleet.holder is green.fleet["lb1"]


def test_node_with_packages_alone_loses_them(fresh: Site) -> None:
    fresh.exlb("install")
    ran = fresh.exlb("uninstall", "--purge", "--yes", "-o", "json")
    assert set(ran.results.values()) == {"changed"}
    assert fresh.fleet.count("activate") == {"lb1": 0, "lb2": 0, "lb3": 0}
    assert all(fake.programs == {"ip", "ss", "ping"} for fake in fresh.fleet)


def test_some_nodes_alone_are_refused_while_the_others_send_to_them(green: Site) -> None:
    before = green.fleet.state
    refused = green.exlb("uninstall", "--nodes", "lb3", "--yes", status=2)
    assert "lb1, lb2 would go on with lb3 as a peer" in refused.stderr
    assert "exlb decommission lb3" in refused.stderr
    assert green.fleet.state == before


def test_node_that_was_away_is_ended_by_itself(green: Site) -> None:
    green.fleet.cut("lb3")
    before = green.fleet.state
    green.exlb("uninstall", "--yes", status=4)
    assert green.fleet.state == before
    ran = green.exlb("uninstall", "--yes", "--skip-unreachable", status=4)
    assert "lb3 cannot be asked: it keeps what it has, and may hold 198.51.100.100" in ran.stderr
    green.fleet["lb3"].unreachable = None
    green.exlb("uninstall", "--yes", "--nodes", "lb3")
    assert green.fleet["lb3"].generations == {}


def test_stopped_keepalived_everywhere_does_not_hinder_it(green: Site) -> None:
    for fake in green.fleet:
        fake.act("keepalived", "stop")
    green.exlb("uninstall", "--yes")
    assert all(fake.generations == {} for fake in green.fleet)


# decommission


def test_node_that_left_is_cleaned(without_lb3: Site) -> None:
    ran = without_lb3.exlb("decommission", LB3, "--purge", "--yes", "-o", "json")
    assert ran.results == {LB3: "changed"}
    fake = without_lb3.fleet["lb3"]
    assert (fake.files, fake.generations, fake.record) == ({}, {}, None)
    assert fake.programs == {"ip", "ss", "ping"}
    assert without_lb3.fleet.count("uninstall") == {"lb1": 0, "lb2": 0, "lb3": 1}
    assert without_lb3.fleet.holder is without_lb3.fleet["lb1"]
    assert "nothing to do" in without_lb3.exlb("decommission", LB3).stdout


@pytest.mark.parametrize("named", ["lb3", LB3])
def test_node_of_the_cluster_is_not_decommissioned(green: Site, named: str) -> None:
    before = green.fleet.state
    refused = green.exlb("decommission", named, "--yes", status=2)
    assert f"lb3 ({LB3}) is still in NODE_IPS" in refused.stderr
    assert f"then exlb decommission {LB3}" in refused.stderr
    assert green.fleet.state == before


def test_peer_of_the_others_is_not_decommissioned(green: Site) -> None:
    green.change(NODE_IPS="(198.51.100.11 198.51.100.12)", NODE_NAMES="(lb1 lb2)", APISERVER_IPS=f"({LB3})")
    before = green.fleet.state
    refused = green.exlb("decommission", LB3, "--yes", status=1)
    assert f"{LB3} is still a peer of lb1, lb2" in refused.stderr
    assert "exlb push-config" in refused.stderr
    assert green.fleet.state == before


def test_node_of_the_cluster_by_another_of_its_addresses_is_not_decommissioned(
    green: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By multicast nobody lists it as a peer.
    green.change(VRRP_MODE="multicast")
    green.exlb("push-config", "--yes")
    other, connect = "198.51.100.23", green.fleet.connect
    known = {node.address: node for node in green.fleet.cluster.nodes}
    monkeypatch.setattr(green.fleet, "connect", lambda node: connect(known.get(node.address, green.fleet["lb3"].node)))
    seen = "".join(f"2: eth0 inet {each}/24 scope global eth0\n" for each in (LB3, other))
    green.fleet["lb3"].answers["addresses"] = (0, seen)
    refused = green.exlb("decommission", other, "--yes", status=2)
    assert f"{other} is lb3 ({LB3}), which is still in NODE_IPS" in refused.stderr


def test_holder_that_left_goes_where_no_push_can_tell_it_to_stop(site: Callable[..., Site]) -> None:
    made = site(VRRP_MODE="multicast")
    made.exlb("deploy", "--yes")
    left = {"NODE_IPS": f"(198.51.100.12 {LB3})", "NODE_NAMES": "(lb2 lb3)", "APISERVER_IPS": f"({LB3})"}
    made.change(VRRP_MODE="multicast", **left)
    ran = made.exlb("decommission", "198.51.100.11", "--yes")
    assert "198.51.100.11 holds 198.51.100.100: it moves to another node" in ran.stderr
    assert made.fleet.holder is made.fleet["lb2"]
    assert made.fleet.most_holders == 1
    made.exlb("push-config", "--yes")


def test_holder_that_left_stays_where_nobody_could_take_over(site: Callable[..., Site]) -> None:
    made = site(VRRP_MODE="multicast")
    made.exlb("deploy", "--yes")
    for name in ("lb2", "lb3"):
        made.fleet[name].act("keepalived", "stop")
    left = {"NODE_IPS": f"(198.51.100.12 {LB3})", "NODE_NAMES": "(lb2 lb3)", "APISERVER_IPS": f"({LB3})"}
    made.change(VRRP_MODE="multicast", **left)
    refused = made.exlb("decommission", "198.51.100.11", "--yes", status=1)
    assert "keepalived runs on no other node" in refused.stderr
    assert made.fleet.holder is made.fleet["lb1"]


def test_node_that_cannot_be_reached_is_exit_4(without_lb3: Site) -> None:
    without_lb3.fleet.cut("lb3")
    refused = without_lb3.exlb("decommission", LB3, "--yes", status=4)
    assert "nothing was changed on any node" in refused.stderr


def test_keepalived_of_a_node_that_left_stays_off_however_it_was_found(site: Callable[..., Site]) -> None:
    made = inhabited(site(), "lb3")
    made.exlb("deploy", "--yes")
    made.change(NODE_IPS="(198.51.100.11 198.51.100.12)", NODE_NAMES="(lb1 lb2)", APISERVER_IPS=f"({LB3})")
    made.exlb("push-config", "--yes")
    made.exlb("decommission", LB3, "--yes")
    fake = made.fleet["lb3"]
    assert fake.files[KEEPALIVED_PATH].text == OWN_KEEPALIVED
    assert (fake.units["keepalived"].active, fake.units["keepalived"].file_state) == ("inactive", "disabled")
    assert fake.running == OWN_PROXY
    assert made.fleet.most_holders == 1


def test_name_that_nobody_knows_is_a_usage_error(green: Site) -> None:
    assert "no address" in green.exlb("decommission", "lb9.invalid", status=2).stderr


def test_decommission_takes_no_other_nodes(green: Site) -> None:
    green.exlb("decommission", LB3, "--nodes", "lb1", status=2)
