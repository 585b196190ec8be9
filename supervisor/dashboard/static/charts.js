// Plots, as SVG drawn to the pixel width that there is: text is never scaled.

import { h, hour, number, s, span, tip, when, words } from "./lib.js";

export const KINDS = ["connection", "proxy", "flood_wait", "rate_limit", "auth", "temporary", "permanent", "unknown"];
const HEIGHT = 190;
const PAD = { left: 44, right: 10, top: 10, bottom: 22 };
const DAY = 86400;

// What is drawn into an element, drawn anew when its width changes.
const drawings = new Map();
const watch = new ResizeObserver((entries) => {
  for (const entry of entries) {
    const found = drawings.get(entry.target);
    const width = Math.round(entry.contentRect.width);
    if (found && width && found.width !== width) {
      found.width = width;
      entry.target.replaceChildren(found.draw(width));
    }
  }
});

function drawn(element, draw) {
  const width = Math.round(element.clientWidth);
  if (!drawings.has(element)) watch.observe(element);
  drawings.set(element, { draw, width });
  if (width) element.replaceChildren(draw(width));
}

const empty = (text) => h("p", { class: "soft none" }, text);

// --- Axes -------------------------------------------------------------------------------------------------

function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 2.5, 5, 10].find((one) => one * power >= value);
  return step * power;
}

function axis(width, since, until, ticks, place) {
  const right = width - PAD.right;
  const bottom = HEIGHT - PAD.bottom;
  const many = Math.max(2, Math.min(7, Math.floor(width / 110)));
  const days = until - since > 2.5 * DAY;
  const lines = ticks.map(([value, text]) => [
    s("line", { class: "grid", x1: PAD.left, x2: right, y1: place(value), y2: place(value) }),
    s("text", { x: PAD.left - 6, y: place(value) + 4, "text-anchor": "end" }, text),
  ]);
  const times = Array.from({ length: many }, (_, n) => {
    const at = since + ((until - since) * n) / (many - 1);
    const x = PAD.left + ((right - PAD.left) * n) / (many - 1);
    const anchor = n === 0 ? "start" : n === many - 1 ? "end" : "middle";
    return s("text", { x, y: HEIGHT - 5, "text-anchor": anchor }, hour(at, days));
  });
  const base = s("line", { class: "axis", x1: PAD.left, x2: right, y1: bottom, y2: bottom });
  return [lines.flat(), times, base].flat();
}

