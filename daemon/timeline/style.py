"""Style sheet, script and content policy of the timeline page, made from two package files.

The style sheet decides by the width of a bar, or of the axis, which labels are shown. So the same
page fits a phone, a wall, paper and any zoom. The script only adds a read-out and the zoom.
"""

import base64
import hashlib
from importlib.resources import files

from daemon.timeline.marks import N_HUES

# Widths, in pixels, that a bar's label may need; it is shown where so many are free.
LABEL_WIDTHS_PX = tuple(range(60, 261, 20))

_HUES = "\n".join(
    f".{name} {{ --hue: var(--{name}); }}"
    for name in (*(f"hue{i}" for i in range(N_HUES)), "neutral")
)

_LABELS = "\n".join(
    f"@container bar (min-width: {px}px) {{ .needs{px} > .inside {{ display: block; }} }}\n"
    f"@container bar (max-width: {px - 0.01}px) {{ @container room (min-width: {px}px) {{"
    f" .needs{px} .beside {{ display: block; }} }} }}"
    for px in LABEL_WIDTHS_PX
)


def _read(name: str) -> str:
    return files("daemon.timeline").joinpath(name).read_text(encoding="utf-8")


_SHEET = _read("timeline.css").replace("/* hues */", _HUES).replace("/* labels */", _LABELS)
STYLE = f"\n{_SHEET}"

# The page is XML too, in which a bare < or & in the script would be markup.
SCRIPT = f"//<![CDATA[\n{_read('timeline.js')}//]]>"

_SCRIPT_DIGEST = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")

# If a hostile name ever slipped through the escaping, it could neither run nor send anything.
CONTENT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{_SCRIPT_DIGEST}'; base-uri 'none'; form-action 'none'"
)
