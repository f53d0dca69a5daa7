"use strict";
// Changes the rules of a camera. Nothing is in force before it is saved; the box checks it as it checks edge.yaml.

// kinds: a class of the model, one of a few words, a number, lines of text, chosen classes
const FIELDS = [
  { name: "violation_class", label: "Violation", kind: "class" },
  { name: "severity", label: "Severity", kind: "choice" },
  { name: "schedule", label: "Schedule, one entry per line", kind: "lines", example: "Mon-Fri 06:00-18:00\nSat,Sun 08:00-12:00" },
  { name: "exceptions", label: "Exceptions, one date per line", kind: "dates", example: "2026-12-24 off\n2026-12-31 08:00-12:00, 13:00-17:00" },
  { name: "alarm_threshold", label: "Alarm threshold", kind: "number", step: 0.01 },
  { name: "cooldown_s", label: "Cool-down, seconds", kind: "number", step: 1 },
  { group: "Association with other objects" },
  { name: "inside", label: "Only inside or near", kind: "class", empty: "anywhere" },
  { name: "without", label: "Only if missing", kind: "class", empty: "not required" },
  { name: "worn_at", label: "Worn at", kind: "choice" },
  { name: "compliant_classes", label: "Compliant classes", kind: "classes" },
  { group: "Time until an alert" },
  { name: "seconds", label: "Window, seconds", kind: "number", step: 0.1 },
  { name: "frames", label: "Frames with a violation", kind: "number", step: 1 },
  { name: "of", label: "Out of (frames)", kind: "number", step: 1 },
  { name: "hysteresis", label: "Hysteresis", kind: "number", step: 0.05 },
];
const NAMES = [...FIELDS.flatMap(({ name }) => name ?? []), "zones"];
let box = { cameras: {} }; // the latest answer of the box
let loaded = ""; // what the form gives before anything is changed
let added = null; // name of a rule that is not saved yet

const place = () => [byId("camera").value, byId("rule").value];
const input = (name) => byId("settings").elements[name];
const rulesOf = (camera) => box.cameras[camera]?.rules ?? {};
const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

function savedSettings() {
  const [camera, rule] = place();
  return rulesOf(camera)[rule] ?? box.cameras[camera]?.new ?? {};
}

function field({ name, label, kind, empty, step, example }) {
  const made = element(kind === "classes" ? "fieldset" : "div", "", "field");
  const title = element(kind === "classes" ? "legend" : "label", `${label} `);
  title.append(element("code", name));
  const hint = element("p", box.help[name].replaceAll("`", ""), "quiet");
  if (kind === "lines") hint.textContent += box.time_zone ? ` Time zone: ${box.time_zone}.` : " Set site.time_zone in edge.yaml before using a schedule.";
  const refusal = element("p", "", "violation");
  [hint.id, refusal.id, refusal.role, refusal.hidden] = [`${name}-hint`, `${name}-problem`, "alert", true];
  made.append(title);
  if (kind === "classes") {
    for (const value of ["", ...Object.keys(box.classes)]) {
      const option = element("label", "", "check");
      const check = element("input");
      [check.type, check.name, check.value] = ["checkbox", name, value];
      option.append(check, value === "" ? "automatic" : box.classes[value]);
      made.append(option);
    }
    made.setAttribute("aria-describedby", `${hint.id} ${refusal.id}`);
  } else {
    const control = element({ lines: "textarea", dates: "textarea", number: "input" }[kind] ?? "select");
    control.id = control.name = name;
    title.htmlFor = name;
    control.setAttribute("aria-describedby", `${hint.id} ${refusal.id}`);
    if (kind === "number") [control.type, control.step, control.inputMode] = ["number", step, "decimal"];
    if (example) [control.rows, control.placeholder, control.spellcheck] = [2, example, false];
    if (kind === "choice") offer(control, Object.fromEntries(box.options[name].map((value) => [value, value])));
    if (kind === "class") offer(control, { ...(empty && { "": empty }), ...box.classes });
    made.append(control);
  }
  made.append(refusal, hint);
  return made;
}

function buildForm() {
  let parent = element("fieldset", "", "plain");
  byId("settings").replaceChildren(parent);
  const all = parent;
  for (const each of FIELDS) {
    if (each.group) {
      parent = element("details");
      parent.append(element("summary", each.group));
      all.append(parent);
    } else {
      parent.append(field(each));
    }
  }
  all.disabled = !isOperator;
}

