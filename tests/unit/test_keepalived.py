"""What a change of keepalived.conf is: compatible, incompatible, or one that needs a restart."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlb_fab.dump import Script
from exlb_fab.keepalived import (
    CLASSES,
    RULES,
    Asked,
    KeepalivedChange,
    Kind,
    Statement,
    advert_seconds,
    asked,
    classify,
    has_instance,
    peers,
    preempting,
    statements,
)

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = {str(path.relative_to(GOLDEN)): path.read_text() for path in sorted(GOLDEN.rglob("keepalived.conf"))}
THREE = FILES["default-3-nodes/expected/198.51.100.12/etc/keepalived/keepalived.conf"]
LONE = FILES["single-node/expected/198.51.100.11/etc/keepalived/keepalived.conf"]
FOUR = FILES["prefix-and-timings/expected/blue-lb-2/etc/keepalived/keepalived.conf"]
INSTANCE = "vrrp_instance VI-kube-master {\n"
TWO = f"{THREE}\n{THREE.replace('VI-kube-master', 'VI-other').replace('virtual_router_id 68', 'virtual_router_id 69')}"
SECURED = THREE.replace(
    "    track_script {",
    "    authentication {\n        auth_type PASS\n        auth_pass hunter2\n    }\n    track_script {",
)


def edited(text: str, old: str, new: str) -> str:
    """Return a text with one place of it changed."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def addresses(*found: str) -> frozenset[object]:
    return frozenset(map(ip_address, found))


# The classes, by edits of what exlb renders


@pytest.mark.parametrize(
    ("old", "new", "kind", "reason"),
    [
        ("priority 110", "priority 90", "compatible", "priority 110 -> 90"),
        ("state BACKUP", "state MASTER", "compatible", "state BACKUP -> MASTER"),
        ("router_id lb-backup-198.51.100.12", "router_id other", "compatible", None),
        ("interval 1\n", "interval 5\n", "compatible", "vrrp_script check-haproxy interval 1 -> 5"),
        ("fall 2", "fall 3", "compatible", "vrrp_script check-haproxy fall 2 -> 3"),
        ("rise 2", "rise 3", "compatible", "vrrp_script check-haproxy rise 2 -> 3"),
        ("weight -60", "weight -30", "compatible", "vrrp_script check-haproxy weight -60 -> -30"),
        ("weight -60", "weight -60\n    timeout 3", "compatible", "vrrp_script check-haproxy timeout +3"),
        ("weight -60", "weight -60\n    user nobody", "compatible", "vrrp_script check-haproxy user +nobody"),
        (
            '"/usr/bin/killall -0 haproxy"',
            '"/usr/bin/pgrep haproxy"',
            "compatible",
            'vrrp_script check-haproxy script "/usr/bin/killall -0 haproxy" -> "/usr/bin/pgrep haproxy"',
        ),
        ("    enable_script_security\n", "", "compatible", "-enable_script_security"),
        ("script_user root", "script_user nobody", "compatible", "script_user root -> nobody"),
        ("garp_master_refresh 1", "garp_master_refresh 9", "compatible", "vrrp_garp_master_refresh 1 -> 9"),
        ("priority 110", "priority 110\n    nopreempt", "compatible", "+nopreempt"),
        ("priority 110", "priority 110\n    preempt_delay 30", "compatible", "preempt_delay +30"),
        ("priority 110", "priority 110\n    notify /bin/it", "compatible", "notify +/bin/it"),
        ("        check-haproxy", "        check-haproxy\n        b", "compatible", "track_script +b"),
        ("VI-kube-master", "VI_1", "compatible", "vrrp_instance changes its name"),
        ("virtual_router_id 68", "virtual_router_id 69", "incompatible", "virtual_router_id 68 -> 69"),
        ("advert_int 1", "advert_int 3", "incompatible", "advert_int 1 -> 3"),
        ("interface eth0", "interface eth1", "incompatible", "interface eth0 -> eth1"),
        ("src_ip 198.51.100.12", "src_ip 198.51.100.22", "incompatible", None),
        ("198.51.100.100\n", "198.51.100.101\n", "incompatible", "virtual_ipaddress 198.51.100.100 -> 198.51.100.101"),
        ("198.51.100.100\n", "198.51.100.100/24\n", "incompatible", None),
        ("198.51.100.100\n", "198.51.100.100\n198.51.100.101\n", "incompatible", "virtual_ipaddress +198.51.100.101"),
        ("priority 110", "priority 110\n    version 3", "incompatible", "version +3"),
        ("script_user root", "script_user root\n    vrrp_version 3", "incompatible", "vrrp_version +3"),
        ("priority 110", "priority 110\n    use_vmac", "incompatible", "+use_vmac"),
        ("priority 110", "priority 110\n    mcast_src_ip 198.51.100.12", "incompatible", None),
        ("priority 110", "priority 110\n    native_ipv6", "incompatible", "+native_ipv6"),
        ("priority 110", "priority 110\n    brand_new 7", "incompatible", "brand_new changes"),
        ("script_user root", "script_user root\n    brand_new 7", "incompatible", "brand_new changes"),
        ("global_defs {", "brand_new 7\nglobal_defs {", "incompatible", "brand_new changes"),
        ("global_defs {", "@other priority 3\nglobal_defs {", "incompatible", "@other changes"),
        ("global_defs {", "include /etc/more.conf\nglobal_defs {", "incompatible", "include changes"),
        ("global_defs {", "net_namespace blue\nglobal_defs {", "restart", "net_namespace +blue"),
        ("global_defs {", "instance blue\nglobal_defs {", "restart", "instance +blue"),
        ("script_user root", "script_user root\n    disable_local_igmp", "restart", "+disable_local_igmp"),
    ],
)
def test_one_edit_has_its_class_in_both_directions(old: str, new: str, kind: Kind, reason: str | None) -> None:
    change, back = classify(THREE, edited(THREE, old, new)), classify(edited(THREE, old, new), THREE)
    assert (change.kind, back.kind) == (kind, kind)
    assert len(change.reasons) == len(back.reasons) == 1
    assert reason in (None, *change.reasons)
    assert change.deaf == back.deaf == (kind == "incompatible" or "net_namespace" in new)


