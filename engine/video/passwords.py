"""Sources as they may be shown: without passwords, whatever they hold."""

import re

_LIKE_A_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/+")  # one slash is a slip of the pen
_PATH_END = re.compile(r"[?#]")


def without_password(source: str) -> str:
    """A source as it may be shown in a message or log.

    Of an address, user, password, query and whatever else may be a password are hidden. Where it
    is not clear what belongs to the password, more is hidden.
    """
    match = _LIKE_A_SCHEME.match(source)
    scheme = match[0] if match else ""
    rest, hidden = source[len(scheme) :], ""
    login, at, behind = rest.rpartition("@")
    if at and (":" in login or (scheme and "/" not in login)):
        rest, hidden = behind, "***@"
    if not scheme:
        return hidden + rest
    query = _PATH_END.search(rest)
    if query:
        rest = rest[: query.start()] + "?***"
    # Some recorders take user and password as a part of the path: /user=admin&password=secret
    host, *path = rest.split("/")
    shown = "/".join([host, *("***" if "=" in part else part for part in path)])
    return scheme + hidden + shown


def has_password(source: str) -> bool:
    """May a source hold a password, or something else that is nobody's business?"""
    return without_password(source) != source
