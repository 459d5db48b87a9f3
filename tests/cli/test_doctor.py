"""exlb doctor on the command line: what it says, in which shapes, and that it changes nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from exlb_fab.commands.doctor import DOCTOR
from exlb_fab.errors import HostKeyError, PrivilegeError
from tests.cli.conftest import Site
from tests.schemas import validate

LINKS = "2: eth0: <UP> mtu {} \\    link/ether 02:00:00:00:00:02 brd ff:ff:ff:ff:ff:ff"


def statuses(site: Site, *words: str, status: int = 0) -> dict[tuple[str, str | None], str]:
    """Return the verdicts that are no pass, by check and node."""
    answer = site.exlb("doctor", "-o", "json", *words, status=status).json
    return {(each["check"], each["node"]): each["status"] for each in answer["verdicts"] if each["status"] != "pass"}


NOT_LISTENED: dict[tuple[str, str | None], str] = {("segment.vrid", name): "warn" for name in ("lb1", "lb2", "lb3")}


def test_fresh_nodes_are_green_and_what_was_not_looked_at_is_said(fresh: Site) -> None:
    assert statuses(fresh) == NOT_LISTENED
    ran = fresh.exlb("doctor")
    assert "GREEN: nothing was found that stands in the way of an entrance at 198.51.100.100" in ran.stdout
    assert "there is no tcpdump" in ran.stdout


def test_nodes_on_which_exlb_runs_already_are_green_too(green: Site) -> None:
    assert statuses(green) == NOT_LISTENED


@pytest.mark.parametrize("start", ["fresh", "green"])
def test_nothing_is_changed_and_every_node_is_asked_once(start: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(start)
    before = site.fleet.state
    for node in site.fleet:
        node.calls.clear()
    site.exlb("doctor")
    assert site.fleet.state == before
    assert {node.name: [call.split()[0] for call in node.calls] for node in site.fleet} == {
        name: ["probe", "close"] for name in ("lb1", "lb2", "lb3")
    }


def test_finding_is_told_with_its_node_its_cause_and_what_to_type(fresh: Site) -> None:
    fresh.fleet["lb2"].answers["ground machine"] = (0, "sys_vendor DigitalOcean\nproduct_name Droplet")
    ran = fresh.exlb("doctor", status=1)
    assert "FAIL system.machine\n     lb2: a machine of DigitalOcean\n" in ran.stdout
    assert "next: let a DigitalOcean Load Balancer stand in front of the apiservers" in ran.stdout
    assert "RED: what fails has to be mended before exlb deploy" in " ".join(ran.stdout.split())


def test_port_that_is_taken_is_red_with_who_has_it(fresh: Site) -> None:
    fresh.fleet["lb3"].foreign_sockets.append('LISTEN 0 511 0.0.0.0:8443 0.0.0.0:* users:(("nginx",pid=7,fd=6))')
    assert statuses(fresh, status=1) == {**NOT_LISTENED, ("network.ports", "lb3"): "fail"}
    assert "nginx listens on 8443" in fresh.exlb("doctor", status=1).stdout


def test_warning_alone_is_green(fresh: Site) -> None:
    fresh.fleet["lb2"].answers["links"] = (0, LINKS.format(9000))
    differs: dict[tuple[str, str | None], str] = {("network.mtu", None): "warn"}
    assert statuses(fresh) == NOT_LISTENED | differs


def test_no_apiserver_is_red_unless_none_is_expected(fresh: Site) -> None:
    endpoints = [f"198.51.100.1{number}:6443" for number in (1, 2, 3)]
    refused = "\n".join(f"{endpoint} 1 bash: connect: Connection refused" for endpoint in endpoints)
    for node in fresh.fleet:
        node.answers[f"ground contacts {' '.join(endpoints)}"] = (0, refused)
    red = {("network.apiservers", node.name) for node in fresh.fleet}
    assert {check for check, status in statuses(fresh, status=1).items() if status == "fail"} == red
    assert statuses(fresh, "--expect-no-apiserver") == NOT_LISTENED


def test_unreachable_node_alone_has_an_exit_code_of_its_own(fresh: Site) -> None:
    fresh.fleet.cut("lb3")
    found = statuses(fresh, status=4)
    assert found[("access.ssh", "lb3")] == "fail"
    assert found[("access.root", "lb3")] == "skip"
    assert [node for check, node in found if check == "network.ports"] == []


def test_host_key_and_sudo_are_told_apart(fresh: Site) -> None:
    fresh.fleet["lb1"].unreachable = HostKeyError("lb1: host key differs from the known one", hint="ssh-keygen -R lb1")
    fresh.fleet["lb2"].unreachable = PrivilegeError("lb2: sudo refuses", hint="--ask-sudo-pass asks for it")
    found = {key: each for key, each in statuses(fresh, status=1).items() if key[0].startswith("access")}
    assert found == {
        ("access.ssh", "lb1"): "fail",
        ("access.root", "lb1"): "skip",
        ("access.root", "lb2"): "fail",
    }
    ran = fresh.exlb("doctor", status=1)
    assert "next: ssh-keygen -R lb1" in ran.stdout
    assert "next: --ask-sudo-pass asks for it" in ran.stdout


def test_answer_that_is_not_understood_fails_that_node_and_no_other(fresh: Site) -> None:
    fresh.fleet["lb2"].answers["links"] = (0, "what?")
    found = statuses(fresh, status=1)
    assert {node for check, node in found if check == "access.root"} == {"lb2"}


def test_chosen_checks_are_asked_and_access_always(fresh: Site) -> None:
    answer = fresh.exlb("doctor", "-o", "json", "--only", "network,system.machine", "--skip", "network.mtu").json
    assert [check["id"] for check in answer["checks"]] == [
        "access.ssh",
        "system.machine",
        "network.interface",
        "network.ports",
        "network.apiservers",
    ]
    said = fresh.exlb("doctor", "--skip", "segment").stdout
    assert "GREEN as far as asked; left out: segment.*" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "vip"), "exlb doctor --list shows all checks"),
        (("--skip", "access.ssh"), "it is always asked"),
        (("--only", "network", "--skip", "network"), "exlb doctor --list"),
        (("--nodes", "lb9"), "no such node"),
        (("--list", "-o", "junit"), "junit is for a look at the nodes"),
    ],
)
def test_impossible_choice_is_a_fault_of_the_command_line(fresh: Site, words: tuple[str, ...], said: str) -> None:
    ran = fresh.exlb("doctor", *words, status=2)
    assert said in " ".join(ran.stderr.replace("│", " ").split())


def test_list_is_of_doctors_own_checks_and_contacts_no_node(fresh: Site) -> None:
    answer = fresh.exlb("doctor", "--list", "-o", "json").json
    assert [check["id"] for check in answer["checks"]] == [check.id for check in DOCTOR.checks]
    assert not any(node.calls for node in fresh.fleet)


def test_nodes_narrow_what_is_asked_of_single_ones(fresh: Site) -> None:
    fresh.fleet["lb2"].answers["ground machine"] = (0, "sys_vendor Hetzner")
    assert statuses(fresh, "--nodes", "lb1") == {("segment.vrid", "lb1"): "warn"}


def test_junit_has_a_case_per_check_and_node(fresh: Site) -> None:
    fresh.fleet["lb2"].answers["ground machine"] = (0, "sys_vendor Hetzner")
    suites = ElementTree.fromstring(fresh.exlb("doctor", "-o", "junit", status=1).stdout)
    assert suites.get("name") == "exlb doctor 198.51.100.100"
    assert (suites.get("failures"), suites.get("skipped")) == ("1", "0")
    (failed,) = [case for case in suites.iter("testcase") if case.find("failure") is not None]
    assert failed.get("name") == "system.machine lb2"


def test_ctrl_c_gives_no_verdict(fresh: Site) -> None:
    fresh.fleet["lb1"].before = lambda call: signal.raise_signal(signal.SIGINT)
    answer = fresh.exlb("doctor", "-o", "json", "--parallel", "1", status=130).json
    assert (answer["green"], answer["interrupted"]) == (False, True)
    validate("doctor-1", answer)


# The schema


@pytest.mark.parametrize("nodes", [1, 3])
def test_answers_keep_to_the_published_schema(site: Callable[..., Site], nodes: int) -> None:
    made = site(nodes)
    validate("doctor-1", made.exlb("doctor", "-o", "json").json)
    made.fleet.cut("lb1")
    validate("doctor-1", made.exlb("doctor", "-o", "json", "--skip", "host", status=4).json)