@pytest.mark.parametrize("keyword", CLASSES)
def test_every_keyword_of_the_table_has_the_class_that_stands_there(keyword: str) -> None:
    place = "global_defs {\n" if "vrrp_" in keyword or CLASSES[keyword] == "restart" else INSTANCE
    one, two = (edited(THREE, place, f"{place}    {keyword} {value}\n") for value in (7, 8))
    change = classify(one, two)
    assert change.kind == CLASSES[keyword]
    assert change.reasons == ("auth_pass changes" if keyword == "auth_pass" else f"{keyword} 7 -> 8",)


def test_table_names_every_keyword_once_and_its_source() -> None:
    assert all(rule.source for rule in RULES)
    assert len(CLASSES) == sum(len(rule.keywords.split()) for rule in RULES)


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_rendered_file_is_read_line_by_line_and_equals_itself(text: str) -> None:
    lines = [line.strip() for line in text.splitlines()]
    assert len(statements(text)) == len([line for line in lines if line and line[0] != "#" and line[-1] not in "{}"])
    assert classify(text, text) == KeepalivedChange("none")
    assert classify("", text) == KeepalivedChange("compatible", ("its first configuration",))


def test_worst_class_wins_and_its_reasons_come_first() -> None:
    text = edited(edited(THREE, "priority 110", "priority 9"), "advert_int 1", "advert_int 3")
    assert classify(THREE, text) == KeepalivedChange(
        "incompatible", ("advert_int 1 -> 3", "priority 110 -> 9"), deaf=True
    )
    restart = classify(THREE, f"instance blue\n{text}")
    assert restart == KeepalivedChange(
        "restart", ("instance +blue", "advert_int 1 -> 3", "priority 110 -> 9"), deaf=True
    )


def test_configuration_without_an_instance_comes_first_or_ends_it() -> None:
    silent = "global_defs {\n    router_id a\n}\n"
    assert classify(silent, THREE).kind == "compatible"
    assert classify(silent, THREE).reasons == ("its first configuration",)
    assert classify(THREE, silent) == KeepalivedChange("incompatible", ("no vrrp_instance any more",), deaf=True)
    assert classify("include conf.d/*.conf", THREE).kind == "incompatible"


