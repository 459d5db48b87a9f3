"""What holds for every command: exit codes, streams, JSON, help, and that secrets stay secret."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from exlb_fab import __version__
from exlb_fab.cli.app import app
from exlb_fab.proxies.haproxy import quote
from exlb_fab.remote import Completed
from tests.cli.conftest import Site
from tests.fake import KEEPALIVED_PATH, PROXY

SECRET = 'Gehe1m "W0rt#$\\é'
PARTS = ("Gehe1m", "W0rt")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("deploy",),
    ("install",),
    ("install", "--upgrade"),
    ("push-config",),
    ("push-config", "--dry-run"),
    ("restart",),
    ("rollback", "--to", "1"),
    ("rollback", "--to", "0", "--dry-run"),
    ("recover",),
    ("history",),
    ("diff",),
    ("lock status",),
    ("backend list",),
    ("backend drain", "198.51.100.11"),
    ("backend ready", "198.51.100.11"),
    ("status",),
    ("logs",),
    ("verify",),
    ("doctor",),
    ("exec", "--", "true"),
    ("render",),
    ("config",),
)
ON_NODES = tuple(words for words in COMMANDS if words[0] not in ("render", "config"))


def spelled(words: tuple[str, ...]) -> str:
    return " ".join(words)


def with_options(words: tuple[str, ...], *options: str) -> tuple[str, ...]:
    """Return the words with options right behind the command: what follows `--` is not exlb's."""
    return (words[0], *options, *words[1:])


