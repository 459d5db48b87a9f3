"""verify in all its shapes: chosen checks, JUnit XML, a page, and rounds until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pexpect
import pytest
from typer.testing import CliRunner

from exlb_fab.checks import CHECKS, election
from exlb_fab.cli.app import app
from exlb_fab.commands import verify
from exlb_fab.errors import UnreachableError
from exlb_fab.fleet import Fleet
from exlb_fab.platforms import KEEPALIVED_UNIT
from tests.cli.conftest import Site
from tests.fake import PROXY, Clock
from tests.ran import Ran

FAMILIES = list(dict.fromkeys(check.family for check in CHECKS))
EVERYTHING = [check.id for check in CHECKS]


def asked(ran: Ran) -> list[str]:
    return [row["id"] for row in ran.json["checks"]]


def break_proxy(site: Site, name: str = "lb2") -> None:
    site.fleet[name].running = None
    site.fleet[name].units["haproxy"].active = "failed"


# Which checks


@pytest.mark.parametrize("words", [(), ("-o", "json")], ids=["table", "json"])
def test_list_shows_every_check_without_an_environment_file(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EXLB_ENV", raising=False)
    found = CliRunner().invoke(app, ["verify", "--list", *words])
    assert (found.exit_code, found.stderr) == (0, "")
    if words:
        rows = json.loads(found.stdout)["checks"]
        assert [(row["id"], row["title"]) for row in rows] == [(check.id, check.title) for check in CHECKS]
    else:
        lines = found.stdout.splitlines()
        assert [line.split()[0] for line in lines if line.startswith(tuple(f" {each}." for each in FAMILIES))] == (
            EVERYTHING
        )
        assert all(any(line.startswith(f"{status}  ") for line in lines) for status in ("pass", "warn", "fail", "skip"))


def test_list_shows_the_chosen_checks_alone() -> None:
    found = CliRunner().invoke(app, ["verify", "--list", "-o", "json", "--only", "vip", "--skip", "vip.ping"])
    ids = [row["id"] for row in json.loads(found.stdout)["checks"]]
    assert ids == ["node.ssh", *(each for each in EVERYTHING if each.startswith("vip.") and each != "vip.ping")]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (("--only", "vip.ping"), {"vip.ping"}),
        (("--only", "vip.ping,backend.any"), {"vip.ping", "backend.any"}),
        (("--only", "vip.ping", "--only", "backend.any"), {"vip.ping", "backend.any"}),
        (("--only", "*.request"), {"vip.request", "backend.request"}),
        (("--only", "[vf]ip*"), {each for each in EVERYTHING if each.startswith("vip.")}),
        (("--only", "vip", "--skip", "vip.[!p]*"), {"vip.ping"}),
        (("--skip", "[!n]*"), {each for each in EVERYTHING if each.startswith("node.")}),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_checks_are_chosen_by_globs_of_ids_and_families(green: Site, words: tuple[str, ...], ids: set[str]) -> None:
    ran = green.exlb("verify", "-o", "json", *words)
    assert set(asked(ran)) == ids | {"node.ssh"}
    assert {row["check"] for row in ran.json["verdicts"]} <= set(asked(ran))
    assert [each for each in EVERYTHING if each not in asked(ran)] == ran.json["left_out"]


def test_green_of_some_checks_does_not_say_that_a_client_is_served(green: Site) -> None:
    break_proxy(green)
    ran = green.exlb("verify", "--skip", "node", "--skip", "backend,vrrp,vip.ping,vip.role")
    assert "is served" not in ran.said
    assert "GREEN as far as asked; left out: node.packages, " in ran.said
    assert "vip.role, vip.ping, vrrp.*, backend.* (" in ran.said


def test_green_of_all_checks_leaves_nothing_out(green: Site) -> None:
    ran = green.exlb("verify")
    assert "GREEN: a client that connects to 198.51.100.100 is served (" in ran.said
    assert green.exlb("verify", "-o", "json").json["left_out"] == []


def test_exit_code_is_that_of_what_was_asked(green: Site) -> None:
    green.fleet["lb2"].files[PROXY.path].text += "# edited\n"
    green.exlb("verify", "--skip", "node.files")
    green.exlb("verify", "--only", "node.files", status=1)


def test_node_that_cannot_be_asked_is_never_green_by_leaving_checks_out(green: Site) -> None:
    green.fleet.cut("lb3")
    for words in (("--only", "backend.request"), ("--skip", "node"), ("--only", "vip.single-holder")):
        ran = green.exlb("verify", *words, status=4)
        assert "RED" in ran.said
    ran = green.exlb("verify", "--skip", "node.ssh", status=2)
    assert "it is always asked" in ran.said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "vip.pong"), "--only vip.pong: no such check"),
        (("--only", "vip.pong"), "did you mean vip.ping"),
        (("--skip", "nodes"), "did you mean node"),
        (("--skip", "zzz"), f"next: The families are {', '.join(FAMILIES)}"),
        (("--only", "vip", "--only", "zzz*"), "--only zzz*: no such check"),
        (("--only", "vip", "--skip", "vip"), "leave no check"),
        (("--every", "2"), "needs --watch"),
        (("--watch", "-o", "junit"), "junit is for one look"),
        (("--list", "-o", "junit"), "junit is for one look"),
        (("--list", "--watch"), "looks at no node"),
        (("--html", "/nowhere/page.html"), "--html /nowhere/page.html: no such directory"),
        (("--html", "/dev/null"), "--html /dev/null: is no regular file"),
    ],
    ids=str,
)
def test_wrong_choice_is_a_usage_error_before_a_node_is_contacted(
    green: Site, words: tuple[str, ...], said: str
) -> None:
    ran = green.exlb("verify", *words, status=2)
    assert said in " ".join(ran.said.replace("│", " ").split())
    assert ran.stdout == ""
    assert not any(node.calls for node in green.fleet)


# JUnit XML

# What Maven Surefire's surefire-test-report.xsd and Jenkins' junit-10.xsd both take: attributes that have to be there,
# others that may be, and the children in their order.
SHAPE: dict[str, tuple[set[str], set[str], tuple[str, ...]]] = {
    "testsuites": (set(), {"name", "tests", "failures", "errors", "skipped", "time"}, ("testsuite",)),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time"},
        {"timestamp"},
        ("properties", "testcase"),
    ),
    "properties": (set(), set(), ("property",)),
    "property": ({"name", "value"}, set(), ()),
    "testcase": ({"name", "classname", "time"}, set(), ("skipped", "error", "failure", "system-out")),
    "skipped": (set(), {"message"}, ()),
    "error": ({"type"}, {"message"}, ()),
    "failure": ({"type"}, {"message"}, ()),
    "system-out": (set(), set(), ()),
}


def well_shaped(element: Element) -> None:
    """Assert that an element, and all in it, is what CI servers read."""
    needed, allowed, order = SHAPE[element.tag]
    assert needed <= set(element.attrib) <= needed | allowed, element.attrib
    places = [order.index(child.tag) for child in element]
    assert places == sorted(places), [child.tag for child in element]
    for child in element:
        well_shaped(child)


def junit(ran: Ran) -> Element:
    """Return the root of well-shaped JUnit XML whose numbers are right."""
    root = ElementTree.fromstring(ran.stdout)
    assert root.tag == "testsuites"
    well_shaped(root)
    for suite in (root, *root):
        cases = list(suite.iter("testcase"))
        names = {"failures": "failure", "errors": "error", "skipped": "skipped"}
        numbers = {key: str(sum(case.find(tag) is not None for case in cases)) for key, tag in names.items()}
        assert {key: suite.get(key) for key in (*names, "tests")} == {**numbers, "tests": str(len(cases))}
    return root


def cases(root: Element) -> dict[str, Element]:
    found = {f"{case.get('classname')}/{case.get('name')}": case for case in root.iter("testcase")}
    assert len(found) == len(list(root.iter("testcase"))), "names are unique"
    return found


def test_junit_of_green_has_a_suite_per_family_and_a_case_per_check_and_node(green: Site) -> None:
    root = junit(green.exlb("verify", "-o", "junit"))
    assert [suite.get("name") for suite in root] == [f"exlb.{family}" for family in FAMILIES]
    assert (root.get("failures"), root.get("errors")) == ("0", "0")
    verdicts = green.exlb("verify", "-o", "json").json["verdicts"]
    names = [f"{row['check']} {row['node']}" if row["node"] else row["check"] for row in verdicts]
    assert [name.partition("/")[2] for name in cases(root)] == names


def test_junit_of_red_names_text_cause_and_hint(green: Site) -> None:
    break_proxy(green)
    root = junit(green.exlb("verify", "-o", "junit", status=1))
    failure = cases(root)["exlb.node/node.proxy lb2"].find("failure")
    assert failure is not None
    assert failure.get("message") == "haproxy is failed (-)"
    assert "the end of haproxy's journal" in (failure.text or "")
    assert (failure.text or "").endswith("next: exlb restart haproxy --nodes lb2")
    skipped = cases(root)["exlb.node/node.ports lb2"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "haproxy does not run"


def test_junit_tells_warnings_and_what_was_left_out(green: Site) -> None:
    green.fleet["lb2"].proxy_version = "HAProxy version 3.0.11-1 2026/10/17 - https://haproxy.org/"
    root = junit(green.exlb("verify", "-o", "junit", "--skip", "firewall,node.files,node.running"))
    warning = cases(root)["exlb.node/node.same-versions"].findtext("system-out") or ""
    assert warning.startswith("warning: versions differ: ")
    left_out = cases(root)["exlb.firewall/firewall.vrrp"].find("skipped")
    assert left_out is not None
    assert left_out.get("message") == "left out"


def test_junit_of_what_was_cut_short_is_not_green(green: Site) -> None:
    green.fleet["lb2"].before = lambda call: signal.raise_signal(signal.SIGINT)
    root = junit(green.exlb("verify", "-o", "junit", "--nodes", "lb2", status=130))
    assert cases(root)["exlb.verify/came to its end"].find("error") is not None


def test_junit_survives_what_xml_cannot_carry(green: Site) -> None:
    green.fleet.cut("lb2")
    error = green.fleet["lb2"].unreachable
    assert error is not None
    error.message = "lb2: \x1b[31m<b>&amp;\x00\x0b\ufffe ü ]]> \ud800"
    ran = green.exlb("verify", "-o", "junit", status=4)
    failure = cases(junit(ran))["exlb.node/node.ssh lb2"].find("failure")
    assert failure is not None
    assert failure.get("message") == "lb2: \\x1b[31m<b>&amp;\\x00\\x0b\\xfffe ü ]]> \\xd800"
    assert ran.stdout.isascii()


# The page


def test_page_is_written_beside_the_answer_readable_and_whole(green: Site, tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    old = os.umask(0o022)
    try:
        ran = green.exlb("verify", "-o", "json", "--html", str(place))
    finally:
        os.umask(old)
    assert ran.json["green"] is True
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    assert "<h1>GREEN: a client that connects to 198.51.100.100 is served (" in place.read_text()
    assert [path.name for path in tmp_path.iterdir() if "page" in path.name] == ["page.html"]


def test_page_that_cannot_take_its_place_leaves_the_old_one_and_nothing_beside(
    green: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "page.html"
    place.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    ran = green.exlb("verify", "--html", str(place), status=1)
    assert f"cannot write {place}: No space left on device" in ran.said
    assert place.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if "page" in path.name] == ["page.html"]


def test_page_goes_where_a_link_points(green: Site, tmp_path: Path) -> None:
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "link.html").symlink_to("real.html")
    green.exlb("verify", "--html", str(tmp_path / "link.html"))
    assert (tmp_path / "link.html").is_symlink()
    assert "GREEN" in (tmp_path / "real.html").read_text()


def test_page_takes_nothing_that_a_node_said_for_markup(green: Site, tmp_path: Path) -> None:
    green.fleet.cut("lb2")
    error = green.fleet["lb2"].unreachable
    assert error is not None
    error.message = "lb2: <script>alert(1)</script> & <b>"
    error.hint = '"><img src=x onerror=alert(1)>'
    green.exlb("verify", "--html", str(tmp_path / "page.html"), status=4)
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in text


# Rounds


@pytest.fixture
def rounds(clock: Clock) -> Iterator[dict[int, object]]:
    """What happens after which round, by its number; Ctrl-C comes after the last of them."""
    happens: dict[int, object] = {}
    count = iter(range(1, 100))

    def between() -> None:
        number = next(count)
        action = happens.get(number)
        if callable(action):
            action()
        if number > max(happens, default=0):
            signal.raise_signal(signal.SIGINT)

    clock.on_sleep = between
    yield happens
    clock.on_sleep = lambda: None


def said(ran: Ran) -> list[str]:
    """Return the lines of stdout without their times, each of which is one."""
    lines = [line.partition(" ") for line in ran.stdout.splitlines()]
    assert all(len(time) == 20 and time.endswith("Z") for time, _, _ in lines)
    return [text for _, _, text in lines]


def test_rounds_that_find_the_same_say_it_once_and_end_with_130(green: Site, rounds: dict[int, object]) -> None:
    rounds[3] = None
    (line,) = said(green.exlb("verify", "--watch", status=130))
    assert line.startswith("GREEN: a client that connects to 198.51.100.100 is served (")


def test_every_round_is_one_exec_per_node_over_the_same_connection(
    green: Site, rounds: dict[int, object], clock: Clock
) -> None:
    rounds[3] = None
    green.exlb("verify", "--watch", "--every", "7", status=130)
    for node in green.fleet:
        assert [call.split()[0] for call in node.calls] == ["probe"] * 4 + ["close"]
    assert clock.passed == 4 * 7


def test_what_comes_and_goes_is_a_line_each(green: Site, rounds: dict[int, object]) -> None:
    text = green.fleet["lb2"].files[PROXY.path].text

    def edit(to: str) -> None:
        green.fleet["lb2"].files[PROXY.path].text = to

    rounds[1] = lambda: edit(text + "# edited\n")
    rounds[3] = lambda: edit(text)
    lines = said(green.exlb("verify", "--watch", status=130))
    assert [line.split(" (")[0].split(": ")[0] for line in lines] == [
        "GREEN",
        "fail node.files lb2",
        "RED",
        "pass node.files lb2",
        "GREEN",
    ]


def test_node_that_comes_back_is_seen_again(green: Site, rounds: dict[int, object]) -> None:
    rounds[1] = lambda: setattr(green.fleet["lb3"], "unreachable", None)
    green.fleet.cut("lb3")
    lines = said(green.exlb("verify", "--watch", status=130))
    assert [line.split(": ")[0] for line in lines] == ["fail node.ssh lb3", "RED", "pass node.ssh lb3", "GREEN"]


def test_what_was_wrong_is_not_told_anew_because_its_node_was_away(green: Site, rounds: dict[int, object]) -> None:
    lb2 = green.fleet["lb2"]

    def lose(call: str) -> None:
        raise UnreachableError("lb2: connection lost")

    lb2.files[PROXY.path].text += "# edited\n"
    rounds[1] = lambda: setattr(lb2, "before", lose)
    rounds[2] = lambda: setattr(lb2, "before", lambda call: None)
    rounds[3] = None
    lines = said(green.exlb("verify", "--watch", status=130))
    assert [line.split(": ")[0] for line in lines] == [
        "fail node.files lb2",
        "RED",
        "fail node.ssh lb2",
        "pass node.ssh lb2",
    ]


def test_rounds_as_json_are_a_line_each(green: Site, rounds: dict[int, object]) -> None:
    rounds[2] = None
    ran = green.exlb("verify", "--watch", "-o", "json", status=130)
    assert [json.loads(line)["green"] for line in ran.stdout.splitlines()] == [True] * 3


def test_page_is_that_of_the_last_round(green: Site, rounds: dict[int, object], tmp_path: Path) -> None:
    rounds[1] = lambda: break_proxy(green)
    green.exlb("verify", "--watch", "--html", str(tmp_path / "page.html"), status=130)
    assert "<h1>RED: " in (tmp_path / "page.html").read_text()


def test_families_without_a_table_are_named_with_what_passes(green: Site) -> None:
    assert (
        "Passed too: vrrp 3, certificate 1\n"
        in green.exlb("verify", "--only", "node.ssh,vrrp.state,certificate.names").stdout
    )
    assert "Passed too" not in green.exlb("verify", "--only", "node").stdout


def test_interrupt_in_the_first_round_says_nothing(green: Site) -> None:
    green.fleet["lb2"].before = lambda call: signal.raise_signal(signal.SIGINT)
    ran = green.exlb("verify", "--watch", status=130)
    assert ran.stdout == ""


ON_A_TERMINAL = """
import sys
from pathlib import Path
from exlb_fab import client
from exlb_fab.cli.app import app
from exlb_fab.fleet import Fleet
from tests.cli.conftest import Site