def test_reasons_name_the_instance_where_there_are_more() -> None:
    assert classify(TWO, TWO.replace("priority 110", "priority 90", 1)).reasons == (
        "vrrp_instance VI-kube-master priority 110 -> 90",
    )
    assert classify(THREE, TWO).kind == classify(TWO, THREE).kind == "incompatible"


# Peers


@pytest.mark.parametrize(
    ("old", "new", "joining", "leaving"),
    [
        ("100.13\n", "100.13\n198.51.100.14\n", addresses("198.51.100.14"), addresses()),
        ("        198.51.100.13\n", "", addresses(), addresses("198.51.100.13")),
        ("198.51.100.13\n", "198.51.100.14\n", addresses("198.51.100.14"), addresses("198.51.100.13")),
        ("100.13\n", "100.13\nfd00::1\n", addresses("fd00::1"), addresses()),
    ],
)
def test_peers_that_join_or_leave_alone_are_compatible(
    old: str, new: str, joining: frozenset[object], leaving: frozenset[object]
) -> None:
    change = classify(THREE, edited(THREE, old, new))
    assert (change.kind, change.deaf) == ("compatible", False)
    assert (change.joining, change.leaving) == (joining, leaving)
    assert all(reason.startswith("unicast_peer ") for reason in change.reasons)


def test_peer_that_joins_is_named_beside_a_worse_reason() -> None:
    text = edited(edited(THREE, "100.13\n", "100.13\n198.51.100.14\n"), "advert_int 1", "advert_int 3")
    change = classify(THREE, text)
    assert change.reasons == ("advert_int 1 -> 3", "unicast_peer +198.51.100.14")
    assert (change.kind, change.joining) == ("incompatible", addresses("198.51.100.14"))


@pytest.mark.parametrize("item", ["198.51.100.13 min_ttl 255", "lb-3.example.com"])
def test_peer_with_another_option_or_without_an_address_is_incompatible(item: str) -> None:
    change = classify(THREE, edited(THREE, "198.51.100.13\n", f"{item}\n"))
    assert (change.kind, change.joining, change.leaving) == ("incompatible", addresses(), addresses())


def test_multicast_and_unicast_do_not_hear_each_other() -> None:
    multicast = re.sub(r" *unicast_peer \{[^}]*\}\n", "", THREE)
    assert classify(multicast, THREE) == KeepalivedChange("incompatible", ("multicast -> unicast",), deaf=True)
    assert classify(THREE, multicast) == KeepalivedChange("incompatible", ("unicast -> multicast",), deaf=True)


def test_peers_of_all_instances_are_found() -> None:
    assert peers(FOUR) == addresses("198.51.100.11", "198.51.100.13", "198.51.100.14")
    assert peers(f"{THREE}\n{FOUR}") == addresses("198.51.100.11", "198.51.100.13", "198.51.100.14")
    assert peers(LONE) == peers("unicast_peer { nobody }") == addresses()


# What else a text says


def test_only_nopreempt_in_every_instance_that_begins_as_backup_ends_preemption() -> None:
    calm = edited(THREE, "priority 110", "priority 110\n    nopreempt")
    assert preempting(THREE)
    assert not preempting(calm)
    assert preempting(edited(calm, "state BACKUP", "state MASTER"))
    assert preempting(f"{calm}\n{FOUR.replace('VI-kube-master', 'VI_2')}")
    assert not preempting("")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (THREE, 1.0),
        (FOUR, 3.0),
        (edited(THREE, "advert_int 1", "advert_int 0.25"), 0.25),
        (edited(THREE, "advert_int 1", ""), 1.0),
        (edited(THREE, "advert_int 1", "advert_int nan"), 1.0),
        (f"{THREE}\n{FOUR.replace('VI-kube-master', 'VI_2')}", 3.0),
        ("global_defs {\n    advert_int 3\n}", None),
        ("", None),
    ],
)
def test_longest_advert_interval_is_found(text: str, seconds: float | None) -> None:
    assert advert_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "there"),
    [
        (LONE, True),
        ("vrrp_instance VI_1\n{\n  state BACKUP\n}", True),
        ("@node vrrp_instance VI_1 {\n  state BACKUP\n}", True),
        ("include /etc/keepalived/conf.d/*.conf", True),
        ("# vrrp_instance VI_1 {\nvrrp_script a {\n  interval 2\n}", False),
        ("", False),
    ],
)
def test_instance_is_found(text: str, there: bool) -> None:
    assert has_instance(text) == there


