// What everything else stands on: elements, words, and asking the daemon.

const SVG = "http://www.w3.org/2000/svg";

// h("button", { class: "primary", onclick }, "text", child): text is always text, so what the log says stays what it is.
export function h(tag, props = {}, ...children) {
  return dress(document.createElement(tag), props, children);
}

export function s(tag, props = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), props, children);
}

function dress(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "checked" || name === "indeterminate" || name === "disabled") element[name] = value;
    else if (name === "vars") for (const [key, of] of Object.entries(value)) element.style.setProperty(key, of);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const $ = (id) => document.getElementById(id);

export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

// --- Words ------------------------------------------------------------------------------------------------

const clockFormat = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayFormat = new Intl.DateTimeFormat([], { month: "short", day: "numeric" });
const count = new Intl.NumberFormat("en");

export const number = (value) => count.format(value);

export function ms(at) {
  return typeof at === "number" ? at * 1000 : Date.parse(at);
}

export function when(at) {
  const date = new Date(ms(at));
  const today = date.toDateString() === new Date().toDateString();
  return today ? clockFormat.format(date) : `${dayFormat.format(date)} ${clockFormat.format(date).slice(0, 5)}`;
}

export function hour(at, day) {
  const date = new Date(at * 1000);
  return day ? dayFormat.format(date) : clockFormat.format(date).slice(0, 5);
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${Number(seconds.toPrecision(2))} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  const [much, little] = hours < 48 ? [`${hours} h`, `${minutes % 60} min`] : [`${Math.floor(hours / 24)} d`, `${hours % 24} h`];
  return little.startsWith("0 ") ? much : `${much} ${little}`;
}

export const ago = (at, now) => span(Math.max(0, (now - ms(at)) / 1000));

export function share(value) {
  if (value === null || value === undefined) return "–";
  const shown = (100 * value).toFixed(1).replace(/\.0$/, "");
  return shown === "100" && value < 1 ? "> 99.9 %" : `${shown} %`;
}

export const words = (name) => name.replaceAll("_", " ");

// What a failure is called on one line: its id where it has one, else what was said.
export const named = (row) => row.error_id ?? row.message;

// --- Asking the daemon ------------------------------------------------------------------------------------

const KEY = "tg-supervisor-token";
const kept = () => sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
let token = null;

export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `HTTP ${status}`);
    this.status = status;
  }
}

export function enter() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    history.replaceState(null, "", location.pathname); // out of sight, and out of what is shared
    sessionStorage.setItem(KEY, given);
  }
  token = given ?? kept();
  return token !== null;
}

export function hold(given, keep) {
  leave();
  (keep ? localStorage : sessionStorage).setItem(KEY, given);
  token = given;
}

export function leave() {
  sessionStorage.removeItem(KEY);
  localStorage.removeItem(KEY);
  token = null;
}

async function request(path, options = {}) {
  const headers = { Authorization: `Bearer ${token}`, ...options.headers };
  const response = await fetch(`api/v1/${path}`, { ...options, headers, cache: "no-store" });
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new Refused(response.status, body?.error);
}

export const get = async (path, parameters = {}) => {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined));
  return (await request(query.size ? `${path}?${query}` : path)).json();
};

export const post = async (path, body) =>
  (await request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();

export const download = async (path) => (await request(path)).blob();

// Server-sent events over fetch: EventSource cannot send the token. Ends when the connection does.
export async function listen(path, signal, told) {
  const response = await request(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const lines = event.split("\n");
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (name) told(name, JSON.parse(data));
    }
  }
}

// --- What floats ------------------------------------------------------------------------------------------

let fading = 0;

export function toast(text, bad = false) {
  const element = $("toast");
  element.textContent = text;
  element.className = bad ? "toast bad" : "toast";
  element.hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => (element.hidden = true), bad ? 8000 : 4000);
}

export function tip(event, ...lines) {
  const element = $("tip");
  if (!lines.length) {
    element.hidden = true;
    return;
  }
  fill(element, lines.map((line) => (typeof line === "string" ? h("div", {}, line) : line)));
  element.hidden = false;
  const { width, height } = element.getBoundingClientRect();
  const x = Math.min(event.clientX + 14, innerWidth - width - 8);
  const y = event.clientY + height + 24 > innerHeight ? event.clientY - height - 10 : event.clientY + 16;
  element.style.setProperty("transform", `translate(${Math.max(4, x)}px, ${Math.max(4, y)}px)`);
}
