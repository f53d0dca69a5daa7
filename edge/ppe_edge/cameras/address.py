"""Credentials in the address of a camera, as people type them: with characters that have a meaning in an address."""

import re
from urllib.parse import quote

_DELIMITER = re.compile("[/?#]")
_SAFE = "%!$&'()*+,;=~"


def encode_credentials(address: str) -> str:
    """Percent-encodes user and password, so that every library reads them alike.

    `rtsp://admin:12/3#4@192.0.2.7/a` becomes `rtsp://admin:12%2F3%234@192.0.2.7/a`. Escapes such as `%23` stay; a `%` that
    begins none becomes `%25`. An @ behind a plausible host, as in `http://host.local/a?mail=b@c`, belongs to the path.

    Args:
        address: An address, or a path, which is returned unchanged.
    """
    scheme, separator, rest = address.partition("://")
    end = _credentials_end(rest) if separator else -1
    if end < 0:
        return address
    user, colon, password = rest[:end].partition(":")
    return f"{scheme}://{_encode(user)}{colon}{_encode(password)}{rest[end:]}"


def _encode(text: str) -> str:
    return quote(re.sub("%(?![0-9a-fA-F]{2})", "%25", text), safe=_SAFE)


def _credentials_end(rest: str) -> int:
    """Returns the index of the @ that ends user and password; -1 if there are none."""
    last = rest.rfind("@")
    delimiter = _DELIMITER.search(rest)
    if delimiter is None or last < delimiter.start():
        return last
    # a / or ? or # before the last @: either it is part of the password, or the @ is part of the path
    head = rest[: delimiter.start()]
    in_head = head.rfind("@")
    host, colon, port = head[in_head + 1 :].partition(":")
    if in_head < 0 and (":" not in head or head.startswith("[")):
        return -1
    if delimiter.group() == "#":  # a host is not followed by a fragment
        return last
    if colon and not host.startswith("[") and not port.isdigit():  # not a port, so it is the beginning of a password
        return last
    behind = _DELIMITER.split(rest[last + 1 :])[0].rpartition(":")
    return last if not _is_full_host(host) and _is_full_host(behind[0] or behind[2]) else in_head


def _is_full_host(host: str) -> bool:
    """Whether a text can hardly be anything but a host: an IP address, a name with a dot, or localhost."""
    return host == "localhost" or host.startswith("[") or bool(re.fullmatch(r"[\w-]+(\.[\w-]+)+", host))
