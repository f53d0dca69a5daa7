"use strict";
// The list of alerts, and the alert that is named after # in the address.

const WORDS = { confirmed: "confirmed", false_alarm: "false alarm" };
const filters = byId("filters");
let older = []; // alerts of earlier pages of the list
let newest = []; // its first page
let before = null; // where the next page begins; null if there is none
let causes = {};
let isOperator = false;
let isUnanswered = false; // whether the problem on the page is that the box did not answer
let isDue = true; // whether the alert in the address is still to be shown
let shown = null; // the alert in the detail
let neighbours = []; // ids of those before and after it, also once it is judged and has left the list
const latest = new Map(); // id -> the alert as it was last shown
const drafts = sessionStorage; // id -> the comment that somebody types and has not saved; a login that is due does not lose it, signing out does
const letters = byId("letters"); // whether letters and digits judge: speech recognition may press them by mistake

const idInAddress = () => location.hash.slice(1);
const percent = (share) => `${Math.round(100 * share)} %`;

function verdictText(alert) {
  if (alert.verdict === null) return alert.acknowledged ? "acknowledged" : "to judge";
  return WORDS[alert.verdict] + (alert.actual === null ? "" : `: ${causes[alert.actual] ?? alert.actual}`);
}

function badge(alert) {
  const made = element("span", verdictText(alert), "badge");
  made.dataset.verdict = alert.verdict ?? "open";
  return made;
}

function place(alert) {
  return alert.zone === null ? alert.camera : `${alert.camera} / ${alert.zone}`;
}

function card(alert) {
  const item = element("li");
  item.dataset.id = alert.id;
  const link = element("a");
  link.href = `#${alert.id}`;
  const image = element("img");
  image.alt = "";
  image.loading = "lazy";
  image.width = 160;
  image.height = 90;
  image.onerror = () => (image.hidden = true);
  if (alert.has_snapshot) image.src = `alerts/${alert.id}/thumbnail.jpg`;
  else image.hidden = true;
  const text = element("div", "", "text");
  link.append(image, text);
  item.append(link);
  return item;
}

function fillCard(item, alert) {
  const text = item.querySelector(".text");
  const title = element("span", alert.what, "name");
  const rest = [place(alert), when(alert.time), `score ${alert.score.toFixed(2)}`];
  if (alert.rule !== "default") rest.splice(1, 0, alert.rule);
  const parts = [title];
  if (alert.severity !== "warning") parts.push(element("span", alert.severity, `severity ${alert.severity}`));
  parts.push(badge(alert), element("span", rest.join(" · "), "quiet"));
  text.replaceChildren(...parts);
  item.querySelector("a").ariaCurrent = alert.id === idInAddress() ? "true" : null;
}

function showList() {
  const list = byId("alerts");
  const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const items = [...newest, ...older].map((alert) => {
    const item = known.get(alert.id) ?? card(alert); // its image is loaded once
    fillCard(item, alert);
    return item;
  });
  if (items.length !== list.children.length || items.some((item, i) => item !== list.children[i])) {
    const focused = document.activeElement?.closest("li")?.dataset.id;
    list.replaceChildren(...items);
    if (focused) list.querySelector(`li[data-id="${focused}"] a`)?.focus();
  }
  findNeighbours();
  byId("no-alerts").hidden = items.length > 0;
  byId("older").hidden = before === null;
}

function showPrecision({ confirmed, false_alarms, value, interval }) {
  const range = interval && `95 % interval ${percent(interval[0])} to ${percent(interval[1])}`;
  const figures = `(${range}): ${confirmed} confirmed, ${false_alarms} false ${false_alarms === 1 ? "alarm" : "alarms"}`;
  const unknown = "No alert is judged yet: the precision of the alerts is unknown.";
  say("precision", value === null ? unknown : `Precision ${percent(value)} ${figures}`);
}

function learn(answer) {
  causes = answer.causes;
  isOperator = answer.role === "operator";
  timeZone = usableZone(answer.time_zone);
}

async function page(from) {
  const query = new URLSearchParams(new FormData(filters));
  if (from !== null) query.set("before", from);
  const answer = await ask(`api/alerts?${query}`);
  learn(answer);
  offer(filters.camera, { "": "all", ...Object.fromEntries(answer.cameras.map((name) => [name, name])) });
  offer(filters.rule, { "": "all", ...Object.fromEntries(answer.rules.map((name) => [name, name])) });
  showPrecision(answer.precision);
  say("trouble", answer.trouble);
  byId("trouble").hidden = answer.trouble === "";
  return answer;
}