def every_command() -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that exlb has."""
    group = typer.main.get_command(app)

    def below(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        subcommands = getattr(command, "commands", None)
        if subcommands is None:
            yield words
        for name, each in (subcommands or {}).items():
            yield from below(each, (*words, name))

    yield from below(group, ())


def allow_true(site: Site) -> None:
    for node in site.fleet:
        node.commands[("true",)] = Completed(0, "", "")


@pytest.mark.parametrize("words", COMMANDS, ids=spelled)
@pytest.mark.parametrize("start", ["fresh", "green"])
def test_json_alone_stands_on_stdout(words: tuple[str, ...], start: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(start)
    allow_true(site)
    refusals = {"push-config": 1, "restart": 1, "diff": 1, "rollback": 2, "install --upgrade": 1}
    refused = refusals.get(words[0], refusals.get(spelled(words), 0)) if start == "fresh" else 0
    red = start == "fresh" and words[0].startswith(("verify", "backend"))
    ran = site.exlb(*with_options(words, "-o", "json", "-v"), status=1 if red else refused)
    if refused:
        assert ran.stdout == "", "a refusal has no answer"
        assert "error:" in ran.stderr
    else:
        assert isinstance(ran.json, dict)


@pytest.mark.parametrize("words", COMMANDS, ids=spelled)
def test_secrets_are_in_no_output(words: tuple[str, ...], site: Callable[..., Site]) -> None:
    secret = site(STATS_PASSWORD=shlex.quote(SECRET))
    allow_true(secret)
    if words[0] != "deploy":
        secret.deploy()
        file = secret.fleet["lb2"].files[PROXY.path]
        assert quote(SECRET) in file.text
        file.text = file.text.replace("stats auth admin:", "stats auth other:")
    status = {"verify": 1, "diff": 6}.get(words[0], 0)
    said = [secret.exlb(*with_options(words, "-v", "-o", output), status=status) for output in ("table", "json")]
    for ran in said:
        assert not any(part in stream for part in PARTS for stream in (ran.stdout, ran.stderr))
    if words[0] in ("deploy", "render", "push-config", "rollback", "diff"):
        assert any("stats auth admin:********" in ran.said for ran in said)


@pytest.mark.parametrize("step", ["stage", "activate"])
def test_validator_that_quotes_the_password_does_not_give_it_away(site: Callable[..., Site], step: str) -> None:
    secret = site(STATS_PASSWORD=shlex.quote(SECRET))
    secret.fleet["lb2"].failing[step] = f"[ALERT] parsing [haproxy.cfg:29]: 'stats auth admin:{quote(SECRET)}' is odd"
    ran = secret.exlb("deploy", status=1)
    assert "'stats auth admin:********" in ran.said
    assert not any(part in ran.said for part in PARTS)


def test_password_of_a_configuration_that_was_there_before_is_masked(green: Site) -> None:
    green.fleet["lb2"].files[PROXY.path].text = (
        'listen stats\n  stats auth admin:Gehe1m\\ W0rt\n  stats auth "root:Gehe1m W0rt"\n'
        "userlist ops\n  user ann insecure-password Gehe1m\n  user bob password $6$W0rt\n"
    )
    ran = green.exlb("push-config", "--dry-run", "-o", "json")
    assert not any(part in ran.said for part in PARTS)
    assert "stats auth admin:********" in ran.said


@pytest.mark.parametrize(
    "words",
    [
        ("push-config", "--yes"),
        ("push-config", "--dry-run"),
        ("diff",),
        ("rollback", "--to", "1", "--yes"),
        ("rollback", "--to", "0", "--dry-run"),
        ("history",),
        ("restart", "keepalived"),
        ("verify",),
    ],
    ids=spelled,
)
def test_password_that_somebody_wrote_into_keepalived_conf_is_in_no_output(words: tuple[str, ...], green: Site) -> None:
    for node in green.fleet:
        file = node.files[KEEPALIVED_PATH]
        file.text = node.units["keepalived"].loaded = file.text.replace(
            "    advert_int 1\n", "    advert_int 1\n    authentication {\n\tauth_pass Gehe1m\n    }\n"
        )
    status = {"verify": 1, "diff": 6}.get(words[0], 0)
    ran = green.exlb(*with_options(words, "-v", "-o", "json"), status=status)
    assert "Gehe1m" not in ran.stdout + ran.stderr
    if words[0] in ("push-config", "diff", "rollback"):
        assert "auth_pass ********" in ran.said
    if words == ("push-config", "--yes"):
        ran = green.exlb("rollback", "--yes", "-o", "json")
        assert all("auth_pass Gehe1m" in node.files[KEEPALIVED_PATH].text for node in green.fleet)
        assert "Gehe1m" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("action", ["stage", "activate", "prepare", "recover", "units", "install"])
def test_node_that_quotes_a_password_as_it_fails_does_not_give_it_away(green: Site, action: str) -> None:
    said = "Unknown keyword 'auth_pass Gehe1m'\n[ALERT] 'stats auth admin:Gehe1m' is odd"
    green.change(BALANCE="leastconn")
    if action == "recover":
        green.fleet["lb2"].generations[2] = green.fleet["lb2"].active
        green.fleet["lb2"].intent = (2, 1)
    green.fleet["lb2"].failing[action] = said
    words = {
        "prepare": ("rollback", "--to", "0", "--yes"),
        "units": ("restart",),
        "install": ("install", "--upgrade"),
    }.get(action, ("push-config",))
    for output in ("table", "json"):
        ran = green.exlb(*with_options(words, "-v", "-o", output), status=1)
        assert "'stats auth admin:********" in ran.said
        assert "Gehe1m" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("words", [*ON_NODES, ("render",)], ids=spelled)
def test_pattern_without_a_node_is_a_usage_error(words: tuple[str, ...], green: Site) -> None:
    ran = green.exlb(*with_options(words, "--nodes", "web*"), status=2)
    assert "--nodes web*: no such node" in ran.said
    assert "lb1 (198.51.100.11)" in ran.said
    assert not any(node.calls for node in green.fleet)


@pytest.mark.parametrize("pattern", ["lb2", "198.51.100.12", "*2", "lb[2]", "lb2,lb2"])
def test_nodes_are_chosen_by_name_or_address(green: Site, pattern: str) -> None:
    assert green.exlb("install", "--nodes", pattern, "-o", "json").results == {"lb2": "unchanged"}


def test_nodes_may_be_named_several_times_and_keep_the_order_of_the_file(green: Site) -> None:
    ran = green.exlb("install", "-n", "lb3", "-n", "lb1", "-o", "json")
    assert list(ran.results) == ["lb1", "lb3"]


@pytest.mark.parametrize("words", ON_NODES, ids=spelled)
def test_unreachable_node_alone_is_exit_4(words: tuple[str, ...], green: Site) -> None:
    allow_true(green)
    green.fleet.cut("lb3")
    ran = green.exlb(*words, status=4)
    assert re.search(r"\blb3\b.* cannot connect: No route to host", ran.said)


@pytest.mark.parametrize("words", COMMANDS, ids=spelled)
def test_missing_environment_file_is_exit_3(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EXLB_ENV", raising=False)
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, spelled(words).split())
    assert found.exit_code == 3
    assert found.stdout == ""
    assert "environment.sh" in found.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=spelled)
def test_fault_in_the_environment_file_is_exit_3_and_no_node_is_contacted(words: tuple[str, ...], green: Site) -> None:
    green.change(ROUTER_ID="300")
    ran = green.exlb(*words, status=3)
    assert f"{green.env}:5: ROUTER_ID: 300 is not between 1 and 255" in ran.said
    assert not any(node.calls for node in green.fleet)


def test_environment_file_is_found_by_its_variable(green: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXLB_ENV", str(green.env))
    found = CliRunner().invoke(app, ["config", "-o", "json"], obj=green.fleet.connector)
    assert json.loads(found.stdout)["path"] == str(green.env)


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("push-config", "--nonsense"),
        ("push-config", "extra"),
        ("exec",),
        ("verify", "-o", "xml"),
        ("verify", "--parallel", "0"),
        ("verify", "--timeout", "soon"),
        ("verify", "--host-key-check", "maybe"),
        ("push-config", "--template-dir", "/nowhere"),
        ("lab", "up", "--nodes", "0"),
    ],
    ids=spelled,
)
def test_wrong_words_are_a_usage_error(words: tuple[str, ...]) -> None:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 2
    assert found.stdout == ""


def test_warnings_of_the_environment_file_go_to_stderr(green: Site) -> None:
    green.change(STATS_USER="ann")
    ran = green.exlb("config", "-o", "json")
    assert "warning: " in ran.stderr
    assert "STATS_USER: has no effect" in ran.stderr
    assert ran.json["settings"]


def test_detail_is_told_only_when_asked(green: Site) -> None:
    assert "connecting" not in green.exlb("verify").stderr
    assert green.exlb("verify", "-v").stderr.count("connecting") == 3


def test_parallel_one_works_on_the_nodes_one_after_the_other(green: Site) -> None:
    green.exlb("verify", "--parallel", "1")
    assert [entry.split()[0] for entry in green.fleet.journal] == ["lb1", "lb2", "lb3"]


@pytest.mark.parametrize("words", sorted(every_command()), ids=spelled)
def test_help_of_every_command_has_an_example(words: tuple[str, ...]) -> None:
    found = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert found.exit_code == 0
    assert re.search(rf"Example: exlb {spelled(words)}\b", found.stdout)


def test_version_is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"exlb {__version__}\n"
