"""keepalived that does not run, does not answer, or would not take the VIP."""

from __future__ import annotations

import shlex

from exlb_fab.errors import EXIT_OK
from exlb_fab.lab.layout import VIP
from tests.lab.bastion import KEEPALIVED_PATH, listens
from tests.lab.conditions.base import ALL, HOLDER, SECOND, THIRD, Condition, fail, warn
from tests.lab.conditions.faults import On, Together, drained, edited_keepalived, hung, stopped

_DEFAULTS = "/etc/default/keepalived"
_KEPT_DEFAULTS = "/root/kept-defaults"
_TIMEOUTS = tuple(f"timeout {each} 5s" for each in ("connect", "client", "server"))
_OTHER_PROXY = ("defaults", "mode tcp", *_TIMEOUTS, "listen other", "bind :9999")
_FAULT = {"FAILOVER": "fault"}

_KEEPALIVED_S_TMP = "nsenter -m -t $(systemctl show -p MainPID --value keepalived) --"
_NO_KILLALL = On((THIRD,), "chmod -x /usr/bin/killall", "chmod +x /usr/bin/killall")
# A shell may find only what can be run.
_KILLALL_NOT_FOUND = fail("node.packages", THIRD, says="not installed: killall")


def _loaded_and_put_back(expression: str, says: str) -> On:
    """Have keepalived load an edit of its file, until it tells so, and put the file back as it was."""
    runs = (
        "until kill -s USR1 $(systemctl show -p MainPID --value keepalived) && "
        f'grep -q "{says}" /tmp/keepalived.data; do sleep 0.2; done'
    )
    return On(
        (THIRD,),
        f"cp -a {KEEPALIVED_PATH} /root/kept && sed -i '{expression}' {KEEPALIVED_PATH} && "
        f"! cmp -s {KEEPALIVED_PATH} /root/kept && "
        f"systemctl reload keepalived && timeout 20 sh -c '{runs}' && mv /root/kept {KEEPALIVED_PATH}",
        "systemctl reload keepalived",
    )


