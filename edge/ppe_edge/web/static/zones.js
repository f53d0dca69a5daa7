"use strict";
// Draws the zones of a rule of a camera. Corners are fractions of width and height; nothing is in force before it is saved.

const SVG = "http://www.w3.org/2000/svg";
const STEP = 0.01; // of the frame, for the arrow keys
const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
let saved = {}; // camera -> rule -> zones
let zones = []; // what is drawn now: [{name, corners}]
let isOperator = false;
let selected = null; // [number of the zone, number of the corner]

const place = () => [byId("camera").value, byId("rule").value];
const rounded = (v) => Math.round(Math.min(1, Math.max(0, v)) * 1000) / 1000;
const copied = (corners) => corners.map(([x, y]) => [x, y]);

function load() {
  const [camera, rule] = place();
  zones = Object.entries(saved[camera]?.[rule] ?? {}).map(([name, corners]) => ({ name, corners: copied(corners) }));
  selected = null;
  problem("");
  showFrame();
  show();
}

function drawn() {
  return Object.fromEntries(zones.map(({ name, corners }) => [name.trim(), corners]));
}

function isChanged() {
  const [camera, rule] = place();
  return JSON.stringify(drawn()) !== JSON.stringify(saved[camera]?.[rule] ?? {}) || Object.keys(drawn()).length < zones.length;
}

function showFrame() {
  const image = byId("frame");
  const address = `cameras/${encodeURIComponent(byId("camera").value)}/live.jpg`;
  image.src = `${address}?t=${Date.now()}`;
}

function handle(zone, corner, [x, y], isMiddle) {
  const made = element("button", "", isMiddle ? "handle middle" : "handle");
  made.type = "button";
  made.style.left = `${100 * x}%`;
  made.style.top = `${100 * y}%`;
  made.dataset.zone = zone;
  made.dataset.corner = corner;
  const where = `corner ${corner + 1} of ${zones[zone].name}`;
  made.ariaLabel = isMiddle ? `Add a corner after ${where}` : `${where}: arrow keys move it, Delete removes it`;
  made.ariaPressed = !isMiddle && selected?.[0] === zone && selected?.[1] === corner;
  return made;
}

function show() {
  byId("outlines").replaceChildren(
    ...zones.map(({ corners }, index) => {
      const outline = document.createElementNS(SVG, "polygon");
      outline.setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));
      outline.dataset.color = index % 4;
      return outline;
    }),
  );
  const handles = [];
  if (isOperator) {
    zones.forEach(({ corners }, zone) =>
      corners.forEach(([x, y], corner) => {
        const [nextX, nextY] = corners[(corner + 1) % corners.length];
        handles.push(handle(zone, corner, [x, y], false));
        handles.push(handle(zone, corner, [(x + nextX) / 2, (y + nextY) / 2], true));
      }),
    );
  }
  byId("handles").replaceChildren(...handles);
  byId("none").hidden = zones.length > 0;
  byId("edit").hidden = !isOperator;
  byId("hint").textContent = isOperator
    ? "A head counts if the centre of its box lies in a zone: draw around heads, not feet. Drag corners, or choose one and use the " +
      "arrow keys; the small circles add corners."
    : "Sign in with the token of operators to draw zones.";
  showButtons();
}

function showNames() {
  byId("zones").replaceChildren(
    ...zones.map((zone, index) => {
      const item = element("li", "", "buttons");
      const name = element("input");
      name.value = zone.name;
      name.maxLength = 60;
      name.disabled = !isOperator;
      name.ariaLabel = "Name of the zone";
      name.dataset.color = index % 4;
      name.addEventListener("input", () => {
        zone.name = name.value;
        showButtons();
      });
      item.append(name);
      if (isOperator) {
        const remove = element("button", "Delete");
        remove.type = "button";
        remove.ariaLabel = `Delete zone ${zone.name}`;
        remove.addEventListener("click", () => {
          zones.splice(index, 1);
          selected = null;
          show();
          showNames();
        });
        item.append(remove);
      }
      return item;
    }),
  );
}

function showButtons() {
  const changed = isChanged();
  byId("save").disabled = byId("discard").disabled = !changed;
  byId("undo").disabled = byId("camera").disabled = byId("rule").disabled = changed; // unsaved changes are not lost by accident
  byId("remove-corner").disabled = selected === null || zones[selected[0]].corners.length <= 3;
  const [camera, rule] = place();
  const lines = ["cameras:", `  ${camera}:`];
  lines.push(...(isOnlyRule() ? ["    rule:"] : ["    rules:", `      ${rule}:`]));
  const indent = isOnlyRule() ? "      " : "        ";
  lines.push(zones.length ? `${indent}zones:` : `${indent}zones: {}`);
  for (const [name, corners] of Object.entries(drawn())) lines.push(`${indent}  ${JSON.stringify(name)}: ${JSON.stringify(corners)}`);
  byId("yaml").textContent = lines.join("\n");
}

