// Draws the page's charts with uPlot. A chart is a figure with the address of its data:
//   {"x": [..], "xLabel": "step", "unit": "%", "series": [{"label": "..", "values": [..], "low": [..], "high": [..]}],
//    "marks": [{"x": .., "label": ".."}]}
"use strict";

const COLOURS = ["#0f766e", "#b45309", "#4338ca", "#be185d", "#4d7c0f", "#0369a1", "#a21caf", "#b91c1c", "#525252"];
const DARK_COLOURS = ["#2dd4bf", "#fbbf24", "#a5b4fc", "#f9a8d4", "#a3e635", "#7dd3fc", "#e879f9", "#fca5a5", "#d4d4d4"];

const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const isDark = () =>
  document.documentElement.dataset.theme === "dark" ||
  (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);

const marksPlugin = (marks) => ({
  hooks: {
    drawClear: (plot) => {
      const { ctx } = plot;
      ctx.save();
      ctx.strokeStyle = colourOf("--live");
      ctx.fillStyle = colourOf("--muted");
      ctx.font = `${11 * devicePixelRatio}px system-ui`;
      ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
      let labelled = -Infinity;
      for (const mark of marks) {
        const x = Math.round(plot.valToPos(mark.x, "x", true));
        if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) continue;
        ctx.beginPath();
        ctx.moveTo(x, plot.bbox.top);
        ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
        ctx.stroke();
        if (x - labelled > 40 * devicePixelRatio) {
          const isNearEnd = x + ctx.measureText(mark.label).width > plot.bbox.left + plot.bbox.width;
          ctx.textAlign = isNearEnd ? "right" : "left";
          ctx.fillText(mark.label, x + (isNearEnd ? -3 : 3) * devicePixelRatio, plot.bbox.top + 11 * devicePixelRatio);
          labelled = x;
        }
      }
      ctx.restore();
    },
  },
});

const options = (data, width) => {
  const colours = isDark() ? DARK_COLOURS : COLOURS;
  const axis = { stroke: colourOf("--muted"), grid: { stroke: colourOf("--line"), width: 1 }, ticks: { stroke: colourOf("--line") } };
  const unit = data.unit ? ` ${data.unit}` : "";
  const digits = data.digits ?? 1;
  return {
    width,
    height: Math.max(180, Math.min(320, Math.round(width * 0.42))),
    scales: { x: { time: false }, ...(data.range ? { y: { range: data.range } } : {}) },
    axes: [
      { ...axis, label: data.xLabel, labelSize: 20, size: 36 },
      { ...axis, size: 56, values: (_plot, ticks) => ticks.map((tick) => `${tick}${unit}`) },
    ],
    series: [
      { label: data.xLabel, value: (_plot, v) => (v == null ? "–" : v.toLocaleString()) },
      ...data.series.map((series, place) => ({
        label: series.label,
        stroke: colours[place % colours.length],
        dash: place >= colours.length ? [6, 4] : undefined,
        width: 2,
        spanGaps: true,
        points: { show: data.x.length < 60, size: 5 },
        show: series.shown !== false,
        value: (_plot, v) => (v == null ? "–" : `${v.toFixed(digits)}${unit}`),
      })),
    ],
    plugins: data.marks?.length ? [marksPlugin(data.marks)] : [],
    cursor: { focus: { prox: 24 } },
  };
};

const drawn = new WeakMap();

const draw = async (figure, force) => {
  const wanted = `${figure.dataset.source} ${figure.dataset.version}`;
  const known = drawn.get(figure);
  if (known?.wanted === wanted && !force) return;
  let data = known?.wanted === wanted ? known.data : null;
  if (!data) {
    drawn.set(figure, { ...known, wanted });
    const embedded = figure.dataset.source.startsWith("#") && document.querySelector(figure.dataset.source);
    try {
      data = embedded ? JSON.parse(embedded.textContent) : await (await fetch(figure.dataset.source)).json();
    } catch {
      drawn.delete(figure); // the next change tries again
      return;
    }
  }
  const room = figure.querySelector(".plot");
  const hidden = known?.plot ? known.plot.series.slice(1).map((series) => !series.show) : [];
  known?.plot?.destroy();
  room.replaceChildren();
  room.classList.toggle("is-empty", !data.x?.length);
  if (!data.x?.length) {
    room.textContent = data.empty || "Nothing has been measured yet.";
    drawn.set(figure, { wanted, data });
    return;
  }
  data.series.forEach((series, place) => hidden[place] !== undefined && (series.shown = !hidden[place]));
  const plot = new uPlot(options(data, room.clientWidth || 600), [data.x, ...data.series.map((s) => s.values)], room);
  drawn.set(figure, { wanted, data, plot });
};

const drawAll = (force) => document.querySelectorAll("figure.chart").forEach((figure) => draw(figure, force));

document.addEventListener("redraw", (event) => drawAll(event.detail === "colours"));
let resizing;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => drawAll(true), 150);
});
drawAll(false);
