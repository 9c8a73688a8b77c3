"""What one value of a configuration means.

Each parser returns what the text means, or raises ValueError with "is not X; what would be right".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from OpenSSL import crypto

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
UNKNOWN_HOME = "names an unknown home directory; give a path that starts with /"
LONGEST = 36500 * 86400
LARGEST = 10**6 * 1024**4
FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
SEGMENT = r"(?!\.{1,2}/)[A-Za-z0-9._~!$&'()*+,;=:@-]+"  # RFC 3986 pchar without percent-encoding, no dot segment
RESERVED = ("-", "v2", "healthz", "readyz", "metrics")
NOT_SETTABLE = {
    "host",
    "range",
    "content-length",
    "transfer-encoding",
    "connection",
    "accept-encoding",
    "proxy-authorization",
}


class Telling(ValueError):
    """A message that tells something of the value beside it; ``discreet`` is for values that are not shown."""

    def __init__(self, message: str, discreet: str) -> None:
        super().__init__(message)
        self.discreet = discreet


def duration(text: str) -> float:
    """Seconds: a number, with s (also without), m, h or d."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)", text.strip().lower())
    if match is None:
        raise ValueError("is not a duration; give seconds, or a number with s, m, h or d, such as 90 or 5m")
    seconds = float(match[1]) * SECONDS[match[2]]
    if seconds > LONGEST:
        raise ValueError("is too long; give at most 36500d")
    return seconds


def timeout(text: str) -> float:
    """A duration of more than nothing."""
    if (seconds := duration(text)) == 0:
        raise ValueError("would time out at once; give more than 0 seconds")
    return seconds


def byte_size(text: str) -> int:
    """Bytes, 1 or more: plain, or with KB MB GB TB (powers of 1000) or K M G T, KiB MiB GiB TiB (powers of 1024)."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kmgt])(i?)(b?)|b)?", text.strip().lower())
    if match is None:
        raise ValueError("is not a size; give bytes, or a number with KiB, MiB, GiB or TiB, such as 50GiB")
    base = 1000 if match[4] and not match[3] else 1024
    size = float(match[1]) * base ** (" kmgt".index(match[2]) if match[2] else 0)
    if size < 1:
        raise ValueError("is too small; give at least 1 byte")
    if size > LARGEST:
        raise ValueError("is too large; give at most 1000000 TiB")
    return int(size)


def whole(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """A parser for whole numbers from ``minimum`` to ``maximum``."""

    def parse(text: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,18}", text) and minimum <= int(text) and (maximum is None or int(text) <= maximum):
            return int(text)
        bounds = f"of {minimum} or more" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"is not allowed; give a whole number {bounds}")

    return parse


def mode(owner: int) -> Callable[[str], int]:
    """A parser for octal permission bits that leave the owner ``owner``."""

    def parse(text: str) -> int:
        match = re.fullmatch(r"0?o?([0-7]{3,4})", text)
        if match is None:
            raise ValueError("is not a mode; give three octal digits after a 0, such as 0750")
        if int(match[1], 8) & owner != owner:
            raise ValueError(f"locks the vault itself out; give at least {owner:#05o}".replace("0o", "0"))
        return int(match[1], 8)

    return parse


def network(text: str) -> Network:
    """An address or a network in CIDR notation, without host bits."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        plain = "is not a network; give one such as 10.0.0.0/8 or fd00::/8, without host bits"
        try:
            near = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(plain) from None
        raise Telling(f"is not a network; did you mean {near}?", plain) from None


def unscoped(host: str) -> bool:
    """True for an IPv6 address that means nothing without the interface it is on (RFC 4007 section 11)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return isinstance(address, ipaddress.IPv6Address) and address.is_link_local and not address.scope_id


def authority(text: str) -> tuple[str, int]:
    """A host (name or address, an IPv6 one in brackets) with a port."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError("is not a host with a port; give one such as deb.example:443 or [2001:db8::1]:443")
    return (match[1] or match[2]).lower(), int(match[3])


