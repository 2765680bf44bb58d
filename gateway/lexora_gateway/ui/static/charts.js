// Lines over the last five minutes.

import { element } from "./dom.js";

const COLOURS = ["--one", "--two", "--three"];
const NAMES = ["one", "two", "three"];
const HEIGHT = 140;
const probe = document.body.appendChild(element("span", { hidden: true }));

// A canvas needs colours resolved, light or dark.
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

// Hours and minutes; seconds where two labels would say the same.
const clock = (at, step) => new Date(at * 1000).toTimeString().slice(0, step < 60 ? 8 : 5);

// A line needs two values; a single one is a point.
const alone = (plot, series) => plot.data[series].filter((value) => value !== null).length === 1;

export class Chart {
  // `series` are names; `text` makes a value readable.
  constructor(title, series, text) {
    this.series = series;
    this.text = text;
    this.legends = series.map((name, at) => element("span", { class: `legend ${NAMES[at]}` }, name));
    this.plot = element("div", { role: "img" });
    this.element = element("div", { class: "chart" }, element("h3", {}, title, ...this.legends), this.plot);
    this.title = title;
    this.drawn = null;
    this.data = [[], ...series.map(() => [])];
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  // `times` in seconds since 1970; `values` one list per series, null where nothing was measured.
  show(times, values) {
    this.data = [times, ...values];
    const last = values.map((list) => list.findLast((value) => value !== null) ?? null);
    this.legends.forEach((legend, at) => {
      legend.textContent = `${this.series[at]} ${last[at] === null ? "–" : this.text(last[at])}`;
    });
    this.plot.setAttribute("aria-label", `${this.title}: ${this.legends.map((legend) => legend.textContent).join(", ")}`);
    if (this.drawn) this.drawn.setData(this.data);
    else this.draw();
  }

  // Colours are read once: another theme draws anew.
  draw() {
    this.drawn?.destroy();
    this.drawn = null;
    const width = this.plot.clientWidth;
    if (width === 0) return; // not on screen yet
    const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const text = this.text;
    this.drawn = new uPlot({
      width, height: HEIGHT,
      padding: [null, 30, null, null], // half of the last label
      cursor: { show: false }, legend: { show: false }, select: { show: false },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.15 : 1] } },
      axes: [
        { ...axis, size: 28, space: 60, values: (_, splits, __, ___, step) => splits.map((at) => clock(at, step)) },
        { ...axis, size: 62, space: 36, values: (_, splits) => splits.map((value) => text(value)) },
      ],
      series: [{}, ...this.series.map((_, at) => ({
        stroke: colour(COLOURS[at]), width: 1.75, spanGaps: true, points: { show: alone },
        fill: at === 0 && this.series.length < 3 ? colour("--one-back") : undefined,
      }))],
    }, this.data, this.plot);
  }

  resize() {
    const width = this.plot.clientWidth;
    if (width === 0) return;
    if (this.drawn) this.drawn.setSize({ width, height: HEIGHT });
    else if (this.data[0].length) this.draw();
  }
}