def test_every_way_to_write_a_block_says_the_same() -> None:
    expected = {
        Statement(("vrrp_instance VI_1",), ("state", "BACKUP")),
        Statement(("vrrp_instance VI_1", "virtual_ipaddress"), ("198.51.100.100/24", "dev", "eth0")),
        Statement((), ("include", "/etc/more.conf")),
    }
    assert expected == statements(
        "vrrp_instance VI_1 {\n state BACKUP\n virtual_ipaddress {\n  198.51.100.100/24 dev eth0\n }\n}\n"
        "include /etc/more.conf"
    )
    assert expected == statements(
        "! old\nvrrp_instance VI_1 # ours\n\n{\r\n\tstate   BACKUP!now\n virtual_ipaddress { 198.51.100.100/24 \\\n"
        "  dev eth0 } }\ninclude /etc/more.conf"
    )


def test_quotes_and_escapes_hide_the_signs_of_comments_and_blocks() -> None:
    assert statements('script "/bin/a # { b"\nnotify /bin/a\\#b\nauth_pass x{y') == {
        Statement((), ("script", '"/bin/a # { b"')),
        Statement((), ("notify", "/bin/a\\#b")),
        Statement((), ("auth_pass", "x{y")),
    }


def test_comment_that_ends_in_a_backslash_does_not_swallow_the_next_line() -> None:
    text = edited(THREE, "virtual_router_id 68", "# 68 \\\n    virtual_router_id 69")
    assert classify(THREE, text).reasons == ("virtual_router_id 68 -> 69",)


# Passwords


def test_password_changes_without_being_shown() -> None:
    change = classify(SECURED, edited(SECURED, "hunter2", "hunter3"))
    assert change == KeepalivedChange("incompatible", ("auth_pass changes",), deaf=True)
    assert classify(THREE, SECURED).reasons == ("auth_pass changes", "auth_type +PASS")


# Properties

WORDS = st.sampled_from(
    [*CLASSES, "brand_new", "@node", "vrrp_instance", "include", "198.51.100.11", "{", "}", "#", "\\", '"']
)
SOUP = st.lists(WORDS | st.sampled_from([" ", "\n", "\r"]) | st.text(max_size=4), max_size=40).map(
    lambda words: " ".join(words).replace(" \n ", "\n")
)
VALUES = st.sampled_from(["1", "2", "/bin/it", "198.51.100.11", '"a b # c"'])
LINES = st.lists(st.tuples(st.sampled_from([*CLASSES, "brand_new"]), VALUES), max_size=3)
BLOCKS = st.lists(
    st.tuples(st.sampled_from(["unicast_peer", "virtual_ipaddress", "track_script", "brand_new_block"]), LINES),
    max_size=2,
)
CONFIGURATIONS = st.tuples(LINES, LINES, st.sampled_from(["VI_1", "VI_2"]), BLOCKS)
Lines = list[tuple[str, str]]
Configuration = tuple[Lines, Lines, str, list[tuple[str, Lines]]]


def written(configuration: Configuration, random: Random | None = None) -> str:
    """Return a configuration as text; with `random` in another order, with other blanks and with comments."""

    def lines(given: Lines) -> list[str]:
        return [f"{keyword} {value}" for keyword, value in given]

    def block(header: str, body: list[str]) -> str:
        if not random:
            return "\n".join([f"{header} {{", *body, "}"])
        random.shuffle(body)
        noise = ["", "  # priority 1 {", "\t! }", "   "]
        loose = [line for each in body for line in (random.choice(noise), f"\t{each.replace(' ', '  ', 1)}  # }}")]
        opening = random.choice([f"{header} {{", f"{header}\n\n{{", f"{header}   {{ # {{"])
        return "\n".join([opening, *loose, "}"])

    defaults, instance, name, blocks = configuration
    inner = [block(header, lines(given)) for header, given in blocks]
    body = [*lines(instance), "advert_int 1", *inner]
    parts = [block("global_defs", lines(defaults)), block(f"vrrp_instance {name}", body)]
    if random:
        random.shuffle(parts)
    return "\n".join(parts)


