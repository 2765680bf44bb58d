// Recent calls, and the models.

import { byId, element, pill, table } from "./dom.js";
import { clock, count, seconds } from "./format.js";

const CALLS = [["Ended"], ["Model", "name"], ["Path", "code"], ["Backend", "name"], ["Status"], ["Queue", "number"], ["First token", "number"], ["Total", "number"],
  ["In", "number"], ["Out", "number"], ["Notes", "wide"], ["Id", "name"]];

export function showCalls({ calls }) {
  const rows = calls.map((call) => [
    clock(call.finished_unix_ms), call.model || "–", call.path, call.backend || "–", status(call), seconds(call.queue_seconds),
    seconds(call.ttft_seconds), seconds(call.total_seconds), tokens(call.tokens_input), tokens(call.tokens_output), notes(call),
    element("code", {}, call.request_id),
  ]);
  byId("calls-table").replaceChildren(table(CALLS, rows, "No call has finished yet."));
}

const tokens = (number) => (number === null ? "–" : count(number));

function status(call) {
  const mood = call.status < 400 ? "good" : call.status === 499 ? "" : call.status < 500 ? "fair" : "bad";
  return element("span", { class: `pill ${mood}` }, call.status === 499 ? "499 client left" : String(call.status));
}

function notes(call) {
  const found = [call.stream ? "stream" : null, call.attempts > 1 ? `${call.attempts} attempts` : null, hops(call.fallback),
    call.resumed ? `resumed: ${call.resumed.replace("_", " ")}` : null, words(call.error)];
  return found.filter(Boolean).join(", ");
}

const words = (reason) => reason.toLowerCase().replaceAll("_", " ");

// "main->spare;reason=UPSTREAM_TIMEOUT" is "main → spare (upstream timeout)".
const hops = (fallback) => fallback.replaceAll("->", " → ").replace(/;reason=(\w+)/g, (_, reason) => ` (${words(reason)})`);

const MODELS = [["Model", "name"], ["Backend", "name"], ["Type"], ["State"], ["Context", "number"], ["Good at", "wide"], ["Description", "wide"], ["", "act"]];

export function showModels({ models }, tryIt) {
  const rows = models.map((model) => [
    element("strong", {}, model.id), model.backend, model.backend_type, pill(model.status),
    model.max_model_len ? count(model.max_model_len) : "–", model.capabilities.join(", "), model.description,
    element("button", { type: "button", onclick: () => tryIt(model.id), "aria-label": `Try ${model.id}` }, "Try"),
  ]);
  byId("models-table").replaceChildren(table(MODELS, rows, "No model can be asked: no backend lists one."));
}