function isOnlyRule() {
  return Object.keys(saved[place()[0]] ?? {}).join() === "default";
}

function select(zone, corner) {
  selected = [zone, corner];
  show();
  byId("handles").querySelector('[aria-pressed="true"]').focus({ preventScroll: true });
}

function move(zone, corner, [x, y]) {
  zones[zone].corners[corner] = [rounded(x), rounded(y)];
}

function removeCorner() {
  if (selected === null || zones[selected[0]].corners.length <= 3) return;
  zones[selected[0]].corners.splice(selected[1], 1);
  selected = null;
  show();
}

function problem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = text === "";
  byId("done").textContent = "";
}

async function change(address, body, done) {
  try {
    accept(await ask(address, body));
    byId("done").textContent = done;
  } catch (error) {
    problem(error.message);
  }
}

function accept(answer) {
  saved = answer.zones;
  isOperator = answer.role === "operator";
  offer(byId("camera"), Object.fromEntries(Object.keys(saved).map((name) => [name, name])));
  offer(byId("rule"), Object.fromEntries(Object.keys(saved[byId("camera").value]).map((name) => [name, name])));
  load();
  showNames();
}

byId("handles").addEventListener("pointerdown", (event) => {
  const target = event.target.closest(".handle");
  if (target === null) return;
  event.preventDefault();
  const [zone, corner] = [Number(target.dataset.zone), Number(target.dataset.corner)];
  const container = byId("handles"); // unlike the handles, it stays while the drawing changes
  const frame = container.getBoundingClientRect();
  const at = ({ clientX, clientY }) => [(clientX - frame.left) / frame.width, (clientY - frame.top) / frame.height];
  const isMiddle = target.classList.contains("middle");
  if (isMiddle) zones[zone].corners.splice(corner + 1, 0, at(event).map(rounded));
  const moved = isMiddle ? corner + 1 : corner;
  select(zone, moved);
  const follow = (pointer) => {
    move(zone, moved, at(pointer));
    show();
  };
  const stop = () => {
    container.removeEventListener("pointermove", follow);
    container.querySelector('[aria-pressed="true"]')?.focus({ preventScroll: true });
  };
  container.setPointerCapture(event.pointerId);
  container.addEventListener("pointermove", follow);
  container.addEventListener("lostpointercapture", stop, { once: true });
});
byId("handles").addEventListener("keydown", (event) => {
  const target = event.target.closest(".handle");
  if (target === null) return;
  const [zone, corner] = [Number(target.dataset.zone), Number(target.dataset.corner)];
  if (target.classList.contains("middle")) {
    if (event.key !== "Enter" && event.key !== " ") return;
    const [a, b] = [zones[zone].corners[corner], zones[zone].corners[(corner + 1) % zones[zone].corners.length]];
    zones[zone].corners.splice(corner + 1, 0, [rounded((a[0] + b[0]) / 2), rounded((a[1] + b[1]) / 2)]);
    select(zone, corner + 1);
  } else if (event.key in MOVES) {
    const [x, y] = zones[zone].corners[corner];
    move(zone, corner, [x + MOVES[event.key][0], y + MOVES[event.key][1]]);
    select(zone, corner);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    selected = [zone, corner];
    removeCorner();
  } else {
    return;
  }
  event.preventDefault();
});
byId("handles").addEventListener("focusin", (event) => {
  const target = event.target.closest(".handle:not(.middle)");
  if (target === null) return;
  selected = [Number(target.dataset.zone), Number(target.dataset.corner)];
  for (const each of byId("handles").children) each.ariaPressed = each === target;
  showButtons();
});
byId("add").addEventListener("click", () => {
  let number = zones.length + 1;
  while (zones.some(({ name }) => name === `zone ${number}`)) number += 1;
  zones.push({ name: `zone ${number}`, corners: [[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]] });
  showNames();
  select(zones.length - 1, 0);
});
byId("remove-corner").addEventListener("click", removeCorner);
byId("save").addEventListener("click", () => {
  const [camera, rule] = place();
  const names = zones.map(({ name }) => name.trim());
  if (names.includes("") || new Set(names).size < names.length) problem("Give each zone a name of its own.");
  else change("api/zones", { camera, rule, zones: drawn() }, "Saved: the zones are in force.");
});
byId("discard").addEventListener("click", () => {
  load();
  showNames();
});
byId("undo").addEventListener("click", () => change("api/zones/undo", {}, "The last change is taken back."));
byId("place").addEventListener("change", () => accept({ zones: saved, role: isOperator ? "operator" : "viewer" }));
byId("place").addEventListener("submit", (event) => event.preventDefault());
byId("frame").addEventListener("load", () => byId("frame").parentElement.classList.add("with-frame"));
byId("frame").addEventListener("error", () => byId("frame").parentElement.classList.remove("with-frame"));
ask("api/zones").then(accept, (error) => problem(error.message));
