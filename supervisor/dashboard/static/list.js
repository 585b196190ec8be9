// The accounts: three or three thousand, of which only those in sight are in the page.

import { $, ago, fill, h, ms, named, number, span, words } from "./lib.js";

export const STATES = ["failed", "needs_login", "suspended", "recovering", "starting", "paused", "stopped", "online"];
const COLUMNS = [
  ["name", "Account"],
  ["state", "State"],
  ["since", "For"],
  ["path", "Path"],
  ["failure", "Last failure"],
  ["seen", "Seen"],
];
const BEYOND = 6; // rows above and below those in sight

// One for all: localeCompare makes its own each time, which takes longer than all the rest of the page.
const collator = new Intl.Collator("en", { numeric: true });
const ORDER = {
  name: (one, other) => collator.compare(one.name, other.name),
  state: (one, other) => STATES.indexOf(one.state) - STATES.indexOf(other.state),
  since: (one, other) => ms(other.since) - ms(one.since),
  path: (one, other) => collator.compare(one.path, other.path),
  failure: (one, other) => collator.compare(text(one), text(other)),
  seen: (one, other) => seen(other) - seen(one),
};
const seen = (account) => (account.last_failure ? ms(account.last_failure.at) : 0);
const text = (account) => (account.last_failure ? named(account.last_failure) : "\uffff");

const due = (account, now) => {
  const left = (ms(account.retry_at) - now) / 1000;
  return left > 0 ? `tried in ${span(Math.ceil(left))}` : "tried now";
};

export const badge = (state) => h("span", { class: `badge s-${state}` }, words(state));

