"""The certificate of an apiserver as a node was shown it -> whom it names and when it is valid. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whom a certificate names, and from when to when it is valid, in seconds since 1970."""

    names: frozenset[str]
    addresses: frozenset[Address]
    begin: float
    end: float

    def covers(self, host: str) -> bool:
        """Tell whether a client that asks for a host accepts it. Source: RFC 6125 6.4: `*` is one whole label."""
        try:
            return ip_address(host) in self.addresses
        except ValueError:
            name = host.lower()
            return name in self.names or f"*.{name.partition('.')[2]}" in self.names


def parse(text: str) -> Certificate | None:
    """Return the first certificate in PEM text, None where there is none, or none that can be read."""
    if "-----BEGIN CERTIFICATE-----" not in text:
        return None
    from cryptography import x509  # only verify needs it

    try:
        found = x509.load_pem_x509_certificate(text.encode())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])  # a common name alone counts no more: RFC 6125, Go 1.15
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None
    addresses = names.get_values_for_type(x509.IPAddress)
    return Certificate(
        frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName)),
        frozenset(each for each in addresses if isinstance(each, IPv4Address | IPv6Address)),
        found.not_valid_before_utc.timestamp(),
        found.not_valid_after_utc.timestamp(),
    )
