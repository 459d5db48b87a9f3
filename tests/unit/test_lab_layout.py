"""Names, addresses and texts of a lab: nothing here touches the system."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlb_fab.errors import LabError
from exlb_fab.lab import layout, seed
from exlb_fab.lab.cgroups import parse_hierarchies
from exlb_fab.lab.disks import mounts_below
from exlb_fab.lab.environment import environment_text
from exlb_fab.lab.layout import LabLayout, lab_layout, lab_name

BOOKWORM = ["bookworm"]
NAMES = st.from_regex(layout._NAME, fullmatch=True)


@pytest.mark.parametrize("name", ["", "a" * 21, "Lab", "a.b", "a/b", "..", "lab\n", "ä"])
def test_a_name_that_would_not_do_as_a_file_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot be the name of a lab") as refusal:
        lab_name(name)
    assert refusal.value.hint


HOMES = st.sampled_from([layout.DEFAULT_HOME, Path("/srv/labs"), Path("/srv/other")])


@given(NAMES, NAMES, HOMES, HOMES)
def test_no_two_labs_share_a_name_of_anything(one: str, other: str, one_home: Path, other_home: Path) -> None:
    def names(lab: LabLayout) -> set[str]:
        places = [lab.node(node) for node in layout.nodes(BOOKWORM * layout.NODES_MAXIMUM)]
        return {lab.namespace, lab.cgroup, str(lab.directory), *(place.machine for place in places)}

    def inside(group: str, outer: str) -> bool:
        return Path(group).is_relative_to(outer)

    labs = (LabLayout(one, one_home), LabLayout(other, other_home))
    if (one, one_home) != (other, other_home):
        assert not inside(labs[0].cgroup, labs[1].cgroup)
        assert not names(labs[0]) & names(labs[1])


def test_nodes_are_numbered_from_one_behind_the_gateway() -> None:
    first, second = layout.nodes(["bullseye", "trixie"])
    assert first == layout.LabNode("lb1", "198.51.100.11", "2001:db8:0:51::11", "bullseye")
    assert second == layout.LabNode("lb2", "198.51.100.12", "2001:db8:0:51::12", "trixie")
    assert all(layout.GATEWAY.network[10 + number].is_global is False for number in range(10))


@pytest.mark.parametrize("count", [0, -1, 10])
def test_a_count_of_nodes_that_there_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(LabError, match="1 to 9 nodes"):
        layout.spread(count, ["bookworm"])


@pytest.mark.parametrize(
    ("count", "releases", "spread"),
    [
        (None, "a", "a a a"),
        (None, "a b", "a b a"),
        (None, "a b c d", "a b c d"),
        (2, "a", "a a"),
        (5, "a b", "a b a b a"),
    ],
)
def test_releases_are_given_to_the_nodes_in_order_and_again(count: int | None, releases: str, spread: str) -> None:
    assert layout.spread(count, releases.split()) == tuple(spread.split())


def test_more_releases_than_nodes_are_refused() -> None:
    with pytest.raises(LabError, match="3 releases for 2 nodes") as refusal:
        layout.spread(2, ["bullseye", "bookworm", "trixie"])
    assert refusal.value.hint == "exlb lab up --nodes 3"
    with pytest.raises(LabError, match="needs a release"):
        layout.spread(None, [])


def test_directories_can_be_moved_by_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXLB_LAB_HOME", str(tmp_path / "home"))
    assert lab_layout("a").directory == tmp_path / "home/a"
    assert layout.cache({"EXLB_LAB_CACHE": "/elsewhere"}) == Path("/elsewhere")
    assert layout.cache({}) == layout.DEFAULT_CACHE


@pytest.mark.parametrize("path", ["/var/lib/a,b", "/var/lib/a:b", "/var/lib/a\\b", "/var/lib/a\nb"])
def test_a_directory_that_mount_would_misread_is_refused(path: str) -> None:
    with pytest.raises(LabError, match=r"EXLB_LAB_HOME: .* may have no"):
        layout.home({"EXLB_LAB_HOME": path})
    with pytest.raises(LabError, match=r"EXLB_LAB_CACHE: .* may have no"):
        layout.cache({"EXLB_LAB_CACHE": path})


@pytest.mark.parametrize("home", ["/var/lib/exlb-lab", "/home/it's $HOME `id`/a b"])
def test_bash_reads_from_the_environment_file_what_the_lab_is(home: str) -> None:
    lab = LabLayout("rehearsal", Path(home))
    text = environment_text(lab, layout.nodes(BOOKWORM * 3))
    show = 'printf "%s\\n" "${NODE_IPS[@]}" "${NODE_NAMES[@]}" "$VIP_IF" "$MASTER_VIP" "$KUBE_APISERVER" "$SSH_USER"'
    show += ' "$SSH_KEY" "$SSH_KNOWN_HOSTS"'
    read = subprocess.run(["bash", "-eu"], input=f"{text}\n{show}", capture_output=True, text=True, check=True)
    assert read.stderr == ""
    assert read.stdout.splitlines() == [
        *("198.51.100.11", "198.51.100.12", "198.51.100.13"),
        *("lb1", "lb2", "lb3"),
        "host0",
        "198.51.100.100",
        "https://198.51.100.100:8443",
        "root",
        f"{home}/rehearsal/id_ed25519",
        f"{home}/rehearsal/known_hosts",
    ]


def test_every_variable_of_the_environment_file_is_explained() -> None:
    lines = environment_text(LabLayout("a", Path("/home")), layout.nodes(BOOKWORM)).splitlines()
    assignments = [number for number, line in enumerate(lines) if "=" in line and not line.startswith("#")]
    assert len(assignments) == 8
    assert all(lines[number - 1].startswith("# ") for number in assignments)


def test_only_hierarchies_of_the_host_itself_are_used() -> None:
    mounts = (
        "sysfs /sys sysfs rw 0 0\n"
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
        "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
        "cgroup2 /var/lib/engine/x/sys/fs/cgroup cgroup2 rw 0 0\n"
    )
    assert [str(path) for path in parse_hierarchies(mounts)] == [
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/unified",
    ]
    assert parse_hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n") == (Path("/sys/fs/cgroup"),)


def test_mounts_of_a_lab_are_found_last_one_first() -> None:
    mountinfo = (
        "21 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "40 21 0:40 / /var/lib/exlb-lab/a\\040b/disks rw - tmpfs exlb-lab rw\n"
        "41 40 0:41 / /var/lib/exlb-lab/a\\040b/disks/lb1/root rw - overlay exlb-lab rw\n"
        "42 21 0:42 / /var/lib/exlb-lab/a\\040bc rw - tmpfs exlb-lab rw\n"
    )
    assert [str(path) for path in mounts_below(mountinfo, Path("/var/lib/exlb-lab/a b"))] == [
        "/var/lib/exlb-lab/a b/disks/lb1/root",
        "/var/lib/exlb-lab/a b/disks",
    ]


def test_a_password_is_set_for_one_user_alone() -> None:
    shadow = "root:*:20000:0:99999:7:::\nclerk:!:20000:0:99999:7:::\n"
    assert seed.shadow_with_password(shadow, "clerk", "$6$x") == shadow.replace("clerk:!", "clerk:$6$x")
    with pytest.raises(LabError, match="no user nobody"):
        seed.shadow_with_password(shadow, "nobody", "$6$x")


def test_a_node_is_seeded_with_who_it_is_and_with_private_keys_private(tmp_path: Path) -> None:
    nodes = layout.nodes(BOOKWORM * 2)
    entries = seed.entries(
        nodes[1],
        nodes,
        machine_id="0" * 32,
        host_key=(b"private", b"public"),
        authorized_key=b"ssh-ed25519 AAAA",
        shadow=b"root:*:::::::\n",
    )
    # Who is not root cannot give files away.
    own = [replace(entry, uid=tmp_path.stat().st_uid, gid=tmp_path.stat().st_gid) for entry in entries]
    upper = tmp_path / "upper"
    seed.write(upper, own)
    (upper / "etc/leftover").touch()
    seed.write(upper, own)

    assert not (upper / "etc/leftover").exists()
    assert (upper / "etc/hostname").read_text() == "lb2\n"
    assert "198.51.100.11 lb1\n198.51.100.12 lb2\n" in (upper / "etc/hosts").read_text()
    network = (upper / "etc/systemd/network/10-lab.network").read_text()
    assert "Address=198.51.100.12/24\n" in network
    assert "Address=2001:db8:0:51::12/64\n" in network
    assert (upper / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert (upper / "root/.ssh").stat().st_mode & 0o777 == 0o700
    assert upper.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("script", ["boot.sh", "image.sh", "el9/build.sh"])
def test_shell_scripts_parse(script: str) -> None:
    path = Path(layout.__file__).parent / script
    assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0