@given(CONFIGURATIONS, st.randoms(use_true_random=False))
def test_order_blanks_and_comments_mean_nothing(configuration: Configuration, random: Random) -> None:
    text = written(configuration)
    assert classify(text, text) == KeepalivedChange("none")
    assert classify(text, written(configuration, random)) == KeepalivedChange("none")


@given(CONFIGURATIONS, CONFIGURATIONS)
def test_way_back_has_the_class_of_the_way_there(one: Configuration, two: Configuration) -> None:
    there, back = classify(written(one), written(two)), classify(written(two), written(one))
    assert (there.kind, there.deaf, there.joining, there.leaving) == (back.kind, back.deaf, back.leaving, back.joining)
    assert bool(there.reasons) == (there.kind != "none")


@given(st.text() | SOUP, st.text() | SOUP)
def test_garbage_is_read_without_an_error(one: str, two: str) -> None:
    change = classify(one, two)
    assert (change.kind == "none") == (statements(one) == statements(two))
    assert isinstance(preempting(one), bool)
    assert (advert_seconds(one) or 0) >= 0
    assert len(peers(one)) <= len(statements(one))


@given(
    SOUP,
    CONFIGURATIONS,
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12).map("s3cr3t{}".format),
    st.sampled_from(
        [
            "auth_pass {}",
            "@node auth_pass {}",
            "auth_pass \\\n{}",
            "authentication {{\nauth_pass\n{}\n}}",
            "auth_pass {} {{",
        ]
    ),
    st.integers(0, 40),
)
def test_password_is_in_no_reason(soup: str, good: Configuration, secret: str, form: str, place: int) -> None:
    lines = [*written(good).split("\n"), *soup.split("\n")]
    lines.insert(place, form.format(secret))
    one, two = "\n".join(lines), written(good)
    for change in (classify(one, two), classify(two, one)):
        assert not [reason for reason in change.reasons if "s3cr3t" in reason]


def test_what_a_file_asks_of_its_instance_is_read_back() -> None:
    text = """
    vrrp_script check-a { script a
      weight -60 }
    vrrp_script check-b { script b
      weight -60 }
    vrrp_track_process check-c { process c }
    vrrp_instance other { virtual_router_id 7
      virtual_ipaddress { 198.51.100.200 } }
    vrrp_instance VI { state BACKUP
      interface eth0
      virtual_router_id 68
      advert_int 0.5
      nopreempt
      authentication { auth_pass x }
      unicast_peer { 198.51.100.12 }
      track_script {
        check-a
        check-b weight 5
      }
      track_process { check-c }
      virtual_ipaddress {
        198.51.100.100/24 dev eth0
        198.51.100.101
      } }
    """
    vips = frozenset(map(ip_address, ("198.51.100.100", "198.51.100.101")))
    peers = frozenset([ip_address("198.51.100.12")])
    weights = {"check-a": -60, "check-b": 5, "check-c": 0}
    scripts = {"check-a": Script(("a",)), "check-b": Script(("b",))}
    expected = Asked(68, "eth0", 100, 0.5, False, True, vips, peers, weights, scripts)
    assert asked(text, ip_address("198.51.100.101")) == expected
    assert asked(text, ip_address("198.51.100.1")) is None


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ('script "/usr/bin/killall -0 haproxy"', Script(("/usr/bin/killall", "-0", "haproxy"))),
        ("script /usr/bin/true\n interval 2\n timeout 3\n fall 4\n rise 5", Script(("/usr/bin/true",), 2, 3, 4, 5)),
        ("script /usr/bin/killall -0 haproxy", Script()),
        ("script \"/bin/sh -c 'exit 0'\"", Script()),
        ('script "/bin/echo a\\ b"', Script()),
        ('script "$CHECK -0 haproxy"', Script()),
        ("script /bin/a\n script /bin/b\n interval 1.5\n fall 2\n fall 3", Script()),
    ],
)
def test_what_a_script_is_asked_to_be_is_read_as_far_as_it_is_plain(stated: str, expected: Script) -> None:
    text = f"""vrrp_script check-a {{
      {stated}
    }}
    vrrp_instance VI {{
      track_script {{
        check-a
      }}
      virtual_ipaddress {{
        198.51.100.100
      }}
    }}
    """
    found = asked(text, ip_address("198.51.100.100"))
    assert found is not None
    assert found.scripts == {"check-a": expected}