def rate(text: str) -> float:
    """A number above 0."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not 0 < float(text) <= LARGEST:
        raise ValueError("is not a rate; give a number above 0, or leave it out for no limit")
    return float(text)


def truth(text: str) -> bool:
    """True or false in one of the YAML 1.1 spellings."""
    if text.lower() not in FLAGS:
        raise ValueError("is not a truth value; give true or false")
    return FLAGS[text.lower()]


def url_prefix(text: str) -> str:
    """A backend's URL path prefix."""
    if not re.fullmatch(rf"/(?:{SEGMENT}/)+", text):
        raise ValueError(
            "is not a prefix; it starts and ends with / and has plain segments between (no //, dot segment, %, ?, #"
            " or space), such as /files/"
        )
    if text.split("/")[1] in RESERVED:
        raise ValueError(f"is taken by the vault itself; use none of {', '.join(f'/{name}/' for name in RESERVED)}")
    return text


def web_url(text: str) -> str:
    """An http or https URL without credentials, query and fragment; its path is at least ``/``."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", text):
        raise ValueError("is not a URL; give one that starts with http:// or https://, such as https://host/path/")
    if "@" in parts.netloc:
        raise ValueError("has a user name or password in it; give them with the keys username and password")
    if "?" in text or "#" in text:
        raise ValueError("has a query or a fragment; give only what is before the ? or #")
    if unscoped(parts.hostname or ""):
        raise ValueError("has a link-local address without its interface; put that behind it, such as [fe80::1%eth0]")
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", "", ""))


def base_url(text: str) -> str:
    """A ``web_url`` that ends with a slash, so that a path can be put after it."""
    url = web_url(text)
    return url if url.endswith("/") else url + "/"


def proxy_url(text: str) -> str:
    """The URL of an HTTP proxy, with ``user:password@`` where it wants them."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and parts.hostname and parts.port != 0 and parts.path in ("", "/")
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", text) or "?" in text or "#" in text:
        raise ValueError("is not the URL of a proxy; only http:// is supported, such as http://proxy.example:3128")
    return text


def directory(text: str) -> Path:
    """An absolute path, ``~`` expanded, at which a directory is or, as far as can be seen, can be made."""
    if not text.strip():
        raise ValueError("is empty; give a path such as /var/cache/artifact-vault")
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError(UNKNOWN_HOME) from None
    try:
        first = next(above for above in (path, *path.parents) if above.exists())
        usable = first.is_dir()
    except OSError:
        return path  # it cannot be looked at, perhaps by another user than the vault's
    if not usable:
        where = "is a file" if first == path else "leads through a file"
        raise Telling(f"{where} ({first}), not a directory; give another path", f"{where}; give another path")
    return path


def certificate_file(text: str) -> Path:
    """A PEM file with at least one certificate, each of which can be used."""
    try:
        path = Path(text).expanduser()
        data = path.read_bytes() if path.is_file() or not path.exists() else b""
        if path.is_dir():
            raise ValueError("is a directory; give one PEM file, such as a bundle of those in it")
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); give a readable PEM file") from error
    except RuntimeError:
        raise ValueError(UNKNOWN_HOME) from None
    found = pem_certificates(data)
    if not found:
        kept = b"-----BEGIN TRUSTED CERTIFICATE-----" in data
        hint = "make a plain one of it with openssl x509 -in FILE -out NEW" if kept else "give a PEM file"
        raise ValueError(f"has no certificate in it; {hint}, with -----BEGIN CERTIFICATE-----")
    for number, piece in enumerate(found, 1):
        try:
            crypto.load_certificate(crypto.FILETYPE_PEM, piece)
        except (crypto.Error, ValueError) as error:
            raise ValueError(f"has a damaged certificate in it, number {number}; give whole ones") from error
    return path


def pem_certificates(data: bytes) -> list[bytes]:
    """The certificates in a PEM file, whatever else is in it."""
    return re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", data, re.DOTALL)


def line(text: str) -> str:
    """One line of text."""
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise ValueError("has a line break or control character in it; give one line of text")
    return text


def header_value(text: str) -> str:
    """A field value (RFC 9110 section 5.5)."""
    if not line(text).isascii():
        raise ValueError("has a character in it that a header field cannot carry; give plain ASCII text")
    return text


def user_name(text: str) -> str:
    """A user-id of basic authentication (RFC 7617 section 2)."""
    if ":" in line(text):
        raise ValueError("has a colon in it, which basic authentication does not allow; give the password separately")
    return text
