"""Style sheet, script and content policy of the timeline page.

The style sheet decides by the width of a bar or of the axis which labels are shown, so the same
page fits a phone, a wall, paper and any zoom. The script only adds a read-out and the zoom.
"""

import base64
import hashlib

# A bar's label is shown inside or beside it where this many pixels are free.
LABEL_WIDTHS_PX = tuple(range(60, 261, 20))

_LIGHT = """
  --paper: #ffffff; --ink: #1b1f24; --soft: #5b6570; --faint: #e4e7eb; --card: #f6f7f9;
  --hue0: #0067a5; --hue1: #b94a00; --hue2: #00795a; --hue3: #a23d77; --hue4: #806000;
  --hue5: #5552a8; --on-bar: #ffffff; --neutral: #6b7580;"""

_DARK = """
  --paper: #14171a; --ink: #e8ebee; --soft: #9aa5b1; --faint: #2b3138; --card: #1c2126;
  --hue0: #5cb3f0; --hue1: #ff9055; --hue2: #3ec99c; --hue3: #ea92c4; --hue4: #dfb53f;
  --hue5: #aba9f5; --on-bar: #101214; --neutral: #8a95a1;"""

_HUES = "\n".join(
    f".{name} {{ --hue: var(--{name}); }}" for name in (*(f"hue{i}" for i in range(6)), "neutral")
)

_LABELS = "\n".join(
    f"@container bar (min-width: {px}px) {{ .needs{px} > .inside {{ display: block; }} }}\n"
    f"@container bar (max-width: {px - 0.01}px) {{ @container room (min-width: {px}px) {{"
    f" .needs{px} .beside {{ display: block; }} }} }}"
    for px in LABEL_WIDTHS_PX
)