CONDITIONS = (
    Condition(
        "keepalived stopped on the holder",
        "keepalived",
        stopped("keepalived", HOLDER),
        fail("node.keepalived", HOLDER, says="keepalived is inactive"),
        takes="an election",
        typed="exlb push-config",
    ),
    Condition(
        "keepalived stopped on a backup",
        "keepalived",
        stopped("keepalived", SECOND),
        fail("node.keepalived", SECOND, says="keepalived is inactive"),
    ),
    Condition(
        "keepalived stopped on all nodes",
        "keepalived",
        stopped("keepalived", *ALL),
        (
            *fail("node.keepalived", *ALL, says="keepalived is inactive"),
            *fail("vip.single-holder", says="keepalived runs on no node"),
            *fail("vip.ping", *ALL, says="does not answer ping"),
            *fail("vip.request", *ALL, says=f"Failed to connect to {VIP}"),
        ),
        typed="exlb push-config",
    ),
    Condition(
        "keepalived of the holder killed, and cannot start again: its VIP is stale",
        "keepalived",
        On(
            (HOLDER,),
            # Its child, which has the VIP, would take it away if it heard of the parent's end before its own.
            f"if [ -e {_DEFAULTS} ]; then cp -a {_DEFAULTS} {_KEPT_DEFAULTS}; fi; "
            f"echo DAEMON_ARGS=--nonsense >{_DEFAULTS} && systemctl kill -s STOP keepalived && "
            "systemctl kill -s KILL keepalived",
            f"rm {_DEFAULTS}; if [ -e {_KEPT_DEFAULTS} ]; then mv {_KEPT_DEFAULTS} {_DEFAULTS}; fi; "
            "systemctl reset-failed keepalived; systemctl restart keepalived",
        ),
        (
            *fail("node.keepalived", HOLDER, says="Unknown option --nonsense"),
            *fail("vip.single-holder", says=f"keepalived on {HOLDER} is not MASTER, and has left the address behind"),
        ),
        takes="an election",
    ),
    Condition(
        "an interface that is not there, loaded on the holder: keepalived ends, and its VIP is stale",
        "keepalived",
        edited_keepalived(
            "s/interface host0/interface nowhere0/",
            HOLDER,
            load="{ systemctl reset-failed keepalived; systemctl reload-or-restart keepalived || true; }",
        ),
        (
            *fail("node.keepalived", HOLDER, says="Non-existent interface specified in configuration"),
            *fail("node.files", HOLDER, says=f"{KEEPALIVED_PATH} differs"),
            *fail("vip.single-holder", says=f"keepalived on {HOLDER} is not MASTER, and has left the address behind"),
        ),
        takes="an election",
    ),
    Condition(
        "keepalived hangs on the holder",
        "keepalived",
        hung("keepalived", HOLDER),
        (
            *fail("vip.single-holder", says=f"keepalived on {HOLDER} runs, and does not tell how: it hangs"),
            *fail("vrrp.state", HOLDER, says="it hangs"),
            *fail("vrrp.running", HOLDER, says="it hangs"),
        ),
        takes="an election",
        typed=f"exlb restart keepalived --nodes {HOLDER}",
    ),
    Condition(
        "keepalived hangs on a backup",
        "keepalived",
        hung("keepalived", THIRD),
        (
            *fail("vrrp.state", THIRD, says="it hangs, and would not take the VIP"),
            *fail("vrrp.running", THIRD, says="it hangs"),
        ),
        typed=f"exlb restart keepalived --nodes {THIRD}",
    ),
    Condition(
        "something reloads keepalived of a backup again and again",
        "keepalived",
        On(
            (THIRD,),
            "systemd-run -q --collect --unit=flap sh -c 'while :; do systemctl reload keepalived; sleep 3; done'",
            "systemctl stop flap",
        ),
        fail("vrrp.settled", says=f"VRRP does not come to rest on {THIRD}"),
        # A reload begins to count anew, and between two of them little is heard.
        also=fail("vrrp.adverts", THIRD, says="hears no adverts"),
        takes="an election",
    ),
    Condition(
        "keepalived masked",
        "keepalived",
        On((THIRD,), "systemctl mask keepalived", "systemctl unmask keepalived"),
        fail("node.keepalived", THIRD, says="keepalived is masked"),
        also=fail("node.files", THIRD, says="keepalived.service.d/exlb.conf"),  # what its unit lacks, nobody can see
    ),
    Condition(
        "keepalived not enabled at boot",
        "keepalived",
        On((THIRD,), "systemctl disable keepalived", "systemctl enable keepalived"),
        fail("node.keepalived", THIRD, says="disabled at boot"),
        typed="exlb install",
    ),
    Condition(
        "keepalived has left its check out: others could write where its program is",
        "keepalived",
        On(
            (SECOND,),
            "chmod o+w /usr/bin && systemctl restart keepalived",
            "chmod o-w /usr/bin && systemctl restart keepalived",
        ),
        (
            *fail("vrrp.running", SECOND, says="runs without its check check-haproxy"),
            *fail("vrrp.law", says=f"none on {SECOND}"),
        ),
        takes="an election",
    ),
    Condition(
        "holder in FAULT",
        "keepalived",
        stopped("haproxy", HOLDER),
        (
            *fail("node.proxy", HOLDER, says="haproxy is inactive"),
            *fail("vrrp.state", HOLDER, says="its check check-haproxy fails"),
        ),
        takes="a check",
        variables=_FAULT,
    ),
    Condition(
        "all nodes in FAULT: nobody holds the VIP",
        "keepalived",
        stopped("haproxy", *ALL),
        (
            *fail("node.proxy", *ALL, says="haproxy is inactive"),
            *fail("vip.single-holder", says="keepalived is in FAULT on lb1, lb2, lb3"),
            *fail("vip.ping", *ALL, says="does not answer ping"),
            *fail("vip.request", *ALL, says=f"Failed to connect to {VIP}"),
            *fail("vrrp.state", *ALL, says="its check check-haproxy fails"),
            *fail("backend.any", says="no node sees any backend up"),
        ),
        takes="a check",
        variables=_FAULT,
    ),
    Condition(
        "a backup whose proxy gives nothing to an apiserver has a lower priority",
        "keepalived",
        drained(THIRD),
        (
            *fail("vrrp.state", THIRD, says="instead of 105\nits check check-apiserver fails"),
            *fail("backend.servers", THIRD, says="somebody told the proxy to drain it"),
            *fail("backend.request", THIRD, says="no apiserver to give it to"),
        ),
        takes="a check",
        variables={"TRACK": "script,apiserver"},
    ),
    Condition(
        "the check's program cannot be run",
        "keepalived",
        _NO_KILLALL,
        # keepalived takes it for one that passes: the priority stays.
        fail("vrrp.tracker", THIRD, says="/usr/bin/killall is not executable"),
        also=_KILLALL_NOT_FOUND,
    ),
    Condition(
        "another haproxy runs beside the unit, and has the name that the check asks for",
        "keepalived",
        On(
            (THIRD,),
            f"printf '%s\\n' {' '.join(map(shlex.quote, _OTHER_PROXY))} >/root/other.cfg && "
            "systemd-run -q --collect --unit=other haproxy -db -f /root/other.cfg && "
            f"{listens(9999)}",
            "systemctl stop other",
        ),
        fail("vrrp.tracker", THIRD, says="haproxy -db -f /root/other.cfg"),
    ),
    Condition(
        "the check's program cannot be run, and the proxy is dead",
        "keepalived",
        Together((_NO_KILLALL, stopped("haproxy", THIRD))),
        (
            *fail("node.proxy", THIRD, says="haproxy is inactive"),
            *fail("vrrp.tracker", THIRD, says="/usr/bin/killall is not executable"),
            *fail("vrrp.state", THIRD, says="does not notice that haproxy does not run"),
        ),
        also=_KILLALL_NOT_FOUND,
        takes="a check",
    ),
    Condition(
        "a process is tracked in a container, where the kernel tells nothing of it",
        "keepalived",
        edited_keepalived(
            's/vrrp_script/vrrp_track_process/; s/^( *)script ".*"/\\1process haproxy/; '
            "/^ *(interval|timeout|fall|rise) /d; s/track_script/track_process/",
            SECOND,
        ),
        (
            *fail("node.files", SECOND, says=f"{KEEPALIVED_PATH} differs"),
            *fail("vrrp.tracker", SECOND, says="would not notice that haproxy dies"),
        ),
        # Some versions have not even looked for it once.
        also=fail("vrrp.state", SECOND, says="its check check-haproxy fails"),
        takes="an election",
    ),
    Condition(
        "priority by hand that breaks the law",
        "keepalived",
        edited_keepalived("s/priority 105/priority 40/", THIRD),
        (
            *fail("node.files", THIRD, says=f"{KEEPALIVED_PATH} differs"),
            *fail("vrrp.running", THIRD, says="priority 40 instead of 105"),
            *fail("vrrp.law", says="keeps the VIP"),
        ),
        takes="an election",
    ),
    Condition(
        "priority 255 by hand",
        "keepalived",
        edited_keepalived("s/priority 105/priority 255/", THIRD),
        (
            *fail("node.files", THIRD, says=f"{KEEPALIVED_PATH} differs"),
            *fail("vrrp.running", THIRD, says="priority 255 instead of 105"),
            *fail("vrrp.law", says=f"{THIRD} has priority 255"),
        ),
        takes="an election",
    ),
    Condition(
        "keepalived has no space to write its state into",
        "keepalived",
        On(
            (THIRD,),
            f"{_KEEPALIVED_S_TMP} mount -t tmpfs -o size=4k condition /tmp && "
            f"{_KEEPALIVED_S_TMP} sh -c 'head -c 4096 /dev/zero >/tmp/fill'",
            f"{_KEEPALIVED_S_TMP} umount -l /tmp",
        ),
        (
            *warn("vrrp.state", THIRD, says="no space in the /tmp of keepalived"),
            *warn("vrrp.running", THIRD, says="no space in the /tmp of keepalived"),
        ),
        status=EXIT_OK,
    ),
    Condition(
        "keepalived runs what is no longer in its file",
        "keepalived",
        _loaded_and_put_back("s/priority 105/priority 104/", "Priority = 104"),
        fail("vrrp.running", THIRD, says="priority 104 instead of 105"),
        typed=f"exlb restart keepalived --nodes {THIRD}",
    ),
    Condition(
        "keepalived runs another check than is in its file",
        "keepalived",
        _loaded_and_put_back(
            "s#/usr/bin/killall -0 haproxy#/bin/true#; s/^    interval .*/    interval 3600/", "Interval = 3600 sec"
        ),
        fail("vrrp.running", THIRD, says="true instead of /usr/bin/killall -0 haproxy, check-haproxy interval 3600"),
        typed=f"exlb restart keepalived --nodes {THIRD}",
    ),
)
