// What the fleet does now: tiles, charts, backends.

import { Chart } from "./charts.js";
import { byId, element, pill, table, tiles } from "./dom.js";
import { count, percent, rate, seconds } from "./format.js";

const charts = {
  requests: new Chart("Requests per second", ["all", "failed"], rate),
  tokens: new Chart("Tokens per second", ["output", "input"], rate),
  ttft: new Chart("Time to first token", ["p50", "p90", "p99"], seconds),
  itl: new Chart("Between tokens", ["p50", "p90", "p99"], seconds),
};
byId("charts").append(...Object.values(charts).map((chart) => chart.element));

export function redraw() {
  for (const chart of Object.values(charts)) chart.draw();
}

export function showOverview({ health, stats }) {
  showTiles(health, stats);
  showCharts(stats.history);
  byId("backends").replaceChildren(...Object.entries(health.backends).map(([name, backend]) => card(name, backend, stats)));
}

function showTiles(health, stats) {
  const recent = stats.last_minute, history = stats.history.slice(-7, -1);
  const span = history.reduce((sum, each) => sum + each.seconds, 0) || 1;
  const per = (name) => history.reduce((sum, each) => sum + each[name], 0) / span;
  const failed = per("failed"), all = per("total");
  const waiting = Object.values(stats.queue_depth).reduce((sum, each) => sum + each, 0);
  tiles([
    ["Requests", `${rate(all)} /s`, "in the last minute"],
    ["Failed", all ? percent(failed / all) : "–", `${count(stats.failed_requests)} of ${count(stats.total_requests)} since the start`],
    ["Under way", count(stats.active_requests), waiting ? `${count(waiting)} of them wait` : "none waits"],
    ["First token", recent.ttft.count ? seconds(recent.ttft.p50) : "–", recent.ttft.count ? `p99 ${seconds(recent.ttft.p99)}` : "no stream in the last minute"],
    ["Between tokens", recent.itl.count ? seconds(recent.itl.p50) : "–", recent.itl.count ? `p99 ${seconds(recent.itl.p99)}` : ""],
    ["Output", `${rate(per("tokens_output"))} tok/s`, `${count(stats.total_tokens_output)} since the start`],
    ["Retries", count(stats.total_retries), `${count(stats.total_fallbacks)} fallbacks, ${count(stats.total_resumed)} resumed`],
    ["Refused", count(Object.values(stats.rejected_by_reason).reduce((sum, each) => sum + each, 0)),
      Object.entries(stats.rejected_by_reason).map(([reason, number]) => `${reason.replaceAll("_", " ")} ${count(number)}`).join(", ") || "none"],
    ...workers(health.workers),
    ...(health.state ? [["Replicas", count(health.state.replicas), health.state.shared ? "share limits and slots" : `not shared: ${health.state.reason}`]] : []),
  ], byId("tiles"));
}

function workers(all) {
  if (!all.length) return [];
  const silent = all.filter((each) => !each.answered).map((each) => each.number);
  return [["Workers", count(new Set(all.map((each) => each.number)).size), silent.length ? `no answer from ${silent.join(", ")}, left out here` : "all answer"]];
}

function showCharts(history) {
  const whole = history.slice(0, -1); // the last interval is still going on
  const times = whole.map((each) => each.start_unix + each.seconds);
  const per = (name) => whole.map((each) => (each.seconds ? each[name] / each.seconds : null));
  const quantiles = (name) => ["p50", "p90", "p99"].map((q) => whole.map(({ latencies }) => (latencies[name].count ? latencies[name][q] : null)));
  charts.requests.show(times, [per("total"), per("failed")]);
  charts.tokens.show(times, [per("tokens_output"), per("tokens_input")]);
  charts.ttft.show(times, quantiles("ttft"));
  charts.itl.show(times, quantiles("itl"));
}

function card(name, backend, stats) {
  const counts = stats.by_backend[name];
  const words = [`${count(backend.waiting)} waiting`];
  if (counts) words.push(`${count(counts.total)} calls`, `${count(counts.failed)} failed`, `${count(counts.tokens_output)} tokens out`);
  const columns = [["Endpoint", "code"], ["State"], ["In flight"], ["Breaker"], ["In the engine"], ["KV cache"], ["Why", "wide"]];
  return element("div", { class: "backend" },
    element("div", {}, element("h3", {}, name), pill(backend.status), element("span", { class: "counts" }, words.join(" · "))),
    ...discovery(backend.discovery),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Endpoints of ${name}` },
      table(columns, backend.endpoints.map(row), "No endpoints.")));
}

function discovery(found) {
  if (!found) return [];
  const age = found.seconds_since_success === null ? "nothing found yet" : `last found ${seconds(found.seconds_since_success)} ago`;
  const words = [`Discovered by ${found.source}`, `${count(found.endpoints)} endpoints`, age];
  if (found.problem) words.push(`last look failed: ${found.problem}`);
  return [element("p", { class: "counts" }, words.join(" · "))];
}

function row(endpoint) {
  const engine = endpoint.running === null ? "–" : `${count(endpoint.running)} running, ${count(endpoint.waiting ?? 0)} waiting`;
  const cache = endpoint.kv_cache_usage === null ? "–" : percent(endpoint.kv_cache_usage);
  const state = endpoint.available || endpoint.status === "unhealthy" ? endpoint.status : "degraded";
  return [element("code", {}, endpoint.address), pill(state), load(endpoint), pill(endpoint.breaker), engine, cache, endpoint.reason];
}

function load({ in_flight: flight, limit }) {
  if (limit === null) return count(flight);
  const bar = element("meter", { min: 0, max: limit, value: Math.min(flight, limit), high: limit * 0.9, "aria-label": `${flight} of ${limit} slots` });
  return element("span", {}, bar, `${count(flight)} / ${count(limit)}`);
}