async function refresh() {
  const answer = await page(null);
  const fresh = new Set(answer.alerts.map((alert) => alert.id));
  // new alerts push others from the first page
  const pushed = older.length ? newest.filter((alert) => !fresh.has(alert.id) && matches(alert)) : [];
  older = [...pushed, ...older].filter((alert) => !fresh.has(alert.id));
  newest = answer.alerts;
  if (!older.length) before = answer.before;
  showList();
  const known = shown;
  if (isDue) return follow();
  if (known === null) return;
  const now = await ask(`api/alerts/${known.id}`); // its clip and its end come later
  if (shown !== known || JSON.stringify(now) === JSON.stringify(known)) return;
  showDetail(now);
  if (isUnanswered && now.verdict_id !== known.verdict_id) problem(null); // only the answer was lost: here is the decision
}

function matches(alert) {
  return filters.verdict.value === "" || (alert.verdict ?? "open") === filters.verdict.value;
}

async function showOlder() {
  const answer = await page(before);
  older = [...older, ...answer.alerts];
  before = answer.before;
  showList();
}

function fact(name, value) {
  return value === null ? [] : [element("dt", name), element("dd", value)];
}

const showsFrame = () => byId("image").src.endsWith("/frame.jpg");

function showClip(alert) {
  const clip = byId("clip");
  const address = alert?.has_clip ? `alerts/${alert.id}/clip.mp4` : null;
  if (clip.getAttribute("src") === address) return;
  clip.hidden = address === null || showsFrame(); // not in front of it
  if (address === null) {
    clip.removeAttribute("src");
    clip.load(); // ends the download
    return;
  }
  clip.ariaLabel = `Clip of the alert: ${alert.what}, ${place(alert)}`;
  clip.poster = `alerts/${alert.id}/snapshot.jpg`;
  clip.src = address;
}

function measured({ val_map_50, exported }) {
  const figures = val_map_50 === undefined ? [] : [`mAP@0.5 ${percent(val_map_50)} on validation images`];
  if (exported !== undefined) figures.push(`exported ${String(exported).slice(0, 10)}`);
  return figures.join(", ") || null;
}

function showDetail(alert) {
  const isNew = shown?.id !== alert.id;
  byId("comment").value = drafts.getItem(alert.id) ?? alert.comment;
  shown = alert;
  latest.set(alert.id, alert);
  byId("what").textContent = `${alert.what}, ${place(alert)}`;
  if (isNew) {
    const image = byId("image");
    const show = (available) => {
      image.hidden = !available;
      byId("no-image").hidden = available;
    };
    image.onload = () => show(true);
    image.onerror = () => show(false);
    image.alt = `Snapshot of the alert: ${alert.what}, ${place(alert)}`;
    image.src = `alerts/${alert.id}/snapshot.jpg`;
  }
  showClip(alert);
  byId("decided").replaceChildren(badge(alert), element("span", alert.comment, "comment"));
  byId("decide").hidden = !isOperator;
  byId("confirm").ariaPressed = alert.verdict === "confirmed";
  byId("false-alarm").ariaPressed = alert.verdict === "false_alarm";
  byId("acknowledge").ariaPressed = alert.acknowledged;
  byId("cause").hidden = alert.verdict !== "false_alarm";
  showCauses(alert);
  byId("show-frame").hidden = !alert.has_frame || showsFrame();
  const threshold = alert.threshold === null ? "" : ` (alarm threshold now ${alert.threshold.toFixed(2)})`;
  byId("facts").replaceChildren(
    ...fact("Time", new Date(alert.time * 1000).toLocaleString([], { timeZone }) + (timeZone ? ` (${timeZone})` : "") + (alert.time_uncertain ? " (uncertain)" : "")),
    ...fact("Duration", alert.duration === null ? "still open" : `${alert.duration.toFixed(1)} s`),
    ...fact("Rule", `${alert.rule}, ${alert.severity}`),
    ...fact("Score", alert.score.toFixed(2) + threshold),
    ...fact("Track", `#${alert.track}`),
    ...fact("Box", `${alert.box_xyxy.map(Math.round).join(", ")} of ${alert.frame_size[1]} x ${alert.frame_size[0]} pixels`),
    ...fact("Model", `${alert.model.name} (${alert.model.sha256.slice(0, 12)})`),
    ...fact("Measured", measured(alert.model.provenance)),
  );
  showScores(alert);
  byId("events").replaceChildren(
    ...alert.events.map((event) => {
      const item = element("li");
      item.append(element("span", `${when(event.time)} `, "quiet"), element("span", event.text));
      return item;
    }),
  );
  byId("model").textContent = JSON.stringify(alert.model, null, 2);
}

