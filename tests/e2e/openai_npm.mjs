// Streams a chat with the official client and tells what came, as one line of JSON.
import OpenAI from "openai";

const [baseURL, model, fault] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "not-for-the-engine", maxRetries: 0 });
const seen = { text: "", chunks: 0, finish: null, usage: null, error: null, models: [] };
try {
  for await (const each of client.models.list()) seen.models.push(each.id);
  const stream = await client.chat.completions.create({
    model,
    messages: [{ role: "user", content: "Tell me about foxes." }],
    max_tokens: 32,
    seed: 1,
    stream: true,
    stream_options: { include_usage: true },
    ...(fault ? { sim_fault: fault } : {}),
  });
  for await (const chunk of stream) {
    seen.chunks += 1;
    seen.text += chunk.choices[0]?.delta?.content ?? "";
    seen.finish = chunk.choices[0]?.finish_reason ?? seen.finish;
    seen.usage = chunk.usage ?? seen.usage;
  }
} catch (error) {
  seen.error = { name: error.constructor.name, status: error.status ?? null, message: error.message };
}
console.log(JSON.stringify(seen));
