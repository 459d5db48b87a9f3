"""No secret shows: not on a screen, not in JSON, not in a log or a process list, and on a node only to root."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.bastion import KEEPALIVED_PATH, PROXY_PATH, Bastion

STATS = "Xyzzy-4711"
AUTH = "Plugh-42"
SECRETS = (STATS, AUTH)
AUTHENTICATION = "    authentication {\n        auth_type PASS\n        auth_pass %s\n    }\n"

# Where a push is looked at: programs on a node that have these words among their arguments.
STEPS = (
    ("keepalived", "-t"),  # validates what is staged
    ("systemd-run", "exlb-apply"),
    ("cp", ".exlb-new"),
    ("mv", ".exlb-new"),
    ("systemctl", "reload haproxy"),
)
FILES = "/etc /home /opt /root /run /srv /tmp /usr/local /var"


@dataclass(frozen=True)
class Copy:
    """A file on a node with a secret in it, and who may read it."""

    path: str
    mode: int
    behind: bool  # a directory above it is for root alone

    @property
    def private(self) -> bool:
        return self.mode & 0o077 == 0 and (self.behind or self.path.startswith(("/etc/haproxy/", "/etc/keepalived/")))


def processes(green: Bastion, node: str) -> str:
    """Return the arguments and the environments of all processes of a node."""
    script = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; ps axww -o args"
    return green.inside(node, "sh", "-c", script)


def copies(green: Bastion, node: str) -> list[Copy]:
    """Return all files of a node that have a secret in them; those of its journal would be among them."""
    words = " ".join(f"-e {secret}" for secret in SECRETS)
    found = green.inside(node, "sh", "-c", f"grep -rlsF -D skip {words} {FILES}", check=False).splitlines()
    return [_copy(green, node, path) for path in found]


def _copy(green: Bastion, node: str, path: str) -> Copy:
    above = [str(each) for each in Path(path).parents]
    modes = green.inside(node, "stat", "-c", "%a", path, *above).split()
    return Copy(path, int(modes[0], 8), behind=any(int(mode, 8) & 0o077 == 0 for mode in modes[1:]))


def logs(green: Bastion, node: str) -> str:
    places = "/var/lib/exlb/journal /run/exlb/progress"
    return green.inside(node, "sh", "-c", f"journalctl --no-pager -o cat; cat {places}", check=False)


def shown(text: str) -> list[str]:
    """Return the lines in which a secret shows."""
    return [line for line in text.splitlines() if any(secret in line for secret in SECRETS)]


def with_password(folder: Path, password: str = AUTH) -> Path:
    """Return a directory with a template for keepalived that has a password, as an operator's own would."""
    text = Path("templates/keepalived.conf.j2").read_text(encoding="utf-8")
    before, line, after = text.partition("    advert_int ")
    templates = folder / "templates"
    templates.mkdir(exist_ok=True)
    (templates / "keepalived.conf.j2").write_text(f"{before}{AUTHENTICATION % password}{line}{after}", encoding="utf-8")
    return templates


def test_no_secret_shows_on_the_bastion_or_on_a_node(green: Bastion) -> None:
    env = green.environment(STATS_PASSWORD=STATS)
    templates = ("--template-dir", str(with_password(green.folder)))
    with ExitStack() as ends:
        holds = [ends.enter_context(ExitStack()) for _ in STEPS]
        stands = [hold.enter_context(green.held("lb2", *step)) for hold, step in zip(holds, STEPS, strict=True)]
        process = green.start("push-config", "-v", "--yes", *templates, env=env)
        for hold, at, step in zip(holds, stands, STEPS, strict=True):
            green.wait_until(at)
            assert shown(processes(green, "lb2")) == [], step
            assert shown(Path(f"/proc/{process.pid}/cmdline").read_text()) == [], step
            found = copies(green, "lb2")
            assert found, step
            assert [copy for copy in found if not copy.private] == [], step
            hold.close()
        output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert shown(output.decode() + errors.decode()) == []
    for node in green.nodes:
        assert {PROXY_PATH, KEEPALIVED_PATH} <= {copy.path for copy in copies(green, node)}
        assert [copy for copy in copies(green, node) if not copy.private] == []
        assert shown(logs(green, node)) == []
    for words in (
        ("push-config", "-v", *templates),
        ("push-config", "--dry-run"),  # without the password of keepalived
        ("diff", "-v"),
        ("diff", *templates),
        ("history", "-v"),
        ("rollback", "--dry-run", "-v"),
        ("rollback", "--to", "0", "--dry-run"),
        ("recover", "-v"),
        ("lock", "status"),
        ("verify", "-v", *templates),
        ("install", "-v"),
        ("render", *templates),
        ("config",),
    ):
        for form in ((), ("-o", "json")):
            ran = green.exlb(*words, *form, status=None, env=env)
            assert ran.status in (0, 6), (words, form, ran)
            assert shown(ran.stdout + ran.stderr) == [], (words, form)


@pytest.mark.parametrize(
    ("template", "line", "bad", "quoted"),
    [
        # Each is refused with the line, or a part of it, in the validator's own words, or in a difference before it.
        ("haproxy.cfg.j2", "    stats enable\n", f'    stats auth admin:"{STATS}\n', "stats auth admin:********"),
        ("haproxy.cfg.j2", "    stats enable\n", f'    stats "auth" admin:"{STATS}\n', 'stats "auth" admin:********'),
        ("haproxy.cfg.j2", "    stats enable\n", f"    stats auht admin:{STATS}\n", "unknown stats parameter"),
        ("keepalived.conf.j2", "    advert_int", AUTHENTICATION % f'"{AUTH}', "auth_pass ********"),
        ("keepalived.conf.j2", "    advert_int", AUTHENTICATION % f"{AUTH}-x", "Truncating auth_pass ********"),
        ("keepalived.conf.j2", "    advert_int", f"    authentication {{\n    auth_pas {AUTH}\n    }}\n", "'auth_pas'"),
    ],
    ids=["unmatched quote", "quoted word", "misspelled", "keepalived quote", "too long", "keepalived misspelled"],
)
@pytest.mark.slow
def test_refusal_does_not_quote_a_secret(green: Bastion, template: str, line: str, bad: str, quoted: str) -> None:
    text = Path("templates", template).read_text(encoding="utf-8")
    assert line in text
    (green.folder / template).write_text(text.replace(line, f"{bad}{line}", 1), encoding="utf-8")
    (green.folder / "templates").mkdir()
    (green.folder / template).rename(green.folder / "templates" / template)
    before = green.states()
    kept = {node: copies(green, node) for node in green.nodes}
    for form in ((), ("-o", "json")):
        ran = green.exlb(
            "push-config", "-v", "--yes", "--template-dir", str(green.folder / "templates"), *form, status=1
        )
        assert quoted in ran.said.replace('\\"', '"')
        assert shown(ran.stdout + ran.stderr) == []
    assert green.states() == before
    for node in green.nodes:
        assert copies(green, node) == kept[node]
        assert shown(logs(green, node)) == []
