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
    const [line, contrast] = [".line", "path.contrast"].map((mark) => {
      const path = lane.querySelector(mark);
      return path && [...path.getAttribute("d").matchAll(/(\d+) (\d+)/g)]
        .map((found) => [found[1] / 1e5, top * (1 - found[2] / 1000)]);
    });
    return line ? [{ now: lane.querySelector(".now"), line, contrast }] : [];
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
    const value = (points) => nearest(points, at)[1].toFixed(2);
    for (const { now, line, contrast } of curves) {
      now.textContent = at === null ? ""
        : value(line) + (contrast ? `, stands out by ${value(contrast)}` : "");
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
