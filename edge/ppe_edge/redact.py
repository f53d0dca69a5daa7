"""Addresses without what only their owner may know."""

import re
from urllib.parse import unquote, urlsplit

HIDDEN = "***"


def redact_url(address: str) -> str:
    """An address as it may be shown: without user, password and query.

    Nor with a path like /user=admin&password=1, as some cameras want it.
    What is not of the shape scheme://host/path (a file, a device) is shown as it is.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    user, at, place = rest.rpartition("@")
    if re.search("[/?#]", user):  # either a password holds one of these, or a query an @: who can tell
        return f"{scheme}://{HIDDEN}"
    try:
        parts = urlsplit(f"//{place}")
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:  # a port that is none, brackets that do not close
        return f"{scheme}://{HIDDEN}"
    if ":" in host:  # IPv6
        host = f"[{host}]"
    path = f"/{HIDDEN}" if "=" in parts.path else parts.path
    return f"{scheme}://{HIDDEN + at if at else ''}{host}{port}{path}{'?' + HIDDEN if parts.query else ''}"


def redact_text(text: str, address: str) -> str:
    """A message in one line without the address in it, or any part of it that `redact_url` hides."""
    text = text.replace(address, redact_url(address))
    # a name as short as `a` would tear every word apart, and gives nothing away
    for secret in sorted((s for s in _secrets(address) if len(s) > 2), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return " ".join(text.split())


def _secrets(address: str) -> set[str]:
    """What `redact_url` hides, whole and in pieces, as it is written and as it is meant."""
    if "://" not in address:
        return set()
    rest = address.partition("://")[2]
    user = rest.rpartition("@")[0]
    path, _, query = rest.partition("?")
    settings = [part for part in (path.partition("/")[2], query) if "=" in part]
    values = [value.partition("=")[2] for part in settings for value in re.split("[&;/]", part)]
    found = {user, *user.split(":", 1), query, *settings, *values}
    return found | {unquote(secret) for secret in found}
