"""The bastion as a client of the entrance: one TLS request to it. Nothing else leaves the bastion but SSH."""

from __future__ import annotations

from urllib.parse import urlsplit

from exlb_fab.facts import Reply

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 4.0
_ENOUGH_BYTES = 256


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