STYLE = f"""
:root {{ color-scheme: light dark;{_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{{_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums; }}
main {{ max-width: 1500px; margin: 0 auto; padding: 28px clamp(16px, 4vw, 48px) 48px; }}
h1 {{ font-size: 24px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 17px; margin: 36px 0 8px; }}
.subtitle {{ margin: 2px 0 0; color: var(--soft); overflow-wrap: anywhere; }}
.facts {{ margin: 6px 0 0; padding: 0; list-style: none; color: var(--soft); font-size: 13px; }}
.facts li {{ display: inline; }}
.facts li + li::before {{ content: " · "; }}
.verdict {{ margin: 14px 0 20px; font-size: 16px; max-width: 75ch; overflow-wrap: anywhere; }}

{_HUES}
.tools {{ display: flex; gap: 8px; justify-content: flex-end; margin-bottom: 6px;
  font-size: 13px; color: var(--soft); }}
.tools[hidden] {{ display: none; }}
#moment {{ margin-right: auto; align-self: center; }}
button {{ font: inherit; color: inherit; background: var(--card); border: 1px solid var(--faint);
  border-radius: 6px; padding: 1px 10px; cursor: pointer; }}
button:disabled {{ opacity: .4; cursor: default; }}
.scroller {{ overflow-x: auto; overflow-y: hidden; }}
.scroller:focus-visible {{ outline: 2px solid var(--hue0); outline-offset: 4px; }}
.chart {{ width: 100%; container: chart / inline-size; }}
.film {{ display: flex; gap: 2px; margin: 0 0 2px; padding: 0; list-style: none; }}
.film li {{ flex: 1 1 0; min-width: 0; text-align: center; }}
.film img {{ display: inline-block; vertical-align: bottom; max-width: 100%; max-height: 120px;
  border-radius: 3px; }}
@container chart (max-width: 640px) {{
  .film.threes li:not(:nth-child(3n + 2)) {{ display: none; }}
}}

.plot {{ position: relative; padding-top: 24px; }}
.grid, .tick, .gap, .cursor {{ position: absolute; top: 0; bottom: 0; }}
.grid {{ left: 0; right: 0; }}
.tick {{ border-left: 1px solid var(--faint); top: 20px; display: none; }}
.tick b {{ position: absolute; top: -20px; transform: translateX(-50%); white-space: nowrap;
  font: 12px/20px system-ui, sans-serif; color: var(--soft); }}
.tick.first b {{ transform: none; }}
.tick.last b {{ transform: translateX(-100%); }}
.level0 {{ display: block; }}
@container chart (min-width: 640px) {{ .level1 {{ display: block; }} }}
@container chart (min-width: 2400px) {{ .level2 {{ display: block; }} }}
@container chart (min-width: 7200px) {{ .level3 {{ display: block; }} }}
.gap {{ top: 20px; min-width: 2px;
  background: repeating-linear-gradient(45deg, var(--faint) 0 3px, transparent 3px 7px); }}
.cursor {{ border-left: 1px solid var(--ink); pointer-events: none; top: 20px; }}
.cursor[hidden] {{ display: none; }}

.lane {{ position: relative; padding: 6px 0 8px; border-top: 1px solid var(--faint); }}
.name {{ position: sticky; left: 0; width: max-content; max-width: min(100%, 100vw - 40px);
  font-size: 13px; line-height: 20px; display: flex; gap: 10px; }}
.name b {{ color: var(--hue); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
.peak {{ color: var(--soft); white-space: nowrap; }}
.now {{ white-space: nowrap; font-weight: 600; }}
.curve {{ position: relative; height: 44px; }}
.tall .curve {{ height: 76px; }}
.curve svg {{ position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }}
.area {{ fill: var(--hue); opacity: .16; }}
.line {{ fill: none; stroke: var(--hue); stroke-width: 1.6; stroke-linejoin: round;
  stroke-linecap: round; vector-effect: non-scaling-stroke; }}
.line.dense {{ stroke-width: 1; }}
path.threshold {{ fill: none; stroke: var(--soft); stroke-dasharray: 2 4;
  vector-effect: non-scaling-stroke; }}
.top {{ position: absolute; right: 0; font-size: 11px; line-height: 14px;
  color: var(--soft); text-shadow: 0 0 3px var(--paper), 0 0 3px var(--paper); }}
.top {{ top: -7px; }}
.top::before {{ content: ""; display: inline-block; width: 6px; margin-right: 4px;
  border-top: 1px solid var(--soft); vertical-align: 4px; }}

.bars {{ position: relative; height: 30px; margin-top: 3px; font-size: 12px; line-height: 22px; }}
.bar {{ position: absolute; top: 0; height: 22px; color: var(--on-bar); text-decoration: none;
  container: bar / inline-size; }}
.fill {{ display: block; position: absolute; inset: 0; min-width: 3px; border-radius: 3px;
  background: var(--hue); }}
.open .fill, .fill.open {{ background: linear-gradient(90deg, var(--hue) 60%, transparent);
  border: 1px solid var(--hue); border-right: 0; }}
.bar.retracted {{ color: var(--ink); }}
.retracted .fill, .fill.retracted {{ border: 1px solid var(--hue);
  background: repeating-linear-gradient(45deg, var(--hue) 0 1.5px, transparent 1.5px 7px); }}
.bar:hover .fill, .bar:focus-visible .fill {{ outline: 2px solid var(--ink);
  outline-offset: 1px; }}
.bar:focus-visible {{ outline: none; }}
.inside, .beside {{ display: none; white-space: nowrap; padding: 0 7px; }}
.inside {{ position: relative; width: max-content; }}
.retracted .inside {{ background: var(--paper); margin: 0 6px; padding: 0 4px; line-height: 14px;
  top: 4px; }}
.room {{ position: absolute; top: 0; color: var(--ink); container: room / inline-size; }}
.room.right {{ left: 100%; text-align: left; }}
.room.left {{ right: 100%; text-align: right; }}
{_LABELS}
.wait {{ position: absolute; top: 21px; height: 5px; border-bottom: 1.5px solid var(--hue);
  border-right: 1.5px solid var(--hue); }}
.reported {{ position: absolute; top: 23px; width: 0; height: 0; margin-left: -4px;
  border: 4px solid transparent; border-top: 0; border-bottom: 6px solid var(--hue); }}
.truths {{ position: relative; height: 12px; }}
.truth {{ position: absolute; top: 2px; height: 7px; min-width: 3px; border-radius: 2px;
  border: 1.5px solid var(--ink); }}
.truth.missed {{ background: repeating-linear-gradient(90deg, var(--ink) 0 2px,
  transparent 2px 4px); }}
.false .fill, .fill.false {{ outline: 2px dashed var(--ink); outline-offset: 1px; }}

.key {{ display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 10px 0 0; padding: 8px 0 0;
  border-top: 1px solid var(--faint); list-style: none; font-size: 12px; color: var(--soft); }}
.key li {{ display: flex; align-items: center; gap: 7px; }}
.key i {{ position: static; display: block; width: 24px; height: 12px; margin: 0; }}
.key i.threshold {{ height: 0; border-top: 1.5px dotted var(--soft); }}
.key i.reported {{ width: 0; height: 0; }}
.key i.wait {{ height: 6px; }}
.key i.truth {{ height: 8px; }}

table {{ border-collapse: collapse; width: 100%; font-size: 14px; }}
th {{ text-align: left; white-space: nowrap; font-weight: 600; font-size: 12px; color: var(--soft);
  border-bottom: 1px solid var(--soft); padding: 4px 14px 4px 0; }}
td {{ vertical-align: top; padding: 7px 14px 1px 0; }}
td bdi {{ font-weight: 600; overflow-wrap: anywhere; }}
td small {{ display: block; white-space: nowrap; color: var(--soft); font-size: 12px; }}
tr.retracted td {{ color: var(--soft); }}
.history td {{ border-bottom: 1px solid var(--faint); padding: 0 0 6px; }}
tr:target td {{ background: var(--card); }}
details {{ font-size: 13px; color: var(--soft); }}
summary {{ cursor: pointer; width: max-content; }}
details ol {{ margin: 4px 0; padding-left: 24px; }}
details b {{ font-weight: 600; }}
.more {{ list-style: none; font-style: italic; }}
.id {{ margin: 2px 0 6px; overflow-wrap: anywhere; }}
@media (max-width: 720px) {{
  thead {{ position: absolute; width: 1px; overflow: hidden; clip-path: inset(50%); }}
  table, tbody, tr, td {{ display: block; }}
  td[data-column] {{ display: flex; padding: 1px 0; }}
  td[data-column]::before {{ content: attr(data-column); color: var(--soft); font-size: 12px;
    flex: 0 0 108px; line-height: 21px; }}
  td[data-column="Action"]::before {{ content: none; }}
  td[data-column="Action"] {{ padding-top: 10px; font-size: 15px; }}
}}
@media print {{
  :root {{{_LIGHT} }}
  main {{ max-width: none; padding: 0; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  .tools, .cursor {{ display: none; }}
  .chart {{ width: 100% !important; }}
  .lane, tr {{ break-inside: avoid; }}
  ::details-content {{ content-visibility: visible; display: block; }}
}}
"""