// Class and score over the seconds of the clip. The class alone does not tell a violation: a rule may require another one near it.
function showScores(alert) {
  const heads = alert.sightings;
  byId("scores").hidden = heads.length === 0;
  const [start, end] = [Math.min(0, ...heads.map((head) => head.offset)), Math.max(0.1, ...heads.map((head) => head.offset))];
  const width = byId("scores").clientWidth;
  const x = (offset) => 5 + ((width - 10) * (offset - start)) / (end - start);
  const y = (score) => 105 - 100 * score;
  const chart = drawing("svg", { width, height: 125, viewBox: `0 0 ${width} 125`, role: "img", "aria-labelledby": "scores-title score-legend" });
  chart.append(
    drawing("line", { x1: x(0), x2: x(0), y1: 5, y2: 105 }),
    drawing("text", { x: x(start), y: 120 }, `${start.toFixed(1)} s`),
    drawing("text", { x: x(0) + (x(0) > width / 2 ? -3 : 3), y: 15, "text-anchor": x(0) > width / 2 ? "end" : "start" }, "alert"),
    drawing("text", { x: x(end), y: 120, "text-anchor": "end" }, `${end.toFixed(1)} s`),
  );
  if (alert.threshold !== null) {
    const level = y(alert.threshold);
    chart.append(drawing("line", { x1: 5, x2: width - 5, y1: level, y2: level, "stroke-dasharray": 4 }));
  }
  const counts = new Map();
  for (const head of heads) {
    counts.set(head.what, (counts.get(head.what) ?? 0) + 1);
    const title = drawing("title", {}, `${head.what}, score ${head.score.toFixed(2)}, ${head.offset.toFixed(1)} s`);
    const [left, top] = [x(head.offset), y(head.score)];
    const mark =
      head.what === alert.what
        ? drawing("circle", { cx: left, cy: top, r: 4, class: "same" })
        : drawing("rect", { x: left - 3, y: top - 3, width: 6, height: 6, class: "other" });
    mark.append(title);
    chart.append(mark);
  }
  byId("score-chart").replaceChildren(chart);
  const words = [...counts].map(([what, count]) => {
    const made = element("span", `${what} in ${count} ${count === 1 ? "frame" : "frames"}`);
    made.dataset.kind = what === alert.what ? "same" : "other";
    return made;
  });
  if (alert.threshold !== null) words.push(element("span", "Dashed: the alarm threshold now"));
  byId("score-legend").replaceChildren(...words);
}

function showCauses(alert) {
  const { [alert.class]: _, ...others } = causes;
  const focused = document.activeElement?.dataset.cause;
  const buttons = Object.entries(others).map(([cause, text], index) => {
    const button = element("button", `${text} `);
    button.type = "button";
    button.dataset.cause = cause;
    button.ariaPressed = alert.actual === cause;
    button.append(element("kbd", String(index + 1)));
    button.addEventListener("click", () => chooseCause(cause));
    return button;
  });
  byId("cause").replaceChildren(element("span", "It was"), ...buttons);
  buttons.find((button) => button.dataset.cause === focused)?.focus();
}

function chooseCause(cause) {
  if (cause) decide(({ verdict, actual }) => verdict === "false_alarm" && { actual: actual === cause ? null : cause });
}

function problem(error) {
  byId("problem").textContent = error?.message ?? "";
  byId("problem").hidden = !error;
  isUnanswered = error?.isUnanswered === true;
}

async function follow() {
  const id = idInAddress();
  document.body.classList.toggle("with-detail", id !== "");
  byId("detail").hidden = id === "";
  for (const item of byId("alerts").children) item.querySelector("a").ariaCurrent = item.dataset.id === id ? "true" : null;
  problem(null);
  isDue = false;
  neighbours = [];
  if (id === "") {
    byId("alerts").querySelector(`[data-id="${shown?.id}"] a`)?.focus(); // where the list was left
    shown = null;
    showClip(null);
    return;
  }
  try {
    showDetail(await ask(`api/alerts/${encodeURIComponent(id)}`));
    byId("detail").focus({ preventScroll: true });
    byId("alerts").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  } catch (error) {
    isDue = error.isUnanswered === true;
    byId("what").textContent = isDue ? error.message : "There is no such alert, or it was deleted.";
    for (const part of ["image", "no-image", "decide", "scores"]) byId(part).hidden = true;
    showClip(null);
    for (const part of ["decided", "facts", "events", "model"]) byId(part).replaceChildren();
    shown = null;
  }
}

