// The page: what the stream tells is shown at once, what the log has to be asked is asked for again now and then.

import { $, Refused, download, enter, fill, get, h, hold, leave, listen, number, post, share, span, toast, when, words } from "./lib.js";
import * as charts from "./charts.js";
import { Accounts, STATES } from "./list.js";
import { Panel, goto, logLine, needs } from "./panel.js";

const RANGES = [["1 h", 3600], ["24 h", 86400], ["7 d", 604800], ["30 d", 2592000]];
const AGAIN = 15_000; // ms between two looks at what the log has to be asked for
const SILENT = 6_000; // ms without a word from the stream, which speaks every second
const LOST = 2_000; // the same, where its connection is known to be gone
const LANES = 20;
const ROWS = 150;
const SURE = { pause: "They go offline, and their calls fail, until you resume them.", rotate: "They move to another proxy of theirs; calls are held meanwhile." };

let range = Number(sessionStorage.getItem("range")) || 86400;
let incidentsOf = null;
let about = { actions: [] };
let now = null;
let paths = [];
let failing = {};
let rows = [];
let heard = 0;
let stale = true;
let connected = false;
let following = null;
let arrived = () => {};

const list = new Accounts({ opened: (name) => goto("account", name), chosen: drawActs });
const panel = new Panel({ accounts: list.accounts, range: () => range, act, actions: () => about.actions });

