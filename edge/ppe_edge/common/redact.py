"""Removes credentials from addresses and texts."""

import re
from urllib.parse import unquote, urlsplit

HIDDEN = "***"


def redact_url(address: str) -> str:
    """Removes user, password and query from an address, so that it can be shown.

    Also removes a path such as /user=admin&password=1, which some cameras use. Anything that does not have the form
    scheme://host/path, such as a file or a device, is returned unchanged.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    user, at, location = rest.rpartition("@")
    if re.search("[/?#]", user):  # ambiguous: a password with one of these, or a query with an @
        return f"{scheme}://{HIDDEN}"
    try:
        parts = urlsplit(f"//{location}")
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:  # an invalid port, or unbalanced brackets
        return f"{scheme}://{HIDDEN}"
    if ":" in host:  # IPv6
        host = f"[{host}]"
    path = f"/{HIDDEN}" if "=" in parts.path else parts.path
    return f"{scheme}://{HIDDEN + at if at else ''}{host}{port}{path}{'?' + HIDDEN if parts.query else ''}"


def redact_text(text: str, address: str) -> str:
    """Returns a text in one line, without the address and without any part of it that `redact_url` hides."""
    text = text.replace(address, redact_url(address))
    # a name as short as `a` would match inside many words, and reveals nothing
    for secret in sorted((s for s in _secrets(address) if len(s) > 2), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return " ".join(text.split())


def _secrets(address: str) -> set[str]:
    """Returns what `redact_url` hides: whole and in parts, encoded and decoded."""
    if "://" not in address:
        return set()
    rest = address.partition("://")[2]
    user = rest.rpartition("@")[0]
    path, _, query = rest.partition("?")
    settings = [part for part in (path.partition("/")[2], query) if "=" in part]
    values = [value.partition("=")[2] for part in settings for value in re.split("[&;/]", part)]
    found = {user, *user.split(":", 1), query, *settings, *values}
    return found | {unquote(secret) for secret in found}