function write(settings) {
  for (const { name, kind } of FIELDS) {
    const value = settings[name];
    if (kind === "classes") {
      for (const check of input(name)) check.checked = check.value === "" ? value === null : (value ?? []).includes(check.value);
    } else if (kind === "dates") {
      input(name).value = Object.entries(value).flatMap(([day, times]) => (times.length ? times : ["off"]).map((time) => `${day} ${time}`)).join("\n");
    } else if (name) {
      input(name).value = kind === "lines" ? (value ?? []).join("\n") : (value ?? "");
    }
  }
  const threshold = box.thresholds[settings.violation_class];
  input("alarm_threshold").placeholder = threshold === undefined ? "" : `${threshold.toFixed(2)}, of the model`;
}

function dates(text) {
  const days = {};
  for (const line of lines(text)) {
    const [, day, times] = line.match(/^(\S+?)[,:]*(?:\s+(.*))?$/);
    days[day] = [...(days[day] ?? []), ...(times ?? "").split(",").map((time) => time.trim())];
  }
  for (const [day, times] of Object.entries(days)) {
    if (times.every((time) => time === "off")) days[day] = []; // the box refuses it next to times
  }
  return days;
}

function read() {
  const settings = { ...savedSettings() };
  for (const { name, kind } of FIELDS) {
    if (kind === "classes") {
      const [automatic, ...classes] = input(name);
      settings[name] = automatic.checked ? null : classes.filter((check) => check.checked).map((check) => check.value);
    } else if (kind === "number") {
      settings[name] = input(name).value === "" ? null : Number(input(name).value);
    } else if (kind === "lines") {
      settings[name] = lines(input(name).value).length ? lines(input(name).value) : null;
    } else if (kind === "dates") {
      settings[name] = dates(input(name).value);
    } else if (name) {
      settings[name] = input(name).value || null;
    }
  }
  settings.zones = drawn();
  return settings;
}

function load() {
  problem("");
  const settings = savedSettings();
  write(settings);
  drawZones(settings.zones);
  loaded = JSON.stringify(read());
  showChange();
  const address = `cameras/${encodeURIComponent(byId("camera").value)}/live.jpg`;
  byId("frame").src = `${address}?t=${Date.now()}`;
}

function isChanged() {
  return added !== null || unreadable() !== undefined || JSON.stringify(read()) !== loaded || Object.keys(drawn()).length < zones.length;
}

function unreadable() {
  // a number that the browser cannot read, such as 1e: its value is empty
  return FIELDS.find(({ name, kind }) => kind === "number" && input(name).validity.badInput)?.name;
}

function showChange() {
  const changed = isChanged();
  byId("save").disabled = byId("discard").disabled = !changed;
  byId("undo").disabled = changed || box.latest_change === 0;
  const [camera, rule] = place();
  byId("camera").disabled = byId("rule").disabled = byId("add-rule").disabled = changed; // unsaved changes are not lost by accident
  byId("remove-rule").disabled = changed || Object.keys(rulesOf(camera)).length < 2;
  byId("remove-corner").disabled = selected === null || zones[selected[0]].corners.length <= 3;
  for (const check of [...input("compliant_classes")].slice(1)) check.disabled = input("compliant_classes")[0].checked;
  const known = Object.entries(knownZones()).filter(([name]) => !(name in drawn()));
  offer(byId("known"), { "": "a known zone", ...Object.fromEntries(known.map(([name]) => [name, name])) });
  byId("known-label").hidden = known.length === 0;
  byId("yaml").textContent = yaml(camera, rule);
}

function knownZones() {
  // those of the camera, and of its other rules
  const [camera] = place();
  const rules = Object.values(rulesOf(camera)).map(({ zones }) => zones);
  return Object.assign({}, ...rules.reverse(), box.cameras[camera]?.zones);
}

