"use strict";
// The chart of compliance: a bar per period, the share of tracked people without violation.

const BAR = 28;
const HEIGHT = 120;
let shownRows = [];
let shownStart = "";

function chosen(id) {
  return byId(id).value;
}

function offerNames(id, names) {
  offer(byId(id), Object.fromEntries(names.map((name) => [name, name])));
}

function percent(compliant, violations) {
  return `${((100 * compliant) / (compliant + violations)).toFixed(1)} %`;
}

function showChart() {
  const rows = shownRows.filter(
    (row) =>
      (chosen("rule") === "all" || row.rule === chosen("rule")) && (chosen("camera") === "all" || row.camera === chosen("camera")),
  );
  const periods = new Map();
  let [compliant, violations] = [0, 0];
  for (const row of rows) {
    const period = periods.get(row.start) ?? { label: row.label, compliant: 0, violations: 0 };
    period.compliant += row.compliant;
    period.violations += row.violations;
    compliant += row.compliant;
    violations += row.violations;
    periods.set(row.start, period);
  }
  const rules = new Set(rows.map((row) => row.rule));
  const figures = `Since ${shownStart}: ${compliant} compliant, ${violations} with violation, ${percent(compliant, violations)} compliance`;
  const note = rules.size > 1 ? ". Each person counts once per rule" : "";
  say("compliance-summary", periods.size === 0 ? "nobody was seen yet" : figures + note);
  const width = periods.size * BAR + 60; // labels lean to the right
  const chart = drawing("svg", { width, height: HEIGHT + 70, role: "img", "aria-labelledby": "compliance-summary" });
  [...periods.values()].forEach((period, index) => {
    const share = period.compliant / (period.compliant + period.violations);
    const bar = drawing("g", {});
    const good = Math.round(HEIGHT * share);
    const x = index * BAR + 3;
    const words = `${period.label}: ${period.compliant} compliant, ${period.violations} with violation`;
    bar.append(
      drawing("title", {}, words),
      drawing("rect", { x, y: HEIGHT - good, width: BAR - 6, height: good, class: "compliant" }),
      drawing("rect", { x, y: 0, width: BAR - 6, height: HEIGHT - good, class: "violations" }),
      drawing("text", { x: 0, y: 0, transform: `translate(${x + 4},${HEIGHT + 4}) rotate(60)` }, period.label),
    );
    chart.append(bar);
  });
  const place = byId("chart");
  const isAtEnd = place.scrollLeft + place.clientWidth >= place.scrollWidth - 1;
  place.replaceChildren(...(periods.size ? [chart] : []));
  if (isAtEnd) place.scrollLeft = place.scrollWidth; // the latest periods
  byId("chart-legend").hidden = periods.size === 0;
}

async function refreshCompliance() {
  const query = `?unit=${chosen("unit")}`;
  byId("csv").href = `compliance.csv${query}`;
  byId("report").href = `compliance.html${query}`;
  const { rows, shifts, start } = await ask(`api/compliance${query}`);
  offerNames("unit", shifts.length ? ["hour", "shift", "day", "week"] : ["hour", "day", "week"]);
  [shownRows, shownStart] = [rows, start];
  offerNames("rule", ["all", ...new Set(rows.map((row) => row.rule))].sort());
  offerNames("camera", ["all", ...new Set(rows.map((row) => row.camera))].sort());
  showChart();
}

async function keepRefreshingCompliance() {
  try {
    await refreshCompliance();
  } catch (error) {
    say("compliance-summary", `the figures cannot be read: ${error.message}`);
  }
}

byId("unit").addEventListener("change", keepRefreshingCompliance);
byId("rule").addEventListener("change", showChart);
byId("camera").addEventListener("change", showChart);
setInterval(keepRefreshingCompliance, 15000);
keepRefreshingCompliance();
