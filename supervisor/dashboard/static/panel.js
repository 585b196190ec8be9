// Drill-down: one account, or one incident with its attempts and what caused them.

import { $, ago, fill, get, h, ms, named, number, span, when, words } from "./lib.js";
import { lane, times } from "./charts.js";
import { badge } from "./list.js";

const PAGE = 20;
const NEEDS_LOGIN = (name) => `tg-supervisor login ${name}`;

export const outcome = (row) => h("span", { class: `badge o-${row.outcome ?? "open"}` }, words(row.outcome ?? "open"));
export const kind = (name) => h("span", { class: "keyed" }, h("i", { class: `key k-${name}` }), words(name));
export const goto = (what, id) => (location.hash = what ? `#/${what}/${encodeURIComponent(id)}` : "#/");

export function incidentLine(found, whose = true) {
  const now = Date.now();
  return h("button", { class: "line", onclick: () => goto("incident", found.id) },
    h("span", { class: "when soft" }, when(found.opened_at)),
    h("span", { class: "what" }, whose ? [h("b", {}, found.account ?? (found.scope === "fleet" ? "everything" : `path ${found.path}`)), " "] : null,
      kind(found.kind), found.accounts.length ? ` ${number(found.accounts.length)} accounts` : ""),
    h("span", { class: "took" }, found.closed_at ? span(found.duration_s) : ago(found.opened_at, now)),
    outcome({ outcome: found.closed_at ? (found.outcome ?? "closed") : "open" }));
}

export function logLine(row, whose = true) {
  const done = row.outcome === "recovered";
  return h("div", { class: "line", title: row.message },
    h("span", { class: "when soft" }, when(row.at)),
    h("span", { class: "what" }, whose ? [h("b", {}, row.account ?? row.path), " "] : null, h("i", { class: `key k-${row.kind}` }),
      done ? `recovered by ${words(row.action)}` : named(row), row.count > 1 ? ` × ${number(row.count)}` : "",
      row.method ? h("span", { class: "soft" }, ` ${row.method}`) : null),
    h("span", { class: "took" }, done ? span(row.duration_s) : row.outcome === "retrying" ? `${words(row.action)} ${row.attempt}` : ""),
    row.incident ? h("button", { class: "quiet", onclick: () => goto("incident", row.incident) }, outcome(row)) : outcome(row));
}