function yaml(camera, rule) {
  const isNamed = Object.keys({ ...rulesOf(camera), [rule]: 0 }).join() !== "default";
  const text = ["cameras:", `  ${camera}:`, ...(isNamed ? ["    rules:", `      ${rule}:`] : ["    rule:"])];
  const indent = isNamed ? "        " : "      ";
  const general = box.cameras[camera]?.new ?? {};
  const settings = read();
  for (const name of NAMES) {
    if (name !== "zones" && JSON.stringify(settings[name]) !== JSON.stringify(general[name])) {
      text.push(`${indent}${name}: ${JSON.stringify(settings[name])}`);
    }
  }
  text.push(zones.length ? `${indent}zones:` : `${indent}zones: {}`);
  for (const [name, corners] of Object.entries(drawn())) text.push(`${indent}  ${JSON.stringify(name)}: ${JSON.stringify(corners)}`);
  return text.join("\n");
}

function problem(text, setting) {
  const name = NAMES.includes(setting) ? setting : null;
  for (const each of [...NAMES.map((n) => `${n}-problem`), "problem"]) {
    byId(each).textContent = "";
    byId(each).hidden = true;
  }
  for (const each of NAMES) input(each)?.removeAttribute?.("aria-invalid");
  byId("done").textContent = "";
  if (text === "") return;
  const shown = byId(name ? `${name}-problem` : "problem");
  shown.textContent = text;
  shown.hidden = false;
  const details = shown.closest("details");
  if (details) details.open = true;
  input(name)?.setAttribute?.("aria-invalid", "true");
  input(name)?.focus?.();
  shown.scrollIntoView({ block: "nearest" });
}

async function change(address, body, done) {
  problem("");
  byId("done").textContent = "Saving…";
  for (const id of ["save", "discard", "undo", "remove-rule"]) byId(id).disabled = true; // a second click would undo two changes
  try {
    const answer = await ask(address, body);
    added = null;
    accept(answer);
    byId("done").textContent = done;
  } catch (error) {
    showChange();
    problem(error.message, error.setting);
  }
}

function accept(answer) {
  box = answer;
  isOperator = answer.role === "operator";
  byId("manage").hidden = byId("decide").hidden = !isOperator;
  buildForm();
  choose(byId("rule").value);
}

function choose(rule) {
  const names = (object) => Object.fromEntries(Object.keys(object).map((name) => [name, name]));
  offer(byId("camera"), names(box.cameras));
  offer(byId("rule"), { ...names(rulesOf(byId("camera").value)), ...(added && { [added]: `${added} (new)` }) });
  if ([...byId("rule").options].some(({ value }) => value === rule)) byId("rule").value = rule;
  load();
}

function askName(isNaming) {
  byId("naming").hidden = !isNaming;
  byId("place").hidden = isNaming;
  byId("new-name").value = "";
  byId(isNaming ? "new-name" : "add-rule").focus();
}

byId("settings").addEventListener("input", () => showChange());
byId("settings").addEventListener("submit", (event) => event.preventDefault());
byId("place").addEventListener("change", () => choose(byId("rule").value));
byId("place").addEventListener("submit", (event) => event.preventDefault());
byId("known").addEventListener("change", () => {
  const chosen = byId("known").value;
  if (chosen) addZone(chosen, knownZones()[chosen]);
});
byId("add-rule").addEventListener("click", () => askName(true));
byId("cancel").addEventListener("click", () => askName(false));
byId("naming").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = byId("new-name").value.trim();
  if (wanted === "") return;
  askName(false);
  if (!(wanted in rulesOf(byId("camera").value))) added = wanted;
  choose(wanted);
  input("violation_class").focus();
});
byId("remove-rule").addEventListener("click", () => {
  const [camera, rule] = place();
  change("api/rules/remove", { camera, rule, before: rulesOf(camera)[rule] }, `The rule ${rule} is removed.`);
});
byId("save").addEventListener("click", () => {
  const [camera, rule] = place();
  const refusal = zonesProblem();
  if (unreadable()) problem("The browser cannot read this number: write it as 0.7.", unreadable());
  else if (refusal) problem(refusal, "zones");
  else change("api/rules", { camera, rule, settings: read(), before: rulesOf(camera)[rule] ?? {} }, "Saved: the rule is in force.");
});
byId("discard").addEventListener("click", () => {
  added = null;
  ask("api/rules").then(accept, (error) => problem(error.message)); // others may have changed them
});
byId("undo").addEventListener("click", () => change("api/rules/undo", { change: box.latest_change }, "The last change was undone."));
window.addEventListener("beforeunload", (event) => byId("discard").disabled || event.preventDefault()); // the browser asks first
ask("api/rules").then(accept, (error) => {
  byId("problem").textContent = error.message;
  byId("problem").hidden = false;
});
