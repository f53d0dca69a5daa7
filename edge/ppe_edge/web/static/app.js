"use strict";
// The live view.

function state(text) {
  const made = element("span", text, "state");
  made.dataset.state = text;
  return made;
}

function figure(name) {
  const made = element("figure");
  const image = element("img");
  image.alt = `Camera ${name}`;
  image.width = 640;
  image.height = 360;
  const placeholder = element("p", "no image", "no-image");
  const show = (available) => {
    image.hidden = !available;
    placeholder.hidden = available;
  };
  image.onload = () => show(true);
  image.onerror = () => show(false);
  show(false); // a browser shows a broken image until there is one
  made.append(image, placeholder, element("figcaption"));
  made.dataset.name = name;
  return made;
}

function showCamera(made, camera) {
  const caption = made.querySelector("figcaption");
  const details = [`${camera.frames} frames`, `${camera.dropped} dropped`];
  if (camera.rate !== null) details.push(`${camera.rate.toFixed(1)} per s`);
  if (camera.age !== null) details.push(`${camera.age.toFixed(1)} s ago`);
  if (camera.score_drift !== null) details.push(`score drift ${camera.score_drift.toFixed(2)}`);
  if (camera.reconnects) details.push(`reconnects: ${camera.reconnects}`);
  caption.replaceChildren(element("span", camera.name, "name"), state(camera.state));
  if (camera.violations) caption.append(element("span", `${camera.violations} ${camera.violations === 1 ? "violation" : "violations"}`, "violation"));
  const slow = camera.rate < camera.required_rate ? `too slow, ${camera.required_rate.toFixed(1)} frames per s needed` : "decoding too slow";
  if (camera.slow) caption.append(element("span", slow, "violation"));
  if (camera.view_fault !== null) caption.append(element("span", camera.view_fault, "violation"));
  caption.append(element("span", details.join(", "), "quiet"));
  const image = made.querySelector("img");
  const number = String(camera.number);
  // requested only when the last image has arrived, so that a slow line is not flooded, or will not arrive any more
  const isFree = image.complete || Date.now() - image.dataset.asked > 3 * PATIENCE;
  if (camera.number !== null && image.dataset.number !== number && isFree) {
    [image.dataset.number, image.dataset.asked] = [number, Date.now()];
    image.src = `cameras/${encodeURIComponent(camera.name)}/live.jpg?n=${number}`;
  }
}

function showCameras(cameras) {
  const grid = byId("cameras");
  const shown = new Map([...grid.children].map((f) => [f.dataset.name, f]));
  for (const camera of cameras) {
    if (!shown.has(camera.name)) {
      shown.set(camera.name, figure(camera.name));
      grid.append(shown.get(camera.name));
    }
    showCamera(shown.get(camera.name), camera);
  }
  const names = new Set(cameras.map((c) => c.name));
  for (const [name, made] of shown) if (!names.has(name)) made.remove();
}

function alertRow(alert) {
  const row = element("tr");
  const what = element("td", alert.alert === null ? alert.what : "");
  if (alert.alert !== null) {
    const link = element("a", alert.what);
    link.href = `alerts.html#${alert.alert}`;
    what.append(link);
  }
  row.append(
    element("td", when(alert.time)),
    element("td", alert.zone === null ? alert.camera : `${alert.camera} / ${alert.zone}`),
    what,
    element("td", alert.score === null ? "" : alert.score.toFixed(2)),
    element("td", alert.duration === null ? "" : `${alert.duration.toFixed(1)} s`),
  );
  return row;
}

function sinkRow(sink) {
  const row = element("li");
  row.append(element("span", `${sink.name} `, "name"), element("span", `${sink.waiting} waiting`, "quiet"));
  if (sink.set_aside) row.append(element("span", `, ${sink.set_aside} not accepted and set aside`, "violation"));
  if (sink.error) row.append(element("div", sink.error, "violation"));
  return row;
}

function duration(seconds) {
  for (const [unit, length] of [["days", 86400], ["hours", 3600], ["minutes", 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${Math.round(seconds)} seconds`;
}

function showSystem(box) {
  const zone = box.time_zone === null ? "UTC" : timeZone;
  const facts = {
    Model: `${box.model.name} (${box.model.sha256.slice(0, 12)})`,
    "Runs on": box.model.provider,
    Software: `ppe_edge ${box.version}`,
    Clock: `${new Date(box.time * 1000).toLocaleString([], { timeZone: zone })} (${zone ?? "time zone of the browser"})`,
    "Running for": duration(box.uptime),
    "Peak memory": `${Math.round(box.memory / 1e6)} MB`,
  };
  byId("system").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function showContact(text, isLost) {
  say("summary", text);
  byId("summary").classList.toggle("violation", isLost);
  byId("cameras").classList.toggle("old", isLost); // an old image must not pass for a live one
  if (isLost) for (const each of document.querySelectorAll("#cameras .state")) each.replaceWith(state("unknown"));
}

let shownRowsOfAlerts = "";

async function refresh() {
  let box;
  try {
    box = await ask("api/state");
  } catch ({ message }) {
    showContact(`${message} Everything below is as it was before.`, true);
    return;
  }
  timeZone = usableZone(box.time_zone);
  const live = box.cameras.filter((camera) => camera.state === "live").length;
  showCameras(box.cameras);
  showContact(`${live} of ${box.cameras.length} ${box.cameras.length === 1 ? "camera" : "cameras"} live, ${box.model.name}`, false);
  showSystem(box);
  say("trouble", box.trouble);
  byId("trouble").hidden = box.trouble === "";
  const rows = JSON.stringify([box.alerts, box.alerts.map(({ time }) => when(time))]); // after midnight, they need their date
  if (rows !== shownRowsOfAlerts) byId("alerts").replaceChildren(...box.alerts.map(alertRow)); // else a link would lose its focus
  shownRowsOfAlerts = rows;
  byId("no-alerts").hidden = box.alerts.length > 0;
  byId("sinks").replaceChildren(...box.sinks.map(sinkRow));
}

repeat(refresh, 700, ({ message }) => showContact(`This browser cannot show the state of the box: ${message}`, false));