export class Accounts {
  constructor({ opened, chosen }) {
    this.accounts = new Map();
    this.picked = new Set();
    this.states = new Set();
    this.words = "";
    this.sorted = ["state", 1];
    this.shown = [];
    this.opened = opened;
    this.chosen = chosen;
    this.head = h("div", { class: "row head", role: "row" });
    this.space = h("div", { class: "space" });
    this.view = h("div", { class: "view", role: "rowgroup", tabindex: "-1" }, this.space);
    fill($("accounts"), this.head, this.view);
    $("accounts").setAttribute("role", "table");
    this.view.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.view);
    $("find").addEventListener("input", () => {
      this.words = $("find").value.trim().toLowerCase();
      this.view.scrollTop = 0;
      this.sort();
    });
    this.drawHead();
  }

  put(accounts, removed = [], whole = false) {
    if (whole) this.accounts.clear();
    for (const account of accounts) this.accounts.set(account.name, account);
    for (const name of removed) this.accounts.delete(name);
    for (const name of this.picked) if (!this.accounts.has(name)) this.picked.delete(name);
    if (whole || accounts.length || removed.length) this.sort();
  }

  counts() {
    const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
    for (const account of this.accounts.values()) counts[account.state] = (counts[account.state] ?? 0) + 1;
    return counts;
  }

  only(states) {
    this.states = new Set(states);
    this.sort();
  }

  clear() {
    this.picked.clear();
    this.draw();
    this.chosen(this.picked);
  }

  sort() {
    const [key, direction] = this.sorted;
    const matches = (account) =>
      (!this.states.size || this.states.has(account.state) || (this.states.has("limited") && account.limited)) &&
      (!this.words || `${account.name} ${account.path} ${account.state} ${text(account)}`.toLowerCase().includes(this.words));
    const shown = [...this.accounts.values()].filter(matches);
    shown.sort((one, other) => direction * ORDER[key](one, other) || ORDER.name(one, other));
    this.shown = shown;
    this.drawStates();
    this.draw();
  }

  drawStates() {
    const counts = this.counts();
    const limited = [...this.accounts.values()].filter((account) => account.limited).length;
    const chip = (state, many) =>
      h("button", {
        class: `chip s-${state}`, "aria-pressed": String(this.states.has(state)),
        onclick: () => {
          if (!this.states.delete(state)) this.states.add(state);
          this.view.scrollTop = 0;
          this.sort();
        },
      }, `${words(state)} ${number(many)}`);
    fill($("states"),
      [...STATES].reverse().filter((state) => counts[state] || this.states.has(state)).map((state) => chip(state, counts[state])),
      limited || this.states.has("limited") ? chip("limited", limited) : null);
  }

  drawHead() {
    const [sorted, direction] = this.sorted;
    const all = h("input", { type: "checkbox", "aria-label": "Choose all that are shown", onchange: () => this.pickAll(all.checked) });
    this.all = all;
    fill(this.head, h("span", { class: "c-pick", role: "columnheader" }, all),
      COLUMNS.map(([key, title]) =>
        h("span", { class: `c-${key}`, role: "columnheader", "aria-sort": key === sorted ? (direction > 0 ? "ascending" : "descending") : "none" },
          h("button", {
            onclick: () => {
              this.sorted = [key, key === sorted ? -direction : 1];
              this.drawHead();
              this.sort();
            },
          }, title, key === sorted ? (direction > 0 ? " ▴" : " ▾") : ""))));
  }

  pickAll(on) {
    this.picked = new Set(on ? this.shown.map((account) => account.name) : []);
    this.draw();
    this.chosen(this.picked);
  }

  draw() {
    const height = parseFloat(getComputedStyle(this.view).getPropertyValue("--row")) || 36;
    const total = this.shown.length;
    this.view.style.setProperty("--many", String(Math.min(14, Math.max(2, this.accounts.size))));
    this.space.style.setProperty("height", `${Math.max(1, total) * height}px`);
    const first = Math.max(0, Math.floor(this.view.scrollTop / height) - BEYOND);
    const last = Math.min(total, Math.ceil((this.view.scrollTop + this.view.clientHeight) / height) + BEYOND);
    const now = Date.now();
    const active = this.space.contains(document.activeElement) ? document.activeElement : null;
    const focused = active?.closest(".row")?.dataset.name;
    const rows = this.shown.slice(first, last).map((account, n) => this.row(account, (first + n) * height, now));
    fill(this.space, total ? rows : h("p", { class: "soft none" }, this.accounts.size ? "No account is like that." : "No account is configured."));
    if (focused) {
      const row = this.space.querySelector(`[data-name="${CSS.escape(focused)}"]`);
      (active.type === "checkbox" ? row?.querySelector("input") : row)?.focus({ preventScroll: true });
    }
    this.all.checked = total > 0 && this.shown.every((account) => this.picked.has(account.name));
    this.all.indeterminate = !this.all.checked && this.picked.size > 0;
    $("accounts").setAttribute("aria-rowcount", total);
  }

  // Times go on; what is under the pointer stays what it is.
  tick() {
    const now = Date.now();
    for (const row of this.space.querySelectorAll(".row")) {
      const account = this.accounts.get(row.dataset.name);
      if (!account) continue;
      row.querySelector(".c-since").textContent = ago(account.since, now);
      row.querySelector(".c-seen").textContent = account.last_failure ? `${ago(account.last_failure.at, now)} ago` : "";
      const next = row.querySelector(".next");
      if (next) next.textContent = due(account, now);
    }
  }

  row(account, top, now) {
    const failure = account.last_failure;
    const pick = h("input", {
      type: "checkbox", checked: this.picked.has(account.name), "aria-label": `Choose ${account.name}`,
      onclick: (event) => event.stopPropagation(),
      onchange: () => {
        if (!this.picked.delete(account.name)) this.picked.add(account.name);
        this.draw();
        this.chosen(this.picked);
      },
    });
    return h("div", {
      class: "row", role: "row", tabindex: "0", "data-name": account.name, vars: { transform: `translateY(${top}px)` },
      onclick: () => this.opened(account.name),
      onkeydown: (event) => {
        if (event.key === "Enter" && event.target === event.currentTarget) this.opened(account.name);
      },
    },
      h("span", { class: "c-pick", role: "cell", onclick: (event) => event.stopPropagation() }, pick),
      h("span", { class: "c-name", role: "cell", title: account.name }, account.name),
      h("span", { class: "c-state", role: "cell" }, badge(account.state),
        account.limited ? h("span", { class: "badge s-limited", title: account.limited.error_id }, account.limited.frozen ? "frozen" : "limited") : null,
        account.retry_at ? h("span", { class: "soft next" }, due(account, now)) : null),
      h("span", { class: "c-since", role: "cell" }, ago(account.since, now)),
      h("span", { class: "c-path", role: "cell", title: account.path }, account.path),
      h("span", { class: "c-failure", role: "cell", title: failure?.message }, failure ? [h("i", { class: `key k-${failure.kind}` }), named(failure)] : ""),
      h("span", { class: "c-seen soft", role: "cell" }, failure ? `${ago(failure.at, now)} ago` : ""));
  }
}
