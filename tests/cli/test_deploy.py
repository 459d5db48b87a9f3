"""deploy and install: from nothing to green, and no further."""

from __future__ import annotations

import pytest

from exlb_fab.errors import AuthenticationError, OverdueError
from tests.cli.conftest import Site
from tests.fake import ROCKY, Clock


def test_deploy_takes_fresh_nodes_to_green(fresh: Site) -> None:
    ran = fresh.exlb("deploy", "-o", "json")
    assert {row["result"] for row in ran.json["install"]["nodes"]} == {"changed"}
    assert {row["result"] for row in ran.json["push"]["nodes"]} == {"changed"}
    assert {verdict["status"] for verdict in ran.json["verify"]["verdicts"]} == {"pass"}
    assert fresh.fleet.holder is fresh.fleet["lb1"]
    assert "GREEN" in fresh.exlb("verify").stdout


def test_second_deploy_changes_nothing_and_says_so(green: Site) -> None:
    before = green.fleet.state
    ran = green.exlb("deploy")
    assert "everything is installed" in ran.said
    assert "no changes" in ran.said
    assert green.fleet.state == before
    assert {call.split()[0] for node in green.fleet for call in node.calls} == {"probe", "close"}


def test_nodes_that_serve_nobody_are_all_changed_at_once(fresh: Site) -> None:
    fresh.exlb("deploy")
    changing = [entry for entry in fresh.fleet.journal if " activate " in entry]
    first, last = (fresh.fleet.journal.index(entry) for entry in (changing[0], changing[-1]))
    between = fresh.fleet.journal[first:last]
    assert len(changing) == 3
    assert not any(" probe " in entry for entry in between), "no gate between nodes of one wave"


def test_failing_install_ends_the_deploy_before_the_push(fresh: Site) -> None:
    fresh.fleet["lb2"].failing["install"] = "E: Unable to locate package haproxy"
    ran = fresh.exlb("deploy", "-o", "json", status=1)
    assert ran.json["push"] is None
    assert ran.json["verify"] is None
    assert not any("stage" in entry for entry in fresh.fleet.journal)


def test_failing_push_ends_the_deploy_before_verify(fresh: Site) -> None:
    fresh.fleet["lb2"].failing["stage"] = "[ALERT] unknown keyword"
    ran = fresh.exlb("deploy", "-o", "json", status=1)
    assert ran.json["verify"] is None


def test_install_goes_by_the_package_manager_that_the_node_has(fresh: Site) -> None:
    fresh.fleet["lb3"].release, fresh.fleet["lb3"].managers = ROCKY, "dnf"
    fresh.exlb("install")
    wanted = "haproxy keepalived psmisc curl socat"
    calls = {node.name: [call for call in node.calls if call.startswith("install")] for node in fresh.fleet}
    assert calls == {
        "lb1": [f"install apt-get {wanted}"],
        "lb2": [f"install apt-get {wanted}"],
        "lb3": [f"install dnf {wanted}"],
    }


def test_install_runs_no_package_manager_where_all_is_there(green: Site) -> None:
    ran = green.exlb("install", "-o", "json")
    assert set(ran.results.values()) == {"unchanged"}
    assert green.fleet.count("install") == {"lb1": 0, "lb2": 0, "lb3": 0}


def test_install_brings_only_what_is_missing(green: Site) -> None:
    green.fleet["lb2"].programs.remove("socat")
    green.fleet["lb3"].units["keepalived"].file_state = "disabled"
    ran = green.exlb("install", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "changed", "lb3": "changed"}
    assert "install apt-get socat" in green.fleet["lb2"].calls
    assert "install apt-get" in green.fleet["lb3"].calls
    assert green.fleet["lb3"].units["keepalived"].file_state == "enabled"


def test_failing_package_manager_is_heard_and_the_others_are_installed(fresh: Site) -> None:
    fresh.fleet["lb2"].failing["install"] = "Reading package lists...\nE: Unable to locate package haproxy"
    ran = fresh.exlb("install", status=1)
    assert "E: Unable to locate package haproxy" in ran.said
    assert "1 failed; of 3" in ran.said
    assert "haproxy" in fresh.fleet["lb3"].programs


def test_distribution_that_exlb_does_not_know_is_named(fresh: Site) -> None:
    fresh.fleet["lb2"].release = "PRETTY_NAME='Alpine Linux v3.19'\nID=alpine\n"
    ran = fresh.exlb("install", "-o", "json", status=1)
    assert ran.results == {"lb1": "changed", "lb2": "failed", "lb3": "changed"}
    assert "Alpine Linux v3.19: no package manager that exlb knows" in ran.said


