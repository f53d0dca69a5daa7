"use strict";
// Shared by all pages. Everything that comes from the box is inserted as text, never as markup.

for (const link of document.querySelectorAll("nav a")) {
  if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
}

// whoever signs in next must not see what was typed and not saved
document.querySelector("form[action=logout]")?.addEventListener("submit", () => sessionStorage.clear());

const byId = (id) => document.getElementById(id);

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

let timeZone; // that of the site, as in notifications and reports; if it has none, that of the browser

function usableZone(zone) {
  // a browser that does not know the zone would refuse to show any time
  try {
    if (zone !== null) new Intl.DateTimeFormat([], { timeZone: zone });
    return zone ?? undefined;
  } catch {
    return undefined;
  }
}

function when(seconds) {
  const time = new Date(seconds * 1000);
  const day = (each) => each.toLocaleDateString([], { timeZone });
  if (day(time) === day(new Date())) return time.toLocaleTimeString([], { timeZone });
  return time.toLocaleString([], { dateStyle: "short", timeStyle: "short", timeZone });
}

function offer(select, wanted) {
  // wanted: value -> text; the choice stays if it is still offered
  const before = select.value;
  const options = Object.entries(wanted).map(([value, text]) => {
    const option = element("option", text);
    option.value = value;
    return option;
  });
  const texts = (list) => JSON.stringify([...list].map(({ value, text }) => [value, text]));
  if (texts(select.options) === texts(options)) return;
  select.replaceChildren(...options);
  if (before in wanted) select.value = before;
}

// For texts that a screen reader reads again whenever they are set.
function say(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

const PATIENCE = 10000; // milliseconds; without it, nothing would tell that the network has gone

async function ask(address, decision) {
  // JSON marks a request as the page's own: another site's form cannot send it
  const options = decision && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(decision) };
  const signal = AbortSignal.timeout(decision ? 4 * PATIENCE : PATIENCE); // the box may wait 30 s for its cameras
  const unanswered = (message) => Object.assign(new Error(message), { isUnanswered: true });
  const [answer, text] = await fetch(address, { ...options, signal })
    .then(async (begun) => [begun, await begun.text()]) // which may stop halfway
    .catch(() => { throw unanswered("The box does not respond."); });
  if (answer.status === 401 && decision) throw new Error("You are signed out: sign in in another tab, then try again."); // keeps what was entered
  if (answer.status === 401) location.reload(); // leads to the login, and back here after it
  const kind = answer.headers.get("Content-Type") ?? "";
  if (kind.startsWith("text/html")) throw unanswered(`Something other than the box answered (status ${answer.status}).`); // a proxy
  if (!kind.startsWith("application/json")) throw new Error(text.trim());
  const value = JSON.parse(text);
  if (answer.ok) return value;
  throw Object.assign(new Error(value.message), { setting: value.setting }); // of a rule that is refused
}

function repeat(action, milliseconds, onError) {
  const again = async () => {
    try {
      if (!document.hidden) await action();
    } catch (error) {
      onError(error);
    }
    setTimeout(again, milliseconds);
  };
  again();
}

// An element of an SVG drawing.
function drawing(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}