let pending = Promise.resolve();

// change: returns what changes for the alert as it is after the decisions before; false for nothing
function decide(change) {
  if (shown === null || !isOperator) return;
  const { id } = shown;
  const comment = byId("comment").value;
  pending = pending.then(() => send(id, comment, change));
}

async function send(id, comment, change) {
  const { verdict, verdict_id: replaces, actual, acknowledged } = latest.get(id);
  const changed = change(latest.get(id));
  if (!changed) return;
  try {
    const decision = { verdict, actual, acknowledged, comment, replaces, ...changed };
    const decided = await ask(`api/alerts/${id}/verdict`, decision);
    latest.set(id, decided);
    if (drafts.getItem(id) === comment) drafts.removeItem(id);
    if (idInAddress() === id) showDetail(decided);
    problem(null);
    newest = newest.map((alert) => (alert.id === id ? { ...alert, ...decided } : alert));
    older = older.map((alert) => (alert.id === id ? { ...alert, ...decided } : alert));
    showList();
    page(null).catch(problem); // the precision
  } catch (error) {
    problem(error);
  }
}

// pressed again, a button takes back what it did
const toggle = (wanted) => decide(({ verdict }) => ({ verdict: verdict === wanted ? null : wanted, actual: null }));
const confirm_ = () => toggle("confirmed");
const falseAlarm = () => toggle("false_alarm");
const acknowledge = () =>
  decide(({ verdict, acknowledged }) => ({ verdict: null, actual: null, acknowledged: verdict === null && !acknowledged }));

function findNeighbours() {
  const ids = [...byId("alerts").children].map((item) => item.dataset.id);
  const index = ids.indexOf(idInAddress());
  if (index !== -1) neighbours = [ids[index - 1], ids[index + 1]];
}

function step(forward) {
  findNeighbours();
  const wanted = neighbours.length ? neighbours[forward ? 1 : 0] : byId("alerts").firstElementChild?.dataset.id;
  if (wanted) location.hash = wanted;
}

const KEYS = {
  ArrowDown: () => step(true),
  ArrowUp: () => step(false),
  Escape: () => (location.hash = ""),
  c: confirm_,
  f: falseAlarm,
  a: acknowledge,
};
for (let n = 1; n <= 9; n++) KEYS[n] = () => chooseCause(byId("cause").querySelectorAll("button")[n - 1]?.dataset.cause);

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, textarea");
  if (event.key.length === 1 && !letters.checked) return;
  if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in KEYS) || (isTyping && event.key !== "Escape")) return;
  event.preventDefault();
  if (isTyping) event.target.blur();
  else KEYS[event.key]();
});
byId("comment").addEventListener("input", () => shown && drafts.setItem(shown.id, byId("comment").value));
letters.checked = localStorage.getItem("letters") !== "off";
letters.addEventListener("change", () => localStorage.setItem("letters", letters.checked ? "on" : "off"));
byId("previous").addEventListener("click", () => step(false));
byId("next").addEventListener("click", () => step(true));
filters.addEventListener("change", () => {
  older = newest = [];
  refresh().catch(problem);
});
filters.addEventListener("submit", (event) => event.preventDefault());
byId("older").addEventListener("click", () => showOlder().catch(problem));
byId("confirm").addEventListener("click", confirm_);
byId("false-alarm").addEventListener("click", falseAlarm);
byId("acknowledge").addEventListener("click", acknowledge);
byId("save").addEventListener("click", () => decide(() => ({})));
byId("clip").addEventListener("ended", () => byId("clip").load()); // back to the snapshot
byId("clip").addEventListener("error", () => (byId("clip").hidden = true));
byId("show-frame").addEventListener("click", () => {
  byId("clip").pause();
  byId("clip").hidden = true;
  byId("image").src = `alerts/${shown.id}/frame.jpg`;
  byId("show-frame").hidden = true;
});
window.addEventListener("hashchange", follow);
repeat(refresh, 3000, (error) => say("precision", `The alerts cannot be read: ${error.message}`));