@pytest.mark.parametrize("command", ["install", "deploy"])
def test_install_finishes_on_the_others_when_a_node_is_unreachable(fresh: Site, command: str) -> None:
    fresh.fleet.cut("lb2")
    ran = fresh.exlb(command, "-o", "json", status=4)
    rows = (ran.json if command == "install" else ran.json["install"])["nodes"]
    assert [row["result"] for row in rows] == ["changed", "unreachable", "changed"]
    assert not any("stage" in entry for entry in fresh.fleet.journal)


def test_node_that_does_not_accept_us_counts_as_unreachable_and_keeps_its_hint(fresh: Site) -> None:
    fresh.fleet["lb2"].unreachable = AuthenticationError("lb2: Authentication failed", hint="check SSH_USER")
    ran = fresh.exlb("install", "-o", "json", status=4)
    assert [row["hint"] for row in ran.json["nodes"]] == [None, "check SSH_USER", None]


# Upgrades


def upgraded(site: Site) -> list[str]:
    return [entry.split()[0] for entry in site.fleet.journal if " install apt-get-upgrade " in entry]


def test_upgrade_goes_node_by_node_with_the_holder_last_and_says_what_it_brought(green: Site) -> None:
    for node in green.fleet:
        node.newest["haproxy"] = "1.1-1"
    ran = green.exlb("install", "--upgrade", "-o", "json")
    assert upgraded(green) == ["lb2", "lb3", "lb1"]
    assert ran.results == {"lb1": "changed", "lb2": "changed", "lb3": "changed"}
    assert {row["detail"] for row in ran.json["nodes"]} == {"haproxy 1.0-1 -> 1.1-1"}


def test_upgrade_warns_that_the_packages_restart_services_on_the_holder(green: Site) -> None:
    ran = green.exlb("install", "--upgrade")
    assert "the packages' own scripts restart services on lb1, which holds 198.51.100.100" in ran.stderr


def test_upgrade_of_what_is_newest_changes_nothing_and_says_so(green: Site) -> None:
    before = green.fleet.state
    ran = green.exlb("install", "--upgrade", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "unchanged", "lb3": "unchanged"}
    assert "newest already: haproxy 1.0-1, keepalived 1.0-1" in ran.said
    assert green.fleet.state == before


def test_upgrade_brings_no_new_package_and_goes_by_the_nodes_own_manager(green: Site) -> None:
    green.fleet["lb3"].release, green.fleet["lb3"].managers = ROCKY, "dnf"
    green.exlb("install", "--upgrade")
    calls = {node.name: [call for call in node.calls if call.startswith("install")] for node in green.fleet}
    assert calls == {
        "lb1": ["install apt-get-upgrade haproxy keepalived"],
        "lb2": ["install apt-get-upgrade haproxy keepalived"],
        "lb3": ["install dnf-upgrade haproxy keepalived"],
    }


def test_upgrade_waits_between_the_nodes_for_as_long_as_after_a_restart(green: Site, clock: Clock) -> None:
    green.exlb("restart", "--nodes", "lb2,lb3")
    restarts = clock.passed
    green.exlb("install", "--upgrade", "--nodes", "lb2,lb3")
    assert clock.passed - restarts == restarts > 0


def test_upgrade_stops_at_the_first_failure(green: Site) -> None:
    green.fleet["lb2"].failing["install"] = "Reading package lists...\nE: Unable to fetch some archives"
    ran = green.exlb("install", "--upgrade", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "failed", "lb3": "not started"}
    assert "apt-get-upgrade failed" not in ran.said
    assert "E: Unable to fetch some archives" in ran.said


def test_upgrade_after_which_a_node_does_not_serve_stops_there(green: Site) -> None:
    node = green.fleet["lb2"]

    def broken(call: str) -> None:
        if call.startswith("install"):
            node.answers["request https://198.51.100.12:8443/readyz"] = (7, "curl: (7) refused\n000 0")

    node.before = broken
    ran = green.exlb("install", "--upgrade", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "failed", "lb3": "not started"}
    assert "it does not serve: refused" in ran.said


def test_upgrade_of_a_node_on_which_something_is_not_installed_is_sent_to_install(green: Site) -> None:
    green.fleet["lb2"].programs.remove("socat")
    ran = green.exlb("install", "--upgrade", status=1)
    assert "lb2: not installed: socat" in ran.said
    assert "next: exlb install" in ran.said
    assert upgraded(green) == []


def test_install_that_takes_too_long_is_told_with_the_option_that_gives_it_more_time(fresh: Site) -> None:
    def overdue(call: str) -> None:
        if call.startswith("install"):
            raise OverdueError("lb2: no end after 600 s", hint="exlb ssh lb2")

    fresh.fleet["lb2"].before = overdue
    assert "--timeout SECONDS gives more time" in fresh.exlb("install", status=1).said