SCRIPT = """//<![CDATA[
(() => {
  "use strict";
  const chart = document.querySelector(".chart");
  if (!chart) return;
  const scroller = document.querySelector(".scroller");
  const cursor = document.querySelector(".cursor");
  const moment = document.getElementById("moment");
  const zoomIn = document.getElementById("zoom-in");
  const zoomOut = document.getElementById("zoom-out");
  const endUs = Number(chart.dataset.endUs);
  const top = Number(chart.dataset.top);
  const maxZoom = Math.min(64, Math.max(1, endUs / 2e6));
  let zoom = 1;
  let share = null;

  const curves = [...document.querySelectorAll(".lane")].flatMap((lane) => {
    const line = lane.querySelector(".line");
    if (!line) return [];
    const points = [...line.getAttribute("d").matchAll(/(\\d+) (\\d+)/g)]
      .map((found) => [found[1] / 1e5, top * (1 - found[2] / 1000)]);
    return [{ now: lane.querySelector(".now"), points }];
  });

  const clock = (us) => {
    const tenths = Math.round(us / 1e5);
    const minutes = Math.floor(tenths / 600);
    const seconds = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
    if (minutes < 60) return `${minutes}:${seconds}`;
    return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${seconds}`;
  };

  const nearest = (points, at) => {
    let low = 0;
    let high = points.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < at) low = middle + 1; else high = middle;
    }
    const before = points[Math.max(low - 1, 0)];
    return at - before[0] < points[low][0] - at ? before : points[low];
  };

  const show = (at) => {
    share = at;
    cursor.hidden = at === null;
    moment.textContent = at === null ? "" : clock(at * endUs);
    for (const { now, points } of curves) {
      now.textContent = at === null ? "" : nearest(points, at)[1].toFixed(2);
    }
    if (at !== null) cursor.style.left = `${100 * at}%`;
  };

  const magnify = (factor) => {
    const box = scroller.getBoundingClientRect();
    const held = share ?? (scroller.scrollLeft + box.width / 2) / chart.offsetWidth;
    const offset = held * chart.offsetWidth - scroller.scrollLeft;
    zoom = Math.min(Math.max(zoom * factor, 1), maxZoom);
    chart.style.width = `${100 * zoom}%`;
    scroller.scrollLeft = held * chart.offsetWidth - offset;
    zoomIn.disabled = zoom >= maxZoom;
    zoomOut.disabled = zoom <= 1;
  };

  const keys = {
    ArrowLeft: () => show(Math.max((share ?? 0.5) - 0.005 / zoom, 0)),
    ArrowRight: () => show(Math.min((share ?? 0.5) + 0.005 / zoom, 1)),
    "+": () => magnify(2),
    "-": () => magnify(0.5),
    Escape: () => show(null),
  };

  scroller.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    show(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
  });
  scroller.addEventListener("pointerleave", () => show(null));
  scroller.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  zoomIn.addEventListener("click", () => magnify(2));
  zoomOut.addEventListener("click", () => magnify(0.5));
  document.querySelector(".tools").hidden = false;
  magnify(1);
})();
//]]>"""

_SCRIPT_DIGEST = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")

# Should a hostile label ever slip through the escaping, it can neither run nor send anything.
CONTENT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{_SCRIPT_DIGEST}'; base-uri 'none'; form-action 'none'"
)
