"""From a cluster to files: templates, modes, and the rules that keepalived and haproxy insist on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest

from exlb_fab import node as programs
from exlb_fab import vrrp
from exlb_fab.cluster import ANY_IPV6, Backend, Bind, CheckMethod, Cluster, HealthCheck, Listener, Log, Secret, Vip
from exlb_fab.errors import RenderError
from exlb_fab.platforms import parse_version
from exlb_fab.proxies import PROXIES
from exlb_fab.rendering import File, Rendered, Target, Templates, duration, mask_keepalived, paths, render
from exlb_fab.system import Settings, UnitSettings
from tests.fake import PROXYING, STATS, VRRP, cluster

THREE = cluster()
MARK = "description exlb-{{ digest }}"
PACKAGED = Templates()
NEWEST = Target()
SECRET = replace(THREE, stats=replace(STATS, password=Secret("geheim")))
FOUR, SIX = Vip(IPv4Address("198.51.100.100"), 24), Vip(IPv6Address("2001:db8::100"), 64)
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n"


def rendered(directory: Path | None = None, *, of: Cluster = THREE) -> tuple[File, File]:
    """Return the files of both programs."""
    proxy, keepalived, *_ = render(of, of.nodes[0], Templates(directory), NEWEST).files
    return proxy, keepalived


def target(proxy: str = "3.0", keepalived: str = "2.3.3", **changes: Any) -> Target:
    """Return what a node with these versions is rendered for."""
    return replace(Target(parse_version(proxy), parse_version(keepalived)), **changes)


def made(of: Cluster = THREE, place: int = 0, on: Target = NEWEST) -> Rendered:
    """Return what one node of a cluster gets."""
    return render(of, of.nodes[place], PACKAGED, on)


def proxy_text(of: Cluster = THREE, place: int = 0, on: Target = NEWEST) -> str:
    return made(of, place, on).files[0].text


def keepalived_text(of: Cluster = THREE, place: int = 0, on: Target = NEWEST) -> str:
    return made(of, place, on).files[1].text


def lines(text: str, *words: str) -> list[str]:
    """Return the lines that begin with one of these words, without the blanks around them."""
    return [line.strip() for line in text.splitlines() if line.split()[:1] and line.split()[0] in words]


def block(text: str, name: str) -> list[str]:
    """Return the lines of the block of keepalived.conf, or the section of haproxy.cfg, that begins with these words."""
    found = re.search(rf"^( *){re.escape(name)}(?: \{{)?\n(.*?)(?=^\1\}}|\n\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for line in found[2].splitlines() if line.strip()] if found else []


def with_vrrp(of: Cluster = THREE, **changes: Any) -> Cluster:
    return replace(of, vrrp=replace(VRRP, **changes))


def with_proxying(**changes: Any) -> Cluster:
    return replace(THREE, proxying=replace(PROXYING, **changes))


def with_listener(**changes: Any) -> Cluster:
    return replace(THREE, listeners=(replace(THREE.apiserver_listener, **changes),))


def with_check(method: CheckMethod, path: str = "", ca: str | None = None, **changes: Any) -> Cluster:
    check = HealthCheck(method, path, interval_ms=2000, fall=2, rise=2, slowstart_ms=0, ca=ca)
    return with_listener(check=replace(check, **changes))


def own(folder: Path, text: str, name: str = "haproxy.cfg.j2") -> Path:
    (folder / name).write_text(text)
    return folder


def test_template_of_a_directory_takes_the_place_of_the_packaged_one(tmp_path: Path) -> None:
    proxy, keepalived = rendered(own(tmp_path, f"{MARK}\nlisten {{{{ listeners[0].name }}}}\n"))
    assert proxy.text == f"description exlb-{proxy.digest}\nlisten kube-master\n"
    assert keepalived == rendered()[1]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("global\n{% if %}\n", "haproxy.cfg.j2:2: "),
        ("global\n{{ nothing }}\n", "haproxy.cfg.j2:2: 'nothing' is undefined"),
        ("{{ stats.nothing }}\n", "haproxy.cfg.j2:1: "),
        ("\n\n{{ stats.port / 0 }}\n", "haproxy.cfg.j2:3: division by zero"),
        ("{{ stats | nothing }}\n", "nothing"),
        ("{% include 'missing.j2' %}\n", "missing.j2"),
        ("global\n", "without it nobody can tell which configuration runs"),
    ],
)
def test_broken_template_is_named(tmp_path: Path, template: str, words: str) -> None:
    with pytest.raises(RenderError) as caught:
        rendered(own(tmp_path, template))
    assert words in caught.value.message


@pytest.mark.parametrize(("template", "text"), [("a", "a\n"), ("a\n", "a\n"), ("a\n\n", "a\n\n"), ("", "")])
def test_last_line_always_ends_and_nothing_stays_nothing(tmp_path: Path, template: str, text: str) -> None:
    assert rendered(own(tmp_path, template, "keepalived.conf.j2"))[1].text == text


def test_file_that_replaces_no_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"haproxy\.j2: replaces no template") as caught:
        rendered(own(tmp_path, "global\n", "haproxy.j2"))
    assert caught.value.hint == "the templates are haproxy.cfg.j2, keepalived.conf.j2"


def test_secret_that_a_template_does_not_reveal_on_purpose_is_masked(tmp_path: Path) -> None:
    directory = own(tmp_path, f"{MARK}\n{{{{ stats.password }}}} {{{{ stats }}}}\n")
    proxy = rendered(directory, of=SECRET)[0]
    assert "geheim" not in proxy.text
    assert "********" in proxy.text


def test_file_with_a_password_is_for_root_alone() -> None:
    assert [file.mode for file in rendered()] == [0o644, 0o644]
    assert [file.mode for file in rendered(of=SECRET)] == [0o600, 0o644]
    assert [file.mode for file in rendered(of=with_vrrp(auth_pass=Secret("geheim")))] == [0o644, 0o600]


@pytest.mark.parametrize(
    ("name", "line", "modes"),
    [
        ("haproxy.cfg.j2", "stats auth admin:geheim", [0o600, 0o644]),
        ("keepalived.conf.j2", "auth_pass geheim", [0o644, 0o600]),
    ],
)
def test_file_with_a_password_that_stands_in_a_template_is_for_root_alone(
    tmp_path: Path, name: str, line: str, modes: list[int]
) -> None:
    assert [file.mode for file in rendered(own(tmp_path, f"{MARK}\n{line}\n", name))] == modes


def test_statistics_without_a_password_are_for_the_node_alone() -> None:
    assert "\n    bind 127.0.0.1:10080\n" in proxy_text()
    assert "stats auth" not in proxy_text()


# keepalived.conf


def test_every_node_has_its_own_priority_role_and_router_id() -> None:
    found = [lines(keepalived_text(place=place), "router_id", "state", "priority") for place in range(3)]
    assert found == [
        ["router_id lb-master-lb1", "state MASTER", "priority 120"],
        ["router_id lb-backup-lb2", "state BACKUP", "priority 110"],
        ["router_id lb-backup-lb3", "state BACKUP", "priority 105"],
    ]


def test_peers_of_a_node_are_all_the_others() -> None:
    text = keepalived_text(place=1)
    assert block(text, "unicast_peer") == ["198.51.100.11", "198.51.100.13"]
    assert "unicast_src_ip 198.51.100.12\n" in text


def test_adverts_go_between_the_sources_of_the_nodes() -> None:
    nodes = tuple(replace(node, source=ip_address(f"10.1.0.{node.index + 1}")) for node in THREE.nodes)
    text = keepalived_text(replace(THREE, nodes=nodes), place=1)
    assert block(text, "unicast_peer") == ["10.1.0.1", "10.1.0.3"]
    assert "unicast_src_ip 10.1.0.2\n" in text


def test_single_node_has_no_unicast_block_which_keepalived_would_refuse() -> None:
    assert "unicast" not in keepalived_text(cluster(1))


def test_multicast_has_no_unicast_block() -> None:
    nodes = tuple(replace(node, source=None) for node in THREE.nodes)
    assert "unicast" not in keepalived_text(with_vrrp(replace(THREE, nodes=nodes), mode="multicast"))


def test_keepalived_gets_what_it_wants_of_its_scripts() -> None:
    text = keepalived_text()
    assert "enable_script_security" in text
    assert "script_user root" in text
    assert 'script "/usr/bin/killall -0 haproxy"' in text
    assert f"weight {vrrp.CHECK_WEIGHT}" in text


SCRIPT = "vrrp_script check-haproxy"
PROCESS = "vrrp_track_process check-haproxy"


def test_script_is_run_as_often_and_as_long_as_the_file_says() -> None:
    text = keepalived_text(
        with_vrrp(check_interval_seconds=3, check_timeout_seconds=4, check_fall=5, check_rise=6, check_weight=-99)
    )
    assert block(text, SCRIPT) == [
        'script "/usr/bin/killall -0 haproxy"',
        "interval 3",
        "timeout 4",
        "fall 5",
        "rise 6",
        "weight -99",
    ]
    assert block(text, "track_script") == ["check-haproxy"]
    assert "track_process" not in text


def test_process_is_followed_by_the_kernels_events_where_that_is_possible() -> None:
    of = with_vrrp(track=("process",))
    for on in (NEWEST, target(keepalived="2.0.11"), target(keepalived="2.3.3")):
        found = made(of, on=on)
        text = found.files[1].text
        assert block(text, PROCESS) == ["process haproxy", "weight -60"]
        assert block(text, "track_process") == ["check-haproxy"]
        assert 'script "' not in text
        assert found.notes == ()
    text = keepalived_text(with_vrrp(track=("process",), process_delay_seconds=3))
    assert block(text, PROCESS) == ["process haproxy", "delay 3", "weight -60"]


@pytest.mark.parametrize(
    ("on", "reason"),
    [
        (target(contained=True), "in a container the kernel does not tell it of processes"),
        (target(keepalived="2.0.10"), "keepalived 2.0.10 has no vrrp_track_process (it came with 2.0.11)"),
        (target(keepalived="1.3.5"), "keepalived 1.3.5 has no vrrp_track_process (it came with 2.0.11)"),
    ],
)
def test_process_is_checked_by_a_script_where_it_cannot_be_followed_and_that_is_said(on: Target, reason: str) -> None:
    found = made(with_vrrp(track=("process",), check_interval_seconds=3), on=on)
    assert found.files[1].text.count("killall -0 haproxy") == 1
    assert "track_process" not in found.files[1].text
    assert found.notes == (f"TRACK=process: {reason}: a script checks the process every 3 s",)
    assert made(with_vrrp(track=("script",)), on=on).notes == ()


def script_of(found: Rendered, name: str) -> tuple[File, str]:
    """Return the attached script whose path has a name in it, and how keepalived runs it."""
    (file,) = [each for each in found.files if each.kind == "attachment" and name in each.path]
    (line,) = [each for each in lines(found.files[1].text, "script") if file.path in each]
    return file, line


@pytest.mark.parametrize(
    ("bind", "vip", "command"),
    [
        ("all", FOUR, "2 198.51.100.11:8443"),
        ("node", FOUR, "2 198.51.100.11:8443"),
        ("vip", FOUR, "2 127.0.0.1:8443"),
        ("vip", SIX, "2 127.0.0.1:8443"),
    ],
)
def test_port_is_checked_where_the_node_itself_reaches_its_proxy(bind: Bind, vip: Vip, command: str) -> None:
    of = replace(with_vrrp(track=("port",)), proxying=replace(PROXYING, bind=bind), vip=vip)
    file, line = script_of(made(of), "check-port")
    assert line == f'script "{file.path} {command}"'
    assert (file.mode, file.owner, file.unit) == (0o755, "0:0", "keepalived")
    assert file.text == programs.program("check-port.sh")


def test_apiserver_is_asked_through_the_own_proxy_and_then_through_the_vip_within_the_time_limit() -> None:
    file, line = script_of(made(with_vrrp(track=("apiserver",), check_timeout_seconds=3)), "check-apiserver")
    own, vip = "https://198.51.100.11:8443/readyz", "https://198.51.100.100:8443/readyz"
    assert line == f'script "{file.path} 1.5 {own} 198.51.100.100 {vip}"'
    assert file.text == programs.program("check-apiserver.sh")
    six = replace(with_vrrp(track=("apiserver",)), vip=SIX)
    assert (
        '1 https://198.51.100.11:8443/readyz 2001:db8::100 https://[2001:db8::100]:8443/readyz"'
        in script_of(made(six), "check-apiserver")[1]
    )


def test_several_checks_stand_beside_each_other_each_with_its_weight() -> None:
    found = made(with_vrrp(track=("process", "apiserver", "port")))
    text = found.files[1].text
    assert block(text, "track_process") == ["check-haproxy"]
    assert block(text, "track_script") == ["check-apiserver", "check-port"]
    assert text.count("weight -60") == 3
    contained = keepalived_text(with_vrrp(track=("process", "port")), on=target(contained=True))
    assert block(contained, "track_script") == ["check-haproxy", "check-port"]


def test_check_without_a_weight_takes_the_node_out_of_the_election() -> None:
    for track in (("script",), ("process",), ("port", "apiserver")):
        assert "weight" not in keepalived_text(with_vrrp(track=track, failover="fault"))


def test_without_preemption_no_node_is_a_master_which_would_drop_it() -> None:
    for place in range(3):
        text = keepalived_text(with_vrrp(preempt=False, failover="fault"), place)
        assert lines(text, "state", "nopreempt") == ["state BACKUP", "nopreempt"]
        assert "nopreempt" not in keepalived_text(place=place)


def test_version_3_is_named_and_version_2_is_the_default_of_keepalived() -> None:
    assert "vrrp_version" not in keepalived_text()
    assert lines(keepalived_text(with_vrrp(version=3)), "vrrp_version") == ["vrrp_version 3"]


@pytest.mark.parametrize(("seconds", "text"), [(1, "1"), (1.0, "1"), (0.3, "0.3"), (40.95, "40.95"), (255.0, "255")])
def test_advert_interval_is_rendered_without_needless_decimals(seconds: float, text: str) -> None:
    assert lines(keepalived_text(with_vrrp(advert_seconds=seconds)), "advert_int") == [f"advert_int {text}"]


def test_password_of_vrrp_is_rendered_and_masked_wherever_it_is_shown() -> None:
    file = made(with_vrrp(auth_pass=Secret("ge.h@+-8"))).files[1]
    assert block(file.text, "authentication") == ["auth_type PASS", "auth_pass ge.h@+-8"]
    assert "ge.h@+-8" not in file.mask(file.text)
    assert "auth_type PASS" in file.mask(file.text)
    assert "authentication" not in keepalived_text()


def test_vips_of_the_other_family_follow_and_are_not_in_the_adverts() -> None:
    text = keepalived_text(replace(THREE, vip=FOUR, extra_vips=(SIX, Vip(IPv4Address("198.51.100.101"), None))))
    assert block(text, "virtual_ipaddress") == ["198.51.100.100/24", "198.51.100.101"]
    assert block(text, "virtual_ipaddress_excluded") == ["2001:db8::100/64"]
    text = keepalived_text(replace(THREE, vip=SIX, extra_vips=(FOUR,)))
    assert block(text, "virtual_ipaddress") == ["2001:db8::100/64"]
    assert block(text, "virtual_ipaddress_excluded") == ["198.51.100.100/24"]
    assert "excluded" not in keepalived_text()


def test_announcements_are_rendered_where_they_differ_from_keepalives_own() -> None:
    refresh = ["vrrp_garp_master_refresh 1", "vrrp_garp_master_refresh_repeat 1"]
    assert [line for line in keepalived_text().split("\n") if "garp" in line] == [f"    {line}" for line in refresh]
    garp = VRRP.garp._replace(delay_seconds=1, repeat=2, refresh_seconds=3, refresh_repeat=4)
    assert [line.strip() for line in keepalived_text(with_vrrp(garp=garp)).split("\n") if "garp" in line] == [
        "vrrp_garp_master_delay 1",
        "vrrp_garp_master_repeat 2",
        "vrrp_garp_master_refresh 3",
        "vrrp_garp_master_refresh_repeat 4",
    ]
    assert "garp" not in keepalived_text(with_vrrp(garp=VRRP.garp._replace(refresh_seconds=0)))


AUTO = replace(THREE, nodes=tuple(replace(node, interface=None) for node in THREE.nodes))


def test_interface_is_the_one_of_the_file_or_else_the_one_that_was_found() -> None:
    assert "\n    interface bond0\n" in keepalived_text(AUTO, on=target(interface="bond0"))
    assert "\n    interface eth0\n" in keepalived_text(THREE, on=target(interface="bond0"))


def test_interface_that_only_the_node_can_tell_is_asked_for() -> None:
    with pytest.raises(RenderError, match="lb1: VIP_IF=auto: only the node can tell") as caught:
        made(AUTO)
    assert caught.value.hint is not None
    assert "--dry-run" in caught.value.hint
    assert "--interface" in caught.value.hint


# haproxy.cfg


def test_documents_fatal_and_misleading_lines_are_not_rendered() -> None:
    text = proxy_text()
    assert not re.search(r"nbproc|ssl-hello-chk|mode http\n(?=.*kube-master)", text)
    assert text.count("check-ssl verify none") == 3


def test_proxy_files_of_all_nodes_are_the_same() -> None:
    assert len({proxy_text(place=place) for place in range(3)}) == 1


FEATURES = [
    ("state-file", "1.5.18", "1.6", r"server-state"),
    ("init-addr", "1.6.16", "1.7", r"init-addr libc,none"),
    ("hard-stop-after", "1.7.14", "1.8", r"hard-stop-after 1h"),
    ("expose-fd", "1.7.14", "1.8", r"expose-fd listeners"),
    ("log-stdout", "1.8.30", "1.9", r"log stdout"),
    ("exporter", "1.9.16", "2.0", r"use-service prometheus-exporter"),
    ("http-check-send", "2.1.12", "2.2", r"http-check send"),
]


@pytest.mark.parametrize(("name", "below", "since", "words"), FEATURES, ids=[each[0] for each in FEATURES])
def test_feature_is_rendered_from_its_version_on_and_not_below(name: str, below: str, since: str, words: str) -> None:
    of = replace(
        with_proxying(hard_stop_after_ms=3_600_000),
        stats=replace(STATS, exporter=True),
        listeners=(replace(THREE.apiserver_listener, backends=(Backend("a", "api.example.org", 6443),)),),
    )
    assert not re.search(words, proxy_text(of, on=target(below)))
    assert re.search(words, proxy_text(of, on=target(since)))
    assert re.search(words, proxy_text(of))


def test_every_feature_of_the_proxy_is_tested_here_and_nbproc_is_never_rendered() -> None:
    assert [each.name for each in PROXIES["haproxy"].features] == [
        *(each[0] for each in FEATURES),
        "nbproc",
        "same-names",
    ]
    assert not any("nbproc" in proxy_text(on=target(version)) for version in ("1.5.18", "1.8.30", "2.4.1", "3.0.11"))


def test_an_old_proxy_asks_the_same_of_an_apiserver_in_the_older_form() -> None:
    assert "    option httpchk GET /readyz\n    http-check expect status 200\n" in proxy_text(on=target("2.1.12"))
    assert (
        "    option httpchk\n    http-check send meth GET uri /readyz\n    http-check expect status 200\n"
        in proxy_text(on=target("2.2"))
    )


@pytest.mark.parametrize(
    ("log", "bound", "said"),
    [
        ("syslog", frozenset({"/var/lib/haproxy/dev/log"}), False),
        ("syslog", frozenset(), True),
        ("journal", frozenset(), False),
    ],
)
def test_log_that_nothing_brings_out_of_the_chroot_is_told_of(log: Log, bound: frozenset[str], *, said: bool) -> None:
    units = {"haproxy": UnitSettings(bound=bound)}
    notes = made(with_proxying(log=log), on=target(settings=Settings(units=units))).notes
    assert [note.startswith("LOG=syslog: the unit of haproxy brings no /dev/log") for note in notes] == [True] * said
    assert made(with_proxying(log=log), on=target()).notes == ()


def test_an_old_proxy_logs_where_it_can() -> None:
    old = proxy_text(on=target("1.8.30"))
    assert "    log /dev/log local0\n    log /dev/log local1 notice\n" in old
    assert "log /dev/log local0" in proxy_text(with_proxying(log="syslog"))
    assert "log stdout" not in proxy_text(with_proxying(log="syslog"))
    assert lines(proxy_text(), "log")[0] == "log stdout format short daemon"


@pytest.mark.parametrize(
    ("of", "on", "note"),
    [
        (THREE, "1.8.30", "LOG=journal: haproxy 1.8.30 cannot: it logs to /dev/log, if its chroot has one"),
        (
            with_proxying(hard_stop_after_ms=1000, log="syslog"),
            "1.7",
            "HARD_STOP_AFTER: haproxy 1.7 cannot: old processes end by themselves",
        ),
        (
            replace(with_proxying(log="syslog"), stats=replace(STATS, exporter=True)),
            "1.8.30",
            "EXPORTER=yes: haproxy 1.8.30 cannot: there is no /metrics",
        ),
        (
            with_proxying(keeps_drains=True, log="syslog"),
            "1.5.18",
            "SERVER_STATE=yes: haproxy 1.5.18 cannot: a reload forgets what is drained",
        ),
    ],
)
def test_what_an_old_proxy_cannot_do_is_said_where_the_file_asks_for_it(of: Cluster, on: str, note: str) -> None:
    assert made(of, on=target(on)).notes == (note,)
    assert made(of).notes == ()
    assert made(with_proxying(log="syslog"), on=target("1.5.18")).notes == ()


@pytest.mark.parametrize(
    ("of", "expected", "servers"),
    [
        (
            with_check("https", "/livez"),
            ["option httpchk", "http-check send meth GET uri /livez", "http-check expect status 200"],
            "check inter 2s fall 2 rise 2 check-ssl verify none",
        ),
        (
            with_check("http", "/v2/"),
            ["option httpchk", "http-check send meth GET uri /v2/", "http-check expect status 200"],
            "check inter 2s fall 2 rise 2",
        ),
        (with_check("ssl-hello"), ["option ssl-hello-chk"], "check inter 2s fall 2 rise 2"),
        (with_check("tcp"), [], "check inter 2s fall 2 rise 2"),
        (with_check("none"), [], ""),
        (
            with_check("tcp", interval_ms=1500, fall=3, rise=4, slowstart_ms=60_000),
            [],
            "check inter 1500ms fall 3 rise 4 slowstart 1m",
        ),
    ],
    ids=["https", "http", "ssl-hello", "tcp", "none", "times"],
)
def test_health_check_is_rendered_as_one_kind_and_never_as_two(of: Cluster, expected: list[str], servers: str) -> None:
    section = block(proxy_text(of), "listen kube-master")
    assert [line for line in section if "chk" in line or line.startswith("http-check")] == expected
    assert {line.partition(":6443")[2].strip() for line in section if line.startswith("server ")} == {servers}


def test_authorities_of_a_check_are_a_file_that_is_named_by_its_content() -> None:
    found = made(with_check("https", "/readyz", CERTIFICATE))
    (file,) = [each for each in found.files if each.kind == "attachment"]
    name = hashlib.sha256(CERTIFICATE.encode()).hexdigest()[:12]
    assert (file.path, file.text) == (f"/etc/haproxy/exlb-ca-{name}.pem", CERTIFICATE)
    assert (file.mode, file.owner, file.unit, file.digest) == (0o644, "0:0", "haproxy", "")
    assert found.files[0].text.count(f"check-ssl verify required ca-file {file.path}\n") == 3


def test_attachments_of_one_content_are_one_file_and_their_paths_are_known_beforehand() -> None:
    both = replace(
        with_check("https", "/readyz", CERTIFICATE),
        vrrp=replace(VRRP, track=("apiserver", "port")),
    )
    second = replace(both.apiserver_listener, name="second", port=9443)
    both = replace(both, listeners=(*both.listeners, second))
    found = made(both)
    attachments = [file.path for file in found.files if file.kind == "attachment"]
    assert len(attachments) == 3
    assert sorted(file.path for file in (*found.files, *found.absent)) == sorted(paths(both))
    assert found.files[0].text.count("ca-file") == 6


def test_scripts_keep_their_paths_until_their_content_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    of = with_vrrp(track=("port",))
    before = made(of).files[2].path
    assert re.fullmatch(r"/etc/keepalived/exlb-check-port-[0-9a-f]{12}\.sh", before)
    assert made(with_vrrp(track=("port",), check_timeout_seconds=9), place=2).files[2].path == before
    monkeypatch.setattr(programs, "program", lambda name: "#!/bin/sh\nexit 0\n")
    assert made(of).files[2].path != before


@pytest.mark.parametrize(
    ("bind", "vips", "expected"),
    [
        ("all", (FOUR,), ["bind 0.0.0.0:8443"]),
        ("all", (SIX,), ["bind 0.0.0.0:8443", "bind [::]:8443 v6only"]),
        ("vip", (FOUR, SIX), ["bind 198.51.100.100:8443", "bind [2001:db8::100]:8443", "bind 127.0.0.1:8443"]),
        ("node", (FOUR,), ["bind 198.51.100.100:8443", "bind 198.51.100.11:8443"]),
    ],
)
@pytest.mark.parametrize(
    ("layout", "section"), [("listen", "listen kube-master"), ("frontend", "frontend kube-master-frontend")]
)
def test_listener_binds_what_the_file_says_in_either_layout(
    bind: Bind, vips: tuple[Vip, ...], expected: list[str], layout: str, section: str
) -> None:
    of = replace(with_proxying(bind=bind, layout=layout), vip=vips[0], extra_vips=vips[1:])
    assert lines("\n".join(block(proxy_text(of), section)), "bind") == expected
    assert PROXIES["haproxy"].ports(proxy_text(of)) == {8443, 10080}


def test_frontend_and_backend_have_between_them_what_a_listen_section_has() -> None:
    whole = block(proxy_text(), "listen kube-master")
    apart = proxy_text(with_proxying(layout="frontend"))
    front, back = block(apart, "frontend kube-master-frontend"), block(apart, "backend kube-master")
    assert front == ["bind 0.0.0.0:8443", "mode tcp", "option tcplog", "default_backend kube-master"]
    assert back[0] == "mode tcp"
    assert [*front[:-1], *back[1:]] == whole
    assert "listen kube-master" not in apart


def test_endpoints_of_ipv6_are_in_brackets() -> None:
    backends = (Backend("six", "2001:db8::1", 6443), Backend("four", "198.51.100.11", 6443))
    of = replace(with_listener(backends=backends), stats=replace(STATS, bind=ANY_IPV6))
    assert [line.split()[2] for line in lines(proxy_text(of), "server")] == ["[2001:db8::1]:6443", "198.51.100.11:6443"]
    assert "    bind [::]:10080\n" in proxy_text(of)


@pytest.mark.parametrize(
    ("host", "resolved"), [("198.51.100.1", False), ("2001:db8::1", False), ("api.example.org", True), ("a", True)]
)
def test_only_names_are_resolved_at_start(host: str, resolved: bool) -> None:
    assert ("init-addr" in proxy_text(with_listener(backends=(Backend("a", host, 1),)))) is resolved


@pytest.mark.parametrize(("version", "words"), [("no", ""), ("v1", " send-proxy"), ("v2", " send-proxy-v2")])
def test_backends_learn_the_address_of_a_client_in_the_version_that_they_speak(version: str, words: str) -> None:
    for line in lines(proxy_text(with_listener(send_proxy=version)), "server"):
        assert line.endswith(f"verify none{words}")


def test_times_of_the_proxy_are_rendered_and_those_that_are_not_set_are_left_to_it() -> None:
    assert lines(proxy_text(), "timeout") == ["timeout connect 5s", "timeout client 10m", "timeout server 10m"]
    timeouts = PROXYING.timeouts._replace(connect_ms=1500, check_ms=3000, queue_ms=20_000)
    assert lines(proxy_text(with_proxying(timeouts=timeouts)), "timeout") == [
        "timeout connect 1500ms",
        "timeout client 10m",
        "timeout server 10m",
        "timeout check 3s",
        "timeout queue 20s",
    ]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0d"), (1, "1ms"), (1500, "1500ms"), (2000, "2s"), (90_000, "90s"), (600_000, "10m"), (86_400_000, "1d")],
)
def test_time_is_rendered_in_the_largest_unit_that_is_exact(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


def test_most_connections_hold_for_the_process_and_for_every_listener() -> None:
    assert "maxconn" not in proxy_text()
    text = proxy_text(with_proxying(maxconn=4000))
    assert block(text, "global").count("maxconn 4000") == block(text, "defaults").count("maxconn 4000") == 1


def test_what_is_drained_is_kept_where_the_file_says_so() -> None:
    assert "exlb-keeps-drains" in proxy_text(with_proxying(keeps_drains=True))
    assert "exlb-keeps-drains" not in proxy_text()


def test_statistics_page_has_what_the_file_says_of_it() -> None:
    of = replace(THREE, stats=replace(STATS, user="ann@ops", password=Secret("a b"), admin=True))
    section = block(proxy_text(of), "listen admin_stats")
    assert r"stats auth ann@ops:a\x20b" in section
    assert "stats admin if TRUE" in section
    assert "stats admin" not in proxy_text()


def test_exporter_is_there_where_the_binary_has_it_and_else_it_is_said_that_it_is_not() -> None:
    of = replace(THREE, stats=replace(STATS, exporter=True))
    rule = "http-request use-service prometheus-exporter if { path /metrics }"
    with_it = made(of, on=target(services=frozenset({"prometheus-exporter"})))
    assert rule in block(with_it.files[0].text, "listen admin_stats")
    assert with_it.notes == ()
    without = made(of, on=target(services=frozenset()))
    assert rule not in without.files[0].text
    assert without.notes == ("EXPORTER=yes: this haproxy is built without prometheus-exporter: there is no /metrics",)
    assert rule in made(of, on=target(services=None)).files[0].text
    unasked = made(THREE, on=target(services=frozenset({"prometheus-exporter"})))
    assert rule not in unasked.files[0].text


def test_every_listener_has_a_section_of_its_own() -> None:
    check = HealthCheck("none", "", interval_ms=2000, fall=2, rise=2, slowstart_ms=0)
    extra = Listener("dns", 53, (Backend("a", "198.51.100.31", 53),), check, "roundrobin")
    text = proxy_text(replace(THREE, listeners=(*THREE.listeners, extra)))
    assert block(text, "listen dns") == [
        "bind 0.0.0.0:53",
        "mode tcp",
        "option tcplog",
        "balance roundrobin",
        "server a 198.51.100.31:53",
    ]


# Passwords


@pytest.mark.parametrize("line", ["auth_pass geheim", "auth_pas geheim", "  authentication { auth_passwd geheim }"])
def test_password_of_keepalived_is_masked_under_whatever_name(line: str) -> None:
    assert "geheim" not in mask_keepalived(f"auth_type PASS\n{line}\n")
    assert mask_keepalived("auth_type PASS\n") == "auth_type PASS\n"