// --- In and out -------------------------------------------------------------------------------------------

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  hold($("token").value.trim(), $("keep").checked);
  $("token").value = "";
  open();
});
$("leave").addEventListener("click", () => {
  leave();
  location.reload();
});
$("report").addEventListener("click", async () => {
  const link = h("a", { href: URL.createObjectURL(await download(`report.html?last=${range}`)), download: "tg-supervisor.html" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});
window.addEventListener("hashchange", route);

function shut(said = "") {
  following?.abort();
  $("page").hidden = true;
  $("door").hidden = false;
  $("door-said").textContent = said;
  $("token").focus();
}

async function open() {
  $("door").hidden = true;
  $("page").hidden = false;
  const followed = follow();
  await Promise.race([new Promise((first) => (arrived = first)), new Promise((late) => setTimeout(late, 1500))]);
  if ($("page").hidden) return; // the token was refused
  get("about").then((found) => {
    about = found;
    fill($("foot"), `tg-supervisor ${found.version} over ${found.client} ${found.client_version}`);
    drawActs(list.picked);
    panel.refresh();
  }, () => {});
  refresh();
  route();
  await followed;
}

function route() {
  const [, what, id] = location.hash.match(/^#\/(account|incident)\/(.+)$/) ?? [];
  panel.show(what, id && decodeURIComponent(id));
}

// --- The stream -------------------------------------------------------------------------------------------

async function follow() {
  following?.abort();
  const mine = (following = new AbortController());
  for (let wait = 500; !mine.signal.aborted; wait = Math.min(10_000, wait * 2)) {
    try {
      await listen("events", mine.signal, (name, told) => {
        wait = 500;
        hear(name, told);
      });
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        leave();
        shut("This is not the token.");
        return;
      }
    }
    if (mine.signal.aborted) return;
    connected = false;
    await new Promise((done) => setTimeout(done, wait));
  }
}

function hear(name, told) {
  heard = Date.now();
  connected = true;
  now = told.now;
  if (told.paths) paths = told.paths;
  const known = new Set(rows.map((row) => row.id));
  const fresh = told.rows.filter((row) => !known.has(row.id));
  rows = [...(name === "full" ? [] : rows), ...(name === "full" ? told.rows : fresh)].slice(-ROWS);
  list.put(told.accounts, told.removed ?? [], name === "full");
  if (name === "full" || told.paths) drawPaths();
  if (name === "full" || fresh.length) drawLog();
  if (name === "full" || told.accounts.length || told.removed?.length) {
    drawNeeds();
    panel.refresh();
  }
  panel.heard(fresh);
  drawCards();
  drawLive();
  if (fresh.length && name !== "full") soon();
  if (name === "full" && !document.documentElement.dataset.ready) {
    document.documentElement.dataset.ready = "accounts";
    performance.mark("first-data");
    arrived(); // what else there is has waited for the accounts
  }
}

function drawLive() {
  const silent = Date.now() - heard;
  stale = silent > (connected ? SILENT : LOST);
  const element = $("live");
  element.className = stale ? "live off" : "live";
  element.textContent = stale ? (heard ? `no word for ${span(silent / 1000)}` : "connecting") : "live";
  document.body.classList.toggle("stale", stale && heard > 0);
  const said = [];
  if (stale && heard) said.push(["bad", `The daemon does not answer. What is shown is what it said at ${when(heard / 1000)}.`]);
  if (now?.config.error) said.push(["bad", "The changed configuration is not used, all goes on with the one of before:", now.config.error]);
  if (now && !now.record_writable) said.push(["bad", "The recovery log cannot be written: what fails now waits in memory. Is the disk full?"]);
  if (now?.trouble) said.push(["bad", `The recovery log cannot be read: ${now.trouble}`]);
  if (now?.loop_lag_s > 1) said.push(["warn", `Something held the event loop up for ${span(now.loop_lag_s)}, and all accounts with it; the log names it.`]);
  const key = JSON.stringify(said);
  if ($("banners").dataset.key === key) return;
  $("banners").dataset.key = key;
  fill($("banners"), said.map(([how, text, more]) => h("div", { class: `banner ${how}` }, text, more ? h("ul", {}, more.map((line) => h("li", {}, line))) : null)));
}

// --- At a glance ------------------------------------------------------------------------------------------

let stats = null;

function drawCards() {
  const counts = list.counts();
  const total = list.accounts.size;
  const card = (value, label, how = "", more = null) => h("div", { class: `card ${how}` }, h("b", {}, value), h("span", {}, label), more);
  const states = h("div", { class: "states-bar", "aria-hidden": "true" },
    STATES.filter((state) => counts[state]).reverse().map((state) => h("i", { class: `s-${state}`, vars: { "flex-grow": String(counts[state]) }, title: `${words(state)} ${counts[state]}` })));
  const took = stats?.time_to_recover_s;
  const bad = counts.failed + counts.needs_login;
  fill($("cards"),
    card(`${number(counts.online)} / ${number(total)}`, "accounts online", bad ? "bad" : counts.online < total ? "warn" : "good", states),
    card(stats ? number(stats.incidents.open) : "–", "incidents open", stats?.incidents.open ? "warn" : ""),
    card(stats ? number(stats.incidents.total) : "–", `incidents in ${label()}`),
    card(stats ? share(stats.success_rate) : "–", "recovered by itself"),
    card(took ? `${span(took.p50)} · ${span(took.p99)}` : "–", "to recover, p50 · p99"),
    card(stats ? number(stats.last_24h) : "–", "failures in 24 h"));
}

const label = () => RANGES.find(([, seconds]) => seconds === range)?.[0] ?? span(range);

function drawNeeds() {
  const all = [...list.accounts.values()].filter((account) => account.state === "needs_login" || account.state === "failed");
  $("needs").hidden = !all.length;
  const shown = all.slice(0, 4);
  fill($("needs").querySelector("div"),
    shown.map((account) =>
      h("div", { class: "need" },
        h("button", { class: "link", onclick: () => goto("account", account.name) }, account.name),
        h("span", { class: `badge s-${account.state}` }, words(account.state)),
        h("span", { class: "why" }, account.last_failure ? [h("i", { class: `key k-${account.last_failure.kind}` }), account.last_failure.message] : ""),
        needs(account),
        account.state === "failed" ? h("button", { onclick: () => act("retry", [account.name]) }, "retry") : null)),
    all.length > shown.length ? h("button", { class: "more", onclick: () => list.only(["failed", "needs_login"]) }, `Show all ${number(all.length)}`) : null);
}

// --- What the log is asked for ----------------------------------------------------------------------------

let asking = 0;
let due = 0;

function soon() {
  due ||= setTimeout(refresh, 3_000);
}

async function refresh() {
  clearTimeout(due);
  due = 0;
  const mine = ++asking;
  const last = range;
  const shown = async (question, draw) => {
    try {
      const found = await question;
      if (mine === asking) draw(found);
    } catch (error) {
      if (!(error instanceof Refused) || error.status === 401) return; // the stream says so, too
      toast(error.message, true);
    }
  };
  await Promise.all([
    shown(get("stats", { last }), (found) => {
      stats = found;
      drawCards();
      charts.actions($("actions"), found.by_action);
    }),
    shown(get("failures", { last }), drawSeries),
    shown(get("timeline", { last, limit: LANES }), drawLanes),
    shown(get("incidents", { last, state: incidentsOf, limit: 40 }), drawIncidents),
    shown(get("paths", { last }), (found) => {
      failing = Object.fromEntries(found.paths.map((path) => [path.name, path.failures]));
      drawPaths();
    }),
  ]);
  document.documentElement.dataset.ready = "all";
  if (mine === asking) shown(get("report", { last }), drawAdvice);
}

function drawSeries(found) {
  const kinds = charts.KINDS.filter((name) => found.by_kind[name]);
  fill($("legend"), kinds.map((name) => charts.keyed(name, words(name))));
  fill($("legend-recover"), h("span", { class: "keyed" }, h("i", { class: "key p50" }), "p50"), h("span", { class: "keyed" }, h("i", { class: "key p99" }), "p99"));
  charts.failures($("failures"), found);
  charts.recover($("recover"), found);
}

function drawLanes(found) {
  const since = Date.parse(found.since) / 1000;
  const until = Date.parse(found.until) / 1000;
  $("lanes-said").textContent = found.accounts.length === LANES ? `the ${LANES} that were away longest` : "";
  if (!found.accounts.length) {
    fill($("lanes"), h("p", { class: "soft none" }, "None was, in this time."));
    return;
  }
  const plots = found.accounts.map((one) => [h("div", { class: "lane-plot" }), one]);
  fill($("lanes"), plots.map(([plot, one]) =>
    h("div", { class: "lane" },
      h("button", { class: "link", title: one.name, onclick: () => goto("account", one.name) }, one.name),
      plot,
      h("span", { class: "n soft" }, span(one.down_s)))),
    h("div", { class: "lane" }, h("span", {}), charts.times(since, until), h("span", {})));
  for (const [plot, one] of plots) charts.lane(plot, one.marks, since, until, (id) => goto("incident", id));
}

let listed = "";

function drawIncidents(found) {
  const asked = `${range} ${incidentsOf}`;
  if (listed === asked && $("incidents").scrollTop > 0) return; // somebody reads it
  listed = asked;
  const chip = (value, text) => h("button", {
    class: "chip", "aria-pressed": String(incidentsOf === value),
    onclick: () => {
      incidentsOf = value;
      refresh();
    },
  }, text);
  fill($("incidents-of"), chip(null, "all"), chip("open", "open"), chip("closed", "over"));
  fill($("incidents"), panel.more(found, { last: range, state: incidentsOf, limit: 40 }, true));
}

function drawLog() {
  fill($("log"), rows.length ? [...rows].reverse().map((row) => logLine(row)) : h("p", { class: "soft none" }, "Nothing has failed yet."));
}

function drawPaths() {
  const order = { broken: 0, ok: 1, unused: 2 };
  const sum = (kinds) => Object.values(kinds ?? {}).reduce((one, other) => one + other, 0);
  const sorted = [...paths].sort((one, other) => order[one.state] - order[other.state] || sum(failing[other.name]) - sum(failing[one.name]));
  fill($("paths"), sorted.slice(0, 60).map((path) => {
    const kinds = Object.entries(failing[path.name] ?? {}).map(([name, many]) => charts.keyed(name, `${words(name)} ${number(many)}`));
    const probe = path.next_probe_at ? `asked again in ${span(Math.max(0, (Date.parse(path.next_probe_at) - Date.now()) / 1000))}` : null;
    const more = [probe, path.latency_ms === null ? null : `${Math.round(path.latency_ms)} ms`].filter(Boolean).join(" · ");
    return h("div", { class: "path" },
      h("b", {}, path.name), h("span", { class: `badge p-${path.state}` }, path.state),
      h("span", { class: "n" }, `${number(path.accounts)} account${path.accounts === 1 ? "" : "s"}`),
      h("span", { class: "soft" }, more),
      path.state === "broken" && path.last_failure ? h("div", { class: "why" }, path.last_failure.message) : null,
      kinds.length ? h("div", { class: "legend" }, kinds) : null);
  }), sorted.length > 60 ? h("p", { class: "soft" }, `and ${number(sorted.length - 60)} more`) : null);
}

function drawAdvice(found) {
  $("advice").hidden = !found.advice.length;
  fill($("advice").querySelector("ul"), found.advice.slice(0, 12).map((one) => h("li", {}, one)));
}

// --- Commands ---------------------------------------------------------------------------------------------

function drawActs(picked) {
  $("acts").hidden = !picked.size;
  fill($("acts"), h("b", {}, `${number(picked.size)} chosen`),
    about.actions.map((action) => h("button", { onclick: () => act(action, [...picked]) }, words(action))),
    h("button", { class: "quiet", onclick: () => list.clear() }, "none"));
}

async function act(action, names) {
  const whom = names.length === 1 ? names[0] : `${number(names.length)} accounts`;
  if ((SURE[action] || names.length > 20) && !(await sure(action, whom))) return;
  try {
    const { accounts } = await post(`actions/${action}`, { accounts: names });
    const changed = accounts.filter((one) => one.changed).length;
    toast(names.length === 1 ? `${whom}: ${words(action)}${changed ? "" : ", nothing to do"}` : `${words(action)}: ${number(changed)} of ${number(accounts.length)} changed`);
    list.clear();
  } catch (error) {
    toast(error.message, true);
  }
}

function sure(action, whom) {
  const dialog = $("ask");
  return new Promise((answer) => {
    const end = (yes) => {
      dialog.close();
      answer(yes);
    };
    const yes = h("button", { class: "primary", onclick: () => end(true) }, words(action));
    fill(dialog, h("h2", {}, `${words(action)} ${whom}?`), h("p", {}, SURE[action] ?? ""), h("div", { class: "buttons" }, yes, h("button", { onclick: () => end(false) }, "Leave it")));
    dialog.oncancel = () => answer(false);
    dialog.showModal();
    yes.focus();
  });
}

// --- Always -----------------------------------------------------------------------------------------------

function drawRanges() {
  fill($("ranges"), RANGES.map(([text, seconds]) =>
    h("button", {
      "aria-pressed": String(seconds === range),
      onclick: () => {
        range = seconds;
        sessionStorage.setItem("range", String(seconds));
        drawRanges();
        refresh();
      },
    }, text)));
}

drawRanges();
setInterval(() => {
  if (document.hidden || $("page").hidden) return;
  drawLive();
  list.tick();
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !$("page").hidden) refresh();
});
setInterval(() => {
  if (!document.hidden && !$("page").hidden && !stale) refresh();
}, AGAIN);

if (enter()) open();
else shut();
