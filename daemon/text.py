"""Text from outside → text that is short enough to be shown, in whatever it is quoted."""

import json

MOST_CHARS = 1000  # of a reason that is kept or shown


def cut(text: str, most: int = MOST_CHARS) -> str:
    """The text, or its beginning and how much of it was cut; at most ``most`` characters."""
    if len(text) <= most:
        return text
    note = f"... ({len(text)} characters, cut)"
    return text[: max(most - len(note), 0)] + note


def cut_as_json(text: str, most: int, *, keep_end: bool = False) -> str:
    """The text, or a part of it and how much of it was cut.

    Args:
        text: Any text. A character of it takes up to twelve in JSON.
        most: Characters that the part may take in JSON; the note comes on top.
        keep_end: Keep the end of the text, and not its beginning.
    """
    kept = text[-most:] if keep_end else text[:most]
    while (size := len(json.dumps(kept))) > most + 2:  # the quotes
        n_kept = len(kept) * most // size
        kept = kept[len(kept) - n_kept :] if keep_end else kept[:n_kept]
    n_cut = len(text) - len(kept)
    if not n_cut:
        return text
    note = f"({n_cut} characters cut)"
    return f"{note} ...{kept}" if keep_end else f"{kept}... {note}"
