// A chat with one model, and what it cost.

import { byId, element, tiles } from "./dom.js";
import { events } from "./events.js";
import { count, seconds } from "./format.js";
import { OWN } from "./sign_in.js";

let messages = [];
let running = null;

export function offer(models) {
  const choice = byId("model"), names = models.map((model) => model.id);
  if (names.join("\n") === [...choice.options].map((option) => option.value).join("\n")) return;
  const chosen = choice.value;
  choice.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  if (names.includes(chosen)) choice.value = chosen;
}

export function choose(model) {
  byId("model").value = model;
  byId("prompt").focus();
}

byId("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
byId("prompt").addEventListener("keydown", (event) => {
  // While an input method composes, Enter takes its suggestion; Safari says so by the key code alone.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  byId("ask").requestSubmit();
});
byId("stop").addEventListener("click", () => running?.abort());
byId("clear").addEventListener("click", () => {
  running?.abort();
  messages = [];
  byId("conversation").replaceChildren();
  byId("cost").replaceChildren();
  byId("prompt").focus();
});

async function send() {
  if (running) return;
  const prompt = byId("prompt").value.trim();
  if (!prompt) return;
  const request = [...messages, { role: "user", content: prompt }];
  const answer = bubble(byId("model").value, "assistant");
  bubble("You", "user", prompt, answer.box);
  const abort = new AbortController();
  busy(abort);
  const meter = new Meter();
  try {
    const response = await fetch("chat", {
      method: "POST", signal: abort.signal, headers: { ...OWN, "content-type": "application/json" },
      body: JSON.stringify({
        model: byId("model").value, messages: request, stream: true, stream_options: { include_usage: true },
        max_tokens: Number(byId("max-tokens").value) || undefined, temperature: Number(byId("temperature").value),
      }),
    });
    meter.head(response);
    if (!response.ok) throw new Error(await complaint(response));
    for await (const event of events(response.body)) {
      if (event.error) throw new Error(event.error.message ?? "The engine failed.");
      const delta = event.choices?.[0]?.delta ?? {};
      const thought = delta.reasoning ?? delta.reasoning_content;
      if (thought || delta.content) meter.piece();
      if (thought) answer.thought.append(thought);
      if (delta.content) answer.text.append(delta.content);
      if (event.usage) meter.usage(event.usage);
    }
    messages = [...request, { role: "assistant", content: answer.text.textContent }];
    byId("prompt").value = "";
  } catch (error) {
    const stopped = abort.signal.aborted;
    answer.text.append(`${answer.text.textContent ? "\n" : ""}[${stopped ? "stopped" : error.message}]`);
    if (!stopped) answer.box.classList.add("failed");
  } finally {
    meter.end();
    busy(null);
  }
}

function busy(abort) {
  running = abort;
  byId("send").disabled = abort !== null;
  byId("stop").disabled = abort === null;
}

function bubble(speaker, kind, said = "", before = null) {
  const text = element("span", {}, said), thought = element("span", { class: "thought" });
  const box = element("div", { class: `said ${kind}` }, element("b", {}, speaker), thought, text);
  byId("conversation").insertBefore(box, before);
  return { box, text, thought };
}

async function complaint(response) {
  const text = await response.text();
  try {
    return `${response.status}: ${JSON.parse(text).error.message}`;
  } catch {
    return `${response.status}: ${text.slice(0, 300)}`;
  }
}

class Meter {
  constructor() {
    this.start = performance.now();
    this.first = this.last = this.counted = null;
    this.pieces = 0;
    this.backend = "–";
    this.attempts = "";
    this.show();
  }

  head(response) {
    this.backend = response.headers.get("x-lexora-backend") ?? "–";
    const fallback = response.headers.get("x-lexora-fallback"), attempts = response.headers.get("x-lexora-attempts");
    this.attempts = [attempts > 1 ? `${attempts} attempts` : "", fallback ?? ""].filter(Boolean).join(", ");
    this.show();
  }

  piece() {
    this.last = performance.now();
    this.first ??= this.last;
    this.pieces += 1;
    if (this.pieces % 8 === 1) this.show();
  }

  usage(usage) { this.counted = usage; }

  end() { this.show(); }

  show() {
    const output = this.counted?.completion_tokens ?? this.pieces, span = (this.last - this.first) / 1000;
    const speed = this.first !== null && span > 0 && output > 1 ? `${((output - 1) / span).toFixed(1)} tok/s` : "–";
    tiles([
      ["First token", this.first === null ? "–" : seconds((this.first - this.start) / 1000)],
      ["Speed", speed],
      ["Backend", this.backend, this.attempts],
      ["Cost in tokens", this.counted ? `${count(this.counted.prompt_tokens)} in, ${count(output)} out` : `${count(output)} out`,
        this.counted ? `${count(this.counted.total_tokens)} in all` : "so far"],
    ], byId("cost"));
  }
}
