"""The operator's side of a lab: exlb as a process of its own, environment files, and clients of the VIP."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from exlb_fab.errors import LabError
from exlb_fab.lab import Lab
from tests.lab.watching import Watch, watching
from tests.ran import Ran

PROXY_PATH = "/etc/haproxy/haproxy.cfg"
KEEPALIVED_PATH = "/etc/keepalived/keepalived.conf"
DROP_INS = (
    "/etc/systemd/system/haproxy.service.d /etc/systemd/system/keepalived.service.d "
    "/etc/systemd/network/10-lab.network.d"
)
FOLDERS = f"/etc/haproxy /etc/keepalived /var/lib/exlb /etc/sysctl.d {DROP_INS}"
SNAPSHOT = f"""
set -e
rm -rf /root/snapshot
mkdir -p /root/snapshot {FOLDERS}
cp -a --parents {FOLDERS} /root/snapshot
rmdir --ignore-fail-on-non-empty {DROP_INS}
"""
RESTORE = f"""
set -e
systemctl stop keepalived
mkdir -p {DROP_INS}
find {FOLDERS} -mindepth 1 -delete
cp -a /root/snapshot/. /
rmdir --ignore-fail-on-non-empty {DROP_INS}
systemctl daemon-reload
systemctl reset-failed
systemctl reload-or-restart haproxy
systemctl start keepalived
"""
INSTALLED = """
for name in haproxy keepalived killall curl socat; do command -v "$name" >/dev/null || exit 1; done
systemctl is-enabled -q haproxy.service && systemctl is-enabled -q keepalived.service
"""
LIMIT_SECONDS = 180
PAUSE_SECONDS = 0.2


def listens(port: int, process: str = ".") -> str:
    """Return a line of shell that ends once a process listens on a port of a node, and fails after half a minute."""
    return f"timeout 30 sh -c 'until ss -Hltnp sport = :{port} | grep -q {process}; do sleep 0.1; done'"


class Bastion:
    """Runs exlb where an operator would: on the lab's bastion, against real nodes.

    `env` is the environment file, the lab's own where there is none; `port` the one that clients connect to.
    """

    def __init__(self, lab: Lab, folder: Path, env: Path | None = None, port: int = 8443) -> None:
        self.lab = lab
        self.folder = folder
        self.env = env or lab.environment_file
        self.port = port
        self.nodes = [node.name for node in lab.nodes]

    def environment(self, **variables: str) -> Path:
        """Write an environment file that is the lab's own but for some variables (bash words; "" unsets).

        Each set of variables has a file of its own: an earlier one goes on saying what it said.
        """
        lines = [f"source {shlex.quote(str(self.lab.environment_file))}"]
        lines += [f"{name}={value}" if value else f"unset {name}" for name, value in variables.items()]
        text = "\n".join(lines) + "\n"
        path = self.folder / f"environment-{hashlib.sha256(text.encode()).hexdigest()[:8]}.sh"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def exlb(
        self,
        *words: str,
        status: int | None = 0,
        env: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run exlb and return how it ended; `status` is what is expected, None for anything."""
        extra = {"COLUMNS": "120", **(variables or {}), "EXLB_ENV": str(env or self.env)}
        done = self.lab.run(["exlb", *words], env=extra, capture=True, timeout=LIMIT_SECONDS)
        ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
        if status is not None:
            assert ran.status == status, f"exlb {shlex.join(words)}: {ran.status}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def start(self, *words: str, env: Path | None = None) -> subprocess.Popen[bytes]:
        extra = {"EXLB_ENV": str(env or self.env)}
        return self.lab.popen(["exlb", *words], env=extra, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def verdicts(self, ran: Ran, status: str) -> set[tuple[str, str | None]]:
        """Return (check, node) of the verdicts with this status in the JSON of verify."""
        return {(each["check"], each["node"]) for each in ran.json["verdicts"] if each["status"] == status}

    def inside(self, node: str, *words: str, check: bool = True) -> str:
        """Run words on a node without SSH and return what they print."""
        done = self.lab.shell_in(node, words, timeout=60)
        assert not check or done.returncode == 0, (node, words, done.returncode, done.stdout, done.stderr)
        return done.stdout.decode()

    def is_so(self, node: str, script: str) -> bool:
        """Tell whether a line of shell succeeds on a node."""
        return self.lab.shell_in(node, ["sh", "-c", script], timeout=60).returncode == 0

    def holders(self) -> list[str]:
        """Return the nodes that have the VIP on an interface, by their own kernels."""
        return [n for n in self.running if f" {self.lab.vip}/" in self.inside(n, "ip", "-o", "addr", "show")]

    def watched(self) -> AbstractContextManager[Watch]:
        """Watch the VIP and two of its clients, on all nodes that run."""
        return watching(self.lab, self.holders, self.running, self.port)

    @property
    def running(self) -> list[str]:
        return [node.name for node in self.lab.status().nodes if node.state == "running"]

    def bytes_of(self, node: str) -> list[str]:
        """Return the hashes of a node's active files, "" for one that is not there."""
        return [
            self.inside(node, "sha256sum", path, check=False).split(" ")[0] for path in (PROXY_PATH, KEEPALIVED_PATH)
        ]

    def states(self) -> dict[str, str]:
        """Return how every node stands, by the bytes that it has and by those that its generation should have."""
        running = self.running
        return {node: self._state(node) if node in running else "off" for node in self.nodes}

    def _state(self, node: str) -> str:
        script = "cd /var/lib/exlb && readlink current && ls intent 2>/dev/null; echo; cat current/manifest"
        head, _, manifest = self.inside(node, "sh", "-c", script, check=False).partition("\n\n")
        number, *intent = head.split("\n")
        differ = [
            path
            for _, _, mode, owner, expected, path in (line.split(" ", 5) for line in manifest.splitlines())
            if self._described(node, path) != ("absent" if mode == "absent" else f"{mode} {owner} {expected}")
        ]
        state = f"generation {int(number[-4:])}" if number else "no generation"
        state += "".join(f", not its {path}" for path in differ)
        return state + (", unfinished" if intent else "")

    def _described(self, node: str, path: str) -> str:
        script = 'stat -c "%a %u:%g" "$1" && sha256sum <"$1"'
        words = self.inside(node, "sh", "-c", script, "sh", path, check=False).split()
        return " ".join(words[:3]) or "absent"

    @contextmanager
    def broken(self, node: str, do: str, undo: str) -> Iterator[None]:
        """Break something on a node with one line of shell, and mend it with another."""
        try:
            self.inside(node, "sh", "-c", do)
        except BaseException:  # half of it may be there
            self.inside(node, "sh", "-c", undo, check=False)
            raise
        try:
            yield
        finally:
            self.inside(node, "sh", "-c", undo)

    @contextmanager
    def held(self, node: str, program: str, words: str, unit: str = "") -> Iterator[Callable[[], bool]]:
        """Stop a program on a node whenever its arguments have `words` in them; call the result to see if one stands.

        With a `unit` only what runs in that unit is stopped. It goes on when this is left.
        """
        own = self.inside(node, "sh", "-c", f"command -v {program}").strip()
        wrapper, hold, stands = f"/usr/local/sbin/{program}", f"/run/hold-{program}", f"/run/stands-{program}"
        waits = f"touch {stands}; while [ -e {hold} ]; do sleep 0.05; done"
        chosen = f'case "$*" in *"{words}"*) if grep -q "{unit}" /proc/self/cgroup; then {waits}; fi ;; esac'
        script = f'#!/bin/sh\n{chosen}\nexec {own} "$@"\n'
        self.inside(node, "sh", "-c", f"touch {hold}; printf '%s' '{script}' >{wrapper}; chmod 0755 {wrapper}")
        try:
            yield lambda: self.inside(node, "sh", "-c", f"ls {stands} 2>/dev/null || true") != ""
        finally:
            with suppress(LabError):  # it may be without power by now
                self.inside(node, "rm", "-f", wrapper, hold, stands)

    def sessions(self, node: str) -> int:
        """Return how many commands the node's sshd has run so far."""
        # By its own name: what a session says may be the user's unit's, and newer ones have a program of their own.
        log = self.inside(node, "journalctl", "-t", "sshd", "-t", "sshd-session", "-o", "cat", "--no-pager")
        return log.count("Starting session: command")

    def wait_until(self, condition: Callable[[], bool], limit_seconds: float = 60) -> None:
        deadline = time.monotonic() + limit_seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {limit_seconds} s; verify says now:\n{self._seen()}"
            time.sleep(PAUSE_SECONDS)

    def _seen(self) -> str:
        return self.exlb("verify", "-o", "json", status=None).stdout

    def served(self) -> bool:
        """Tell whether a client on the bastion gets an answer through the VIP."""
        url = f"https://{self.lab.vip}:{self.port}/readyz"
        return self.lab.run(["curl", "-ksf", "--max-time", "2", "-o", "/dev/null", url], capture=True).returncode == 0

    def mend(self) -> None:
        """Bring a lab back to where every check passes, without a warning, whatever a test did to it."""
        # Machines first: verify is green while one apiserver is down, and the next test would start from there.
        for found in self.lab.status().nodes:
            if not found.normal:
                self.lab.boot(found.name)
        if self._as_deployed():
            return
        if not all(self.is_so(node, INSTALLED) for node in self.nodes):
            self.exlb("install")
        self._on_all(RESTORE)
        self.wait_until(self._as_deployed, 90)

    def snapshot(self) -> None:
        """Keep on every node what `mend` brings back: the active files and the generations."""
        self._on_all(SNAPSHOT)

    def _on_all(self, script: str) -> None:
        with ThreadPoolExecutor(max_workers=len(self.nodes)) as executor:
            list(executor.map(lambda node: self.inside(node, "sh", "-c", script), self.nodes))

    def _as_deployed(self) -> bool:
        """Tell whether all checks pass and no election is to come: the master holds the VIP."""
        # What costs least is asked first: other labs wait for the same processors.
        return self.holders() == self.nodes[:1] and self.served() and self.all_pass()

    def all_pass(self) -> bool:
        """Tell whether verify has nothing to say against the lab, not even a warning; but of several releases."""
        ran = self.exlb("verify", "-o", "json", status=None)
        mixed = len({node.release for node in self.lab.nodes}) > 1
        return ran.status == 0 and self.verdicts(ran, "warn") == ({("node.same-versions", None)} if mixed else set())

    def address(self, name: str) -> str:
        return self.lab.node(name).address
