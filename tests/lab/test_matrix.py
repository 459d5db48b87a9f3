"""The golden matrix before the real programs: every case for the versions of the node, without a word of warning."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from exlb_fab.lab import Lab, down
from exlb_fab.lab.layout import NODE_INTERFACE
from exlb_fab.platforms import Version, parse_version
from exlb_fab.proxies.haproxy import services
from exlb_fab.rendering import Target, Templates, render
from tests.golden.matrix.documents import rows
from tests.golden.matrix.factors import cases, cluster
from tests.lab.bastion import Bastion

RELEASES = ["bookworm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bullseye", "trixie"))]
NAMES = ("api-1.example.org", "ingress.example.org", "registry.example.org")
# One line for everything that a program says of a case beside "valid", and for every exit status but 0.
ASK = f"""
tar -x -C /
printf '1\\n' >/run/haproxy-server-state
printf '198.51.100.81 {" ".join(NAMES)}\\n' >>/etc/hosts
ask() {{
	case=$1 program=$2
	shift 2
	said=$("$@" 2>&1) || said="$said exit $?"
	printf '%s' "$said" | grep -v -x 'Configuration file is valid' | sed "s/^/$case $program: /"
}}
cd /root/matrix
for case in *; do
	ask "$case" haproxy haproxy -c -f "$case/haproxy.cfg"
	ask "$case" keepalived keepalived -t -f "$case/keepalived.conf"
done
"""
WRONG = "wrong"
LINK_LOCAL = "(VI-kube-master) the first IPv6 VIP address must be link local"


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bastion]:
    """One node of a release with the packages that exlb installs."""
    name = f"t-m-{request.param}-{os.getpid() % 10000}"
    try:
        bastion = Bastion(Lab.up(name, 1, [request.param]), tmp_path)
        bastion.exlb("install")
        yield bastion
    finally:
        down(name)


def found(bastion: Bastion) -> Target:
    """Return what the node has, but that it is no container: its keepalived reads vrrp_track_process all the same."""
    proxy = bastion.inside("lb1", "haproxy", "-vv")
    keepalived = bastion.inside("lb1", "sh", "-c", "keepalived --version 2>&1")
    return Target(parse_version(proxy), parse_version(keepalived), services(proxy))


def bundle(target: Target) -> bytes:
    """Return a tar file with all cases, one of them with a wrong line in each file, and what they name."""
    files: dict[str, tuple[str, int]] = {}
    templates = Templates()
    for number, case in cases().items():
        of = cluster(case, VIP_IF=NODE_INTERFACE, NODE_VIP_IFS=[NODE_INTERFACE] * int(case["nodes"]))
        for file in render(of, of.nodes[0], templates, target).files:
            name = Path(file.path).name
            path = file.path if file.kind == "attachment" else f"/root/matrix/{number}/{name}"
            files[path] = file.text, file.mode
            if file.kind != "attachment" and number == "01":
                files[f"/root/matrix/{WRONG}/{name}"] = f"{file.text}\nwrong\n", file.mode
    return packed(files)


def packed(files: Mapping[str, tuple[str, int]]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path, (text, mode) in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode, entry.size = mode, len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


def expected(target: Target) -> list[str]:
    """Return what the node's programs may say: docs/keepalived-versions.md, "IPv6"."""
    assert target.keepalived is not None
    if target.keepalived.numbers >= (2, 2):
        return []
    multicast = [number for number, case in cases().items() if case["mode"] == "multicast" or case["nodes"] == "1"]
    return [f"{number} keepalived: {LINK_LOCAL}" for number in multicast if cases()[number]["vip"] == "ipv6"]


def documented(document: str, version: Version | None) -> str:
    """Return whether a version is run, by the table of the documents."""
    return next((row[2] for row in rows(document, "Versions") if row[0] == str(version)), "not in the table")


def test_programs_of_a_release_accept_every_case_without_a_warning(release: Bastion) -> None:
    target = found(release)
    done = release.lab.shell_in("lb1", ["sh", "-c", ASK], input=bundle(target), timeout=120)
    said = done.stdout.decode().splitlines()
    wrong = [line for line in said if line.startswith(WRONG)]
    assert [line for line in said if line not in wrong] == expected(target)
    assert any(line.endswith("exit 1") for line in wrong), "haproxy did not see a wrong line"
    assert any("keepalived: " in line for line in wrong), "keepalived did not see a wrong line"
    assert done.stderr == b""
    assert documented("haproxy-versions.md", target.proxy) == "lab"
    assert documented("keepalived-versions.md", target.keepalived) == "lab"
