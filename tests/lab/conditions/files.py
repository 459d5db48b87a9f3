"""Files that are not what the environment file asks for, or not what runs, and changes that did not end."""

from __future__ import annotations

from exlb_fab.errors import EXIT_OK
from exlb_fab.system import drop_in_path
from tests.lab.bastion import KEEPALIVED_PATH, PROXY_PATH
from tests.lab.conditions.base import ALL, HOLDER, SECOND, THIRD, Condition, fail, warn
from tests.lab.conditions.faults import On, edited_keepalived, edited_proxy

_EXTRA_FILE = "/etc/haproxy/extra.cfg"
_MANIFEST = "/var/lib/exlb/current/manifest"
_DEFAULTS = "/etc/default/haproxy"
_OWN_DROP_IN = "/etc/systemd/system/keepalived.service.d/own.conf"

CONDITIONS = (
    Condition(
        "haproxy.cfg edited by hand, not loaded",
        "files",
        edited_proxy("$a # by hand", SECOND, load="true"),
        fail("node.files", SECOND, says=f"{PROXY_PATH} differs"),
    ),
    Condition(
        "haproxy.cfg edited by hand and loaded",
        "files",
        edited_proxy("s/balance source/balance leastconn/", SECOND),
        fail("node.files", SECOND, says=f"{PROXY_PATH} differs"),
        takes="the backends",
        typed="exlb push-config",
    ),
    Condition(
        "another haproxy.cfg than exlb's, loaded",
        "files",
        edited_proxy("/description exlb-/d", SECOND),
        (
            *fail("node.files", SECOND, says=f"{PROXY_PATH} differs"),
            *fail("node.running", SECOND, says="runs no configuration of exlb"),
        ),
        takes="the backends",
        typed="exlb push-config",
    ),
    Condition(
        "keepalived.conf edited by hand, not loaded",
        "files",
        edited_keepalived("$a # by hand", THIRD, load="true"),
        fail("node.files", THIRD, says=f"{KEEPALIVED_PATH} differs"),
    ),
    Condition(
        "the VIP with another prefix by hand",
        "files",
        edited_keepalived(r"s|^( +)198\.51\.100\.100(/32)?$|\1198.51.100.100/24|", HOLDER),
        fail("node.files", HOLDER, says=f"{KEEPALIVED_PATH} differs"),
        takes="an election",
    ),
    Condition(
        "keepalived.conf is gone",
        "files",
        On((THIRD,), f"mv {KEEPALIVED_PATH} /root/kept", f"mv /root/kept {KEEPALIVED_PATH}"),
        fail("node.files", THIRD, says=f"{KEEPALIVED_PATH} is missing"),
        typed="exlb push-config",
    ),
    Condition(
        "the mode of a file by hand",
        "files",
        On((HOLDER,), f"chmod 0600 {PROXY_PATH}", f"chmod 0644 {PROXY_PATH}"),
        fail("node.files", HOLDER, says=f"{PROXY_PATH} has another mode or owner"),
        typed="exlb push-config",
    ),
    Condition(
        "environment.sh changed for the proxy, and not pushed",
        "files",
        None,
        (
            *fail("node.files", *ALL, says=f"{PROXY_PATH} differs"),
            *fail("node.running", *ALL, says="its file was changed and not loaded, or is not what a push would write"),
        ),
        asked={"BALANCE": "leastconn"},
    ),
    Condition(
        "environment.sh changed for keepalived, and not pushed",
        "files",
        None,
        (
            *fail("node.files", *ALL, says=f"{KEEPALIVED_PATH} differs"),
            *fail("vrrp.running", *ALL, says="VRID 68 instead of 70"),
        ),
        asked={"ROUTER_ID": "70"},
    ),
    Condition(
        "an operator's own drop-in says what exlb's says",
        "files",
        On(
            (THIRD,),
            f"printf '[Service]\\nRestart=always\\n' >{_OWN_DROP_IN} && systemctl daemon-reload",
            f"rm {_OWN_DROP_IN} && systemctl daemon-reload",
        ),
        warn("node.files", THIRD, says=f"does not need {drop_in_path('keepalived')}"),
        status=EXIT_OK,
    ),
    Condition(
        "a change was interrupted",
        "files",
        # Behind its last file: it is the change to what is active, whichever that is by now.
        On(
            (SECOND,),
            'active=$(readlink /var/lib/exlb/current) && echo "${active##*/} 0000 reload" >/var/lib/exlb/intent',
            "rm -f /var/lib/exlb/intent",
        ),
        fail("node.files", SECOND, says="the change that brought them was interrupted"),
        typed="exlb recover",
    ),
    Condition(
        "nothing says which generation is active",
        "files",
        On((SECOND,), "mv -T /var/lib/exlb/current /root/current", "mv -T /root/current /var/lib/exlb/current"),
        warn("node.files", SECOND, says="same, but in no generation"),
        status=EXIT_OK,
    ),
    Condition(
        "the active generation is not what it was",
        "files",
        On(
            (THIRD,),
            f"cp -a {_MANIFEST} /root/manifest && sed -i 's/ 644 / 600 /' {_MANIFEST} && "
            f"! cmp -s {_MANIFEST} /root/manifest",
            f"mv /root/manifest {_MANIFEST}",
        ),
        warn("node.files", THIRD, says="same, but not those of generation"),
        status=EXIT_OK,
    ),
    Condition(
        "the proxy reads another file besides",
        "files",
        On(
            (THIRD,),
            f"cp -a {_DEFAULTS} /root/kept-defaults && echo '# by hand' >{_EXTRA_FILE} && "
            f"echo 'EXTRAOPTS=\"-S /run/haproxy-master.sock -f {_EXTRA_FILE}\"' >>{_DEFAULTS} && "
            "systemctl restart haproxy",
            f"mv /root/kept-defaults {_DEFAULTS} && rm {_EXTRA_FILE} && systemctl restart haproxy",
        ),
        warn("config.unmanaged", THIRD, says=_EXTRA_FILE),
        status=EXIT_OK,
        takes="the backends",
    ),
)