patient, Fleet.wait = Fleet.wait, lambda fleet, seconds: None
site = Site(Path(sys.argv[1])).deploy()
Fleet.wait = patient
client.request = site.fleet.request
site.fleet["lb2"].before = lambda call: Path(sys.argv[1], "broken").exists() and setattr(
    site.fleet["lb2"].units["keepalived"], "file_state", "disabled")
app(["verify", "--watch", "--every", "0.1", "-e", str(site.env)], obj=site.fleet.connector)
"""


def test_terminal_is_refreshed_in_place_and_left_with_the_last_answer(tmp_path: Path) -> None:
    environ = {**os.environ, "TERM": "xterm-256color", "PYTHONWARNINGS": "error"}
    words = ["-c", ON_A_TERMINAL, str(tmp_path)]
    child = pexpect.spawn(
        sys.executable, words, env=environ, encoding="utf-8", timeout=60, dimensions=(24, 100), cwd=Path.cwd()
    )
    child.expect_exact("\x1b[?1049h")
    child.expect_exact("every 0.1 s; Ctrl-C ends")
    child.expect("GREEN: a client")
    (tmp_path / "broken").touch()
    child.expect("RED: a client")
    child.expect(f"{KEEPALIVED_UNIT} runs, but is disabled")
    child.sendintr()
    child.expect_exact("\x1b[?1049l")
    child.expect("FAIL.*RED: a client")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


@pytest.mark.parametrize(("seconds", "waits"), [((0,), []), ((4, 0), [4]), ((4, 2, 0), [4, 2]), ((4, 4, 4, 4), [4, 4])])
def test_verify_looks_again_until_vrrp_is_settled_and_at_most_three_times(
    green: Site, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], waits: list[float]
) -> None:
    left, waited = iter(seconds), list[float]()
    monkeypatch.setattr(verify, "unsettled_seconds", lambda cluster, survey: next(left))
    monkeypatch.setattr(Fleet, "wait", lambda fleet, seconds: waited.append(seconds))
    before = green.fleet.count("")
    green.exlb("verify")
    assert waited == waits
    assert {count - before[name] for name, count in green.fleet.count("").items()} == {2 + len(waits)}


@pytest.mark.parametrize(("seconds", "status"), [((0,), 0), ((4, 0), 1), ((4, 4, 4), 1)])
def test_what_moved_between_the_last_two_looks_is_judged(
    green: Site, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], status: int
) -> None:
    left = iter(seconds)
    monkeypatch.setattr(verify, "unsettled_seconds", lambda cluster, survey: next(left))
    monkeypatch.setattr(Fleet, "wait", lambda fleet, seconds: None)
    monkeypatch.setattr(election, "restless", lambda cluster, before, now: () if before is now else cluster.nodes[:1])
    ran = green.exlb("verify", status=status)
    assert ("VRRP does not come to rest on lb1" in ran.said) is bool(status)