const facts = (pairs) =>
  h("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]).flat());

// What led to it, the outermost first: each one is nested in the one before.
function causes(chain) {
  return chain.length ? h("ol", { class: "causes" }, chain.map((cause) => h("li", {}, cause))) : null;
}

function copied(text) {
  const button = h("button", { class: "quiet", title: "Copy", onclick: async () => {
    await navigator.clipboard?.writeText(text).then(() => (button.textContent = "copied"), () => {});
  } }, "copy");
  return h("span", { class: "command" }, h("code", {}, text), button);
}

export function needs(account) {
  if (account.state === "needs_login") return copied(NEEDS_LOGIN(account.name));
  if (account.state === "failed") return copied(`tg-supervisor log --account ${account.name}`);
  return null;
}

export class Panel {
  constructor({ accounts, range, act, actions }) {
    Object.assign(this, { accounts, range, act, actions });
    this.element = $("panel");
    this.about = null;
    this.element.addEventListener("close", () => {
      if (this.about) goto();
    });
    this.element.addEventListener("click", (event) => {
      if (event.target === this.element) this.element.close(); // beside it
    });
  }

  async show(what, id) {
    this.about = what ? `${what}/${id}` : null;
    if (!what) {
      if (this.element.open) this.element.close();
      return;
    }
    this.frame(what === "account" ? id : "Incident", h("p", { class: "soft" }, "…"));
    if (!this.element.open) this.element.showModal();
    this.element.scrollTop = 0;
    await this.ask(what, id);
  }

  async ask(what, id) {
    const about = this.about;
    const content = await (what === "account" ? this.account(id) : this.incident(id)).catch((error) => [id, h("p", { class: "said" }, error.message)]);
    if (this.about !== about) return; // another is shown by now
    const { scrollTop } = this.element;
    this.frame(...content);
    this.element.scrollTop = scrollTop;
  }

  // Rows of the log are new: one that belongs to what is shown shows there, too.
  heard(rows) {
    const row = rows.find((one) => this.about === `incident/${one.incident}` || this.about === `account/${one.account}`);
    if (!row || this.asking) return;
    const what = this.about.startsWith("account/") ? "account" : "incident";
    this.asking = this.ask(what, this.about.slice(what.length + 1)).finally(() => (this.asking = null));
  }

  frame(title, ...content) {
    const close = h("button", { class: "quiet close", "aria-label": "Close", onclick: () => this.element.close() }, "✕");
    fill(this.element, h("div", { class: "inside" }, h("div", { class: "title" }, h("h2", { id: "panel-title" }, title), close), content));
  }

  // The account that is shown has changed.
  refresh() {
    if (this.live && this.about === `account/${this.live.name}`) this.live.draw();
  }

  async account(name) {
    const last = this.range();
    const [timeline, incidents, log] = await Promise.all([
      get("timeline", { last, account: name }),
      get("incidents", { last, account: name, limit: PAGE }),
      get("log", { account: name, limit: 50 }),
    ]);
    const now = h("div", {});
    const draw = () => fill(now, this.now(name));
    this.live = { name, draw };
    draw();
    const strip = h("div", { class: "lane-plot" });
    const since = Date.parse(timeline.since) / 1000;
    const until = Date.parse(timeline.until) / 1000;
    const found = timeline.accounts[0];
    const away = found ? `${number(found.incidents)} incidents, away ${span(found.down_s)}` : "never away";
    requestAnimationFrame(() => lane(strip, found?.marks ?? [], since, until, (id) => goto("incident", id)));
    return [
      name,
      now,
      h("h3", {}, `Last ${span(last)}: ${away}`),
      strip,
      times(since, until),
      h("h3", {}, "Incidents"),
      this.more(incidents, { last, account: name, limit: PAGE }, false),
      h("h3", {}, "Log, newest first"),
      log.rows.length ? h("div", { class: "feed whole" }, log.rows.reverse().map((row) => logLine(row, false))) : h("p", { class: "soft" }, "Nothing was written about it."),
    ];
  }

  now(name) {
    const account = this.accounts.get(name);
    if (!account) return h("p", { class: "soft" }, "It is no longer configured.");
    const failure = account.last_failure;
    const retry = account.retry_at ? `${when(account.retry_at)} (${span(Math.max(0, (ms(account.retry_at) - Date.now()) / 1000))})` : null;
    const limited = account.limited ? `${account.limited.error_id} since ${when(account.limited.since)}` : null;
    return [
      h("p", { class: "big" }, badge(account.state), ` since ${when(account.since)}`),
      needs(account),
      h("div", { class: "buttons" }, this.actions().map((action) => h("button", { onclick: () => this.act(action, [name]) }, words(action)))),
      facts([
        ["Tried again", retry],
        ["Path", account.path],
        [account.limited?.frozen ? "Frozen" : "Limited", limited],
        ["Telegram's id", account.user_id === null ? null : `${account.user_id}${account.is_bot ? ", a bot" : account.is_bot === false ? ", a user" : ""}`],
        ["In hand", account.incident ? h("button", { class: "link", onclick: () => goto("incident", account.incident) }, `incident ${account.incident}`) : null],
        ["Last failure", failure ? [h("i", { class: `key k-${failure.kind}` }), failure.message, h("span", { class: "soft" }, ` ${when(failure.at)}`), causes(failure.cause)] : null],
      ]),
    ];
  }

  more(found, asked, whose) {
    const list = h("div", { class: "feed whole" });
    const add = (page) => {
      list.querySelector(".more")?.remove();
      list.append(...page.incidents.map((one) => incidentLine(one, whose)));
      if (page.next) {
        const more = h("button", { class: "more", onclick: async () => add(await get("incidents", { ...asked, before: page.next })) }, "More");
        list.append(more);
      }
    };
    add(found);
    return list.childElementCount ? list : h("p", { class: "soft" }, "None in this time.");
  }

  async incident(id) {
    const { incident, rows } = await get(`incidents/${encodeURIComponent(id)}`);
    const whose = incident.account
      ? h("button", { class: "link", onclick: () => goto("account", incident.account) }, incident.account)
      : incident.scope === "fleet" ? "everything" : `all on ${incident.path}`;
    const begun = Math.min(ms(incident.opened_at), ...rows.slice(0, 1).map((row) => ms(row.at)));
    return [
      "Incident",
      h("p", { class: "big" }, outcome({ outcome: incident.closed_at ? (incident.outcome ?? "closed") : "open" }), " ", kind(incident.kind)),
      facts([
        ["Of", whose],
        ["Scope", incident.scope],
        ["Path", incident.path],
        ["Opened", when(incident.opened_at)],
        ["Closed", incident.closed_at ? `${when(incident.closed_at)}, after ${span(incident.duration_s)}` : "still open"],
        ["Failures", number(incident.failures)],
        ["Touched", incident.accounts.length ? `${number(incident.accounts.length)} accounts: ${incident.accounts.slice(0, 30).join(", ")}${incident.accounts.length > 30 ? " …" : ""}` : null],
        ["Number", h("code", {}, incident.id)],
      ]),
      h("h3", {}, "What happened"),
      rows.length
        ? h("ol", { class: "steps" }, rows.map((row) => this.step(row, begun)))
        : h("p", { class: "soft" }, "No row of the log tells: they were merged with others, or are older than retention_days."),
    ];
  }

  step(row, begun) {
    const after = (ms(row.at) - begun) / 1000;
    const next = row.outcome === "retrying" ? `then ${words(row.action)}, attempt ${row.attempt}${row.delay_s ? `, after ${span(row.delay_s)}` : ", at once"}` : null;
    const done = row.outcome === "recovered" ? `by ${words(row.action)}, ${span(row.duration_s)} after the first failure` : null;
    return h("li", { class: `step o-${row.outcome}` },
      h("div", { class: "soft" }, `${when(row.at)}${after > 0 ? `, ${span(after)} in` : ""}${row.count > 1 ? `, ${number(row.count)} times` : ""}`),
      h("div", {}, outcome(row), " ", done ?? [kind(row.kind), row.error_id ? h("code", {}, ` ${row.error_id}`) : null]),
      done ? null : h("p", { class: "message" }, row.message, row.method ? h("span", { class: "soft" }, ` (${row.method})`) : null),
      done ? null : causes(row.cause),
      next ? h("div", { class: "next soft" }, next) : null,
      row.context ? facts(Object.entries(row.context)) : null,
      row.traceback ? h("details", {}, h("summary", {}, "Traceback"), h("pre", {}, row.traceback)) : null);
  }
}
