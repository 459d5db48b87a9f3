"""The bastion as a client of the entrance: TLS requests to it, and who has its address on the bastion's own network.

Nothing else leaves the bastion but SSH.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

from exlb_fab.facts import Reply

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 4.0
_ENOUGH_BYTES = 256
ARP_SECONDS = 0.25
_ARP_QUESTIONS = 2
_NEIGHBOURS = Path("/proc/net/arp")
_ETHER_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_ARP_OF_ETHERNET_AND_IPV4 = struct.pack("!HHBB", 1, 0x0800, 6, 4)
_REQUEST = 1


def request(url: str) -> Reply | None:
    """Ask an https URL as a client of the apiserver does, and return what came back.

    None where the bastion does not reach the host: no route, or no answer to a connection. The certificate is not
    checked: that is a question of its own. No proxy of the environment is in between: http.client knows none.
    """
    import http.client  # only verify needs them, and they take longer to load than the rest of this
    import ssl

    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host = parts.hostname or ""
    plain = http.client.HTTPConnection(host, parts.port, timeout=CONNECT_SECONDS)
    try:
        plain.connect()
    except ConnectionError as error:
        return Reply(None, f"{error.strerror}", accepted=False)
    except OSError:
        return None
    try:
        plain.sock.settimeout(ANSWER_SECONDS)
        plain.sock = context.wrap_socket(plain.sock, server_hostname=host)
        plain.request("GET", parts.path, headers={"Accept": "*/*"})
        answer = plain.getresponse()
        begins = answer.read(_ENOUGH_BYTES).decode("ascii", "replace")
        return Reply(answer.status, "", accepted=True, body=begins)
    except (OSError, http.client.HTTPException) as error:
        return Reply(None, f"{error or type(error).__name__}", accepted=True, late=isinstance(error, TimeoutError))
    finally:
        plain.close()


def arp_answers(address: IPv4Address) -> frozenset[str]:
    """Ask by ARP who has an address that was reached a moment ago, and return the MACs of all who say that they have.

    It takes half a second. Nobody is asked where the address is not on a network of the bastion's own, and by whom the
    kernel does not let: CAP_NET_RAW, packet(7).
    """
    try:
        interface = _interface_to(address, _NEIGHBOURS.read_text(encoding="ascii"))
        return frozenset(_heard(interface, address)) if interface else frozenset()
    except OSError:
        return frozenset()


def _interface_to(address: IPv4Address, known: str) -> str | None:
    """Return by which interface the kernel knows an address; behind a router it knows none. Source: proc(5)."""
    rows = (line.split() for line in known.splitlines()[1:])
    return next((words[-1] for words in rows if words[0] == str(address)), None)


def _heard(interface: str, address: IPv4Address) -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((str(address), 9))  # which sends nothing
        own = IPv4Address(way.getsockname()[0])
    if own == address:  # a node itself that has taken it over: the question would tell everybody that it is here
        return
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((interface, _ETHER_ARP))
        for _ in range(_ARP_QUESTIONS):
            link.send(_question(link.getsockname()[4], own, address))
            end = time.monotonic() + ARP_SECONDS
            while (left := end - time.monotonic()) > 0:
                link.settimeout(left)
                try:
                    mac = _has(link.recv(_ENOUGH_BYTES), address)
                except TimeoutError:
                    break
                if mac:
                    yield mac


def _question(mac: bytes, own: IPv4Address, address: IPv4Address) -> bytes:
    """Return an Ethernet frame that asks everybody who has an address. Source: RFC 826."""
    head = _BROADCAST + mac + struct.pack("!H", _ETHER_ARP) + _ARP_OF_ETHERNET_AND_IPV4
    return head + struct.pack("!H", _REQUEST) + mac + own.packed + bytes(6) + address.packed


def _has(frame: bytes, address: IPv4Address) -> str | None:
    """Return the MAC that says in an Ethernet frame, an answer or a question, that it has an address."""
    if frame[14:20] != _ARP_OF_ETHERNET_AND_IPV4 or frame[28:32] != address.packed:
        return None
    return frame[22:28].hex(":")