function canvas(width, label, ...children) {
  const size = { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` };
  return s("svg", { ...size, role: "img", "aria-label": label }, ...children);
}

// --- Failures by kind over time ---------------------------------------------------------------------------

export function failures(element, found) {
  const since = Date.parse(found.since) / 1000;
  const until = Date.parse(found.until) / 1000;
  if (!Object.keys(found.by_kind).length) {
    drawn(element, () => empty("No failure in this time."));
    return;
  }
  drawn(element, (width) => {
    const room = width - PAD.left - PAD.right;
    const least = (until - since) / Math.max(12, Math.min(96, room / 7));
    const step = found.step_s * Math.max(1, Math.ceil(least / found.step_s));
    const first = Math.floor(since / step) * step;
    const bars = Math.max(1, Math.ceil((until - first) / step));
    const stacks = new Map();
    for (const [kind, counts] of Object.entries(found.by_kind)) {
      for (const [start, many] of counts) {
        const place = Math.floor((start - first) / step);
        if (place < 0 || place >= bars) continue;
        const stack = stacks.get(place) ?? {};
        stack[kind] = (stack[kind] ?? 0) + many;
        stacks.set(place, stack);
      }
    }
    const sum = (stack) => Object.values(stack).reduce((one, other) => one + other, 0);
    const top = ceiling(Math.max(4, ...[...stacks.values()].map(sum)));
    const bottom = HEIGHT - PAD.bottom;
    const y = (value) => bottom - ((bottom - PAD.top) * value) / top;
    const wide = room / bars;
    const drawing = [...stacks].map(([place, stack]) => {
      let below = 0;
      const parts = KINDS.filter((kind) => stack[kind]).map((kind) => {
        const height = y(below) - y(below + stack[kind]);
        below += stack[kind];
        return s("rect", { class: `k-${kind}`, x: PAD.left + place * wide, y: y(below), width: Math.max(1, wide - 1), height });
      });
      const told = (event) => {
        const lines = KINDS.filter((kind) => stack[kind]).map((kind) => keyed(kind, `${words(kind)}: ${number(stack[kind])}`));
        tip(event, `${when(first + place * step)}, ${span(step)}`, ...lines);
      };
      const whole = { class: "touch", x: PAD.left + place * wide, y: PAD.top, width: wide, height: bottom - PAD.top };
      return s("g", {}, parts, s("rect", { ...whole, onpointermove: told, onpointerleave: (event) => tip(event) }));
    });
    const ticks = [0, top / 2, top].filter(Number.isInteger).map((value) => [value, number(value)]);
    return canvas(width, "failures over time, by kind", axis(width, since, until, ticks, y), drawing);
  });
}

export const keyed = (kind, text) => h("span", { class: "keyed" }, h("i", { class: `key k-${kind}` }), text);

// --- Time to recover --------------------------------------------------------------------------------------

const TIMES = [0.1, 1, 10, 60, 600, 3600, 21600, DAY];

export function recover(element, found) {
  const since = Date.parse(found.since) / 1000;
  const until = Date.parse(found.until) / 1000;
  const points = found.time_to_recover.filter((one) => one.p99_s !== null);
  if (!points.length) {
    drawn(element, () => empty("Nothing was recovered in this time."));
    return;
  }
  drawn(element, (width) => {
    const lengths = points.flatMap((one) => [one.p50_s, one.p99_s]);
    const low = TIMES.findLast((time) => time <= Math.min(...lengths)) ?? TIMES[0];
    const high = TIMES.find((time) => time >= Math.max(...lengths) && time > low) ?? TIMES.at(-1);
    const bottom = HEIGHT - PAD.bottom;
    const part = (value) => Math.log(Math.max(value, low) / low) / Math.log(high / low);
    const y = (value) => bottom - (bottom - PAD.top) * Math.min(1, part(value));
    const room = width - PAD.left - PAD.right;
    const x = (one) => PAD.left + (room * Math.max(0, one.start + found.step_s / 2 - since)) / (until - since);
    const line = (key) => {
      const broken = points.map((one, n) => {
        const apart = n === 0 || one.start - points[n - 1].start > 6 * found.step_s;
        return `${apart ? "M" : "L"}${Math.min(width - PAD.right, x(one)).toFixed(1)} ${y(one[key]).toFixed(1)}`;
      });
      return s("path", { class: `curve ${key.slice(0, 3)}`, d: broken.join("") });
    };
    const dots = points.length > 90 ? [] : ["p50_s", "p99_s"].flatMap((key) =>
      points.map((one) => s("circle", { class: `dot ${key.slice(0, 3)}`, cx: Math.min(width - PAD.right, x(one)), cy: y(one[key]), r: 2 })),
    );
    const near = (event) => {
      const left = event.currentTarget.ownerSVGElement.getBoundingClientRect().left;
      const at = since + ((event.clientX - left - PAD.left) / room) * (until - since) - found.step_s / 2;
      const one = points.reduce((best, other) => (Math.abs(other.start - at) < Math.abs(best.start - at) ? other : best));
      tip(event, when(one.start), `half within ${span(one.p50_s)}`, `99 of 100 within ${span(one.p99_s)}`, `${number(one.count)} recovered`);
    };
    const ticks = TIMES.filter((time) => time >= low && time <= high).map((time) => [time, span(time)]);
    const touch = { class: "touch", x: PAD.left, y: PAD.top, width: room, height: bottom - PAD.top };
    return canvas(
      width,
      "time to recover, p50 and p99",
      axis(width, since, until, ticks, y),
      line("p99_s"),
      line("p50_s"),
      dots,
      s("rect", { ...touch, onpointermove: near, onpointerleave: (event) => tip(event) }),
    );
  });
}

// --- Who was away when ------------------------------------------------------------------------------------

export function lane(element, marks, since, until, opened) {
  drawn(element, (width) => {
    const scale = width / (until - since);
    // The longest last, so that what is short shows above what is long only where it is alone.
    const shapes = [...marks].sort((one, other) => other.until - other.from - (one.until - one.from)).map((mark) => {
      const x = Math.min(width - 3, Math.max(0, (mark.from - since) * scale));
      const told = (event) =>
        tip(event, keyed(mark.kind, words(mark.kind)), `${when(mark.from)}, ${span(mark.until - mark.from)}`);
      return s("rect", {
        class: `mark k-${mark.kind}`, x, y: 3, width: Math.max(3, (mark.until - mark.from) * scale), height: 12, rx: 2,
        onpointermove: told, onpointerleave: (event) => tip(event), onclick: () => opened(mark.incident),
      });
    });
    const line = s("line", { class: "grid", x1: 0, x2: width, y1: 9, y2: 9 });
    return s("svg", { width, height: 18, viewBox: `0 0 ${width} 18`, "aria-hidden": "true" }, line, shapes);
  });
}

export const times = (since, until) => {
  const days = until - since > 2.5 * DAY;
  return h("div", { class: "lane-times soft" }, [0, 0.5, 1].map((part) => h("span", {}, hour(since + (until - since) * part, days))));
};

// --- Recovery actions -------------------------------------------------------------------------------------

export function actions(element, found) {
  const rows = Object.entries(found).sort(([, one], [, other]) => other.used - one.used);
  if (!rows.length) {
    element.replaceChildren(empty("None was needed in this time."));
    return;
  }
  const most = Math.max(...rows.map(([, one]) => one.used), 1);
  element.replaceChildren(
    ...rows.map(([name, one]) =>
      h("div", { class: "bar" },
        h("span", {}, words(name)),
        h("span", { class: "track" },
          h("i", { class: "used", vars: { width: `${(100 * one.used) / most}%` } }),
          h("i", { class: "done", vars: { width: `${(100 * one.succeeded) / most}%` } })),
        h("span", { class: "n" }, `${number(one.succeeded)} of ${number(one.used)}`)),
    ),
  );
}
