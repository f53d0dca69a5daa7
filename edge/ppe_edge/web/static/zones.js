"use strict";
// Draws the zones of a rule. Corners are fractions of width and height.

const STEP = 0.01; // of the frame, for the arrow keys
const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
const SQUARE = [[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]];
let zones = []; // what is drawn now: [{name, corners}]
let selected = null; // [number of the zone, number of the corner]
let isOperator = false;

const rounded = (v) => Math.round(Math.min(1, Math.max(0, v)) * 1000) / 1000;
const copied = (corners) => corners.map(([x, y]) => [x, y]);

function drawn() {
  return Object.fromEntries(zones.map(({ name, corners }) => [name.trim(), corners]));
}

function drawZones(wanted) {
  zones = Object.entries(wanted).map(([name, corners]) => ({ name, corners: copied(corners) }));
  selected = null;
  show();
  showNames();
}

function addZone(name, corners) {
  zones.push({ name, corners: copied(corners) });
  showNames();
  select(zones.length - 1, 0);
}

function zonesProblem() {
  const names = zones.map(({ name }) => name.trim());
  return names.includes("") || new Set(names).size < names.length ? "Give each zone a unique name." : "";
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
      const outline = drawing("polygon", { points: corners.map((corner) => corner.join(",")).join(" ") });
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
    : "Sign in with the token of operators to change rules and draw zones.";
  showChange();
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
        showChange();
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
  showChange();
});
byId("add").addEventListener("click", () => {
  let number = zones.length + 1;
  while (zones.some(({ name }) => name === `zone ${number}`)) number += 1;
  addZone(`zone ${number}`, SQUARE);
});
byId("remove-corner").addEventListener("click", removeCorner);
byId("frame").addEventListener("load", () => byId("frame").parentElement.classList.add("with-frame"));
byId("frame").addEventListener("error", () => byId("frame").parentElement.classList.remove("with-frame"));
