// Chats, streams, reads usage and aborts with the AI SDK against a running server, and prints what it saw as one object.
//   node ai_sdk.mjs URL MODEL QUESTION ENDLESS_URL ENDLESS_MODEL
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const [url, model, question, endlessUrl, endlessModel] = process.argv.slice(2);
const provider = (base) => createOpenAICompatible({ name: "rsd", baseURL: `${base}/v1`, includeUsage: true });
const chat = provider(url).chatModel(model);
const seen = {};

const whole = await generateText({ model: chat, prompt: question, temperature: 0, maxRetries: 0 });
seen.whole = { text: whole.text, finish: whole.finishReason, usage: whole.usage };

const stream = streamText({ model: chat, system: "Answer.", messages: [{ role: "user", content: question }], temperature: 0, maxRetries: 0 });
let pieces = 0, streamed = "";
for await (const piece of stream.textStream) {
  pieces += 1;
  streamed += piece;
}
seen.stream = { text: streamed, pieces, finish: await stream.finishReason, usage: await stream.usage };

try {
  await generateText({ model: provider(url).chatModel("gpt-4o"), prompt: question, maxRetries: 0 });
} catch (error) {
  seen.error = { status: error.statusCode, message: error.message, retryable: error.isRetryable };
}

// Its completion model writes "user:" and "assistant:" around the question, which abacus does not read.
const raw = provider(endlessUrl).completionModel(endlessModel);
const completion = await generateText({ model: raw, prompt: "x", maxOutputTokens: 4, maxRetries: 0 });
seen.completion = { text: completion.text, finish: completion.finishReason, usage: completion.usage };

const stop = new AbortController();
const long = streamText({
  model: provider(endlessUrl).chatModel(endlessModel), prompt: "x", abortSignal: stop.signal, maxRetries: 0, onError: () => {},
});
let aborted = "";
try {
  for await (const piece of long.textStream) {
    aborted += piece;
    if (aborted.length > 20) stop.abort();
  }
} catch (error) {
  seen.thrown = error.name;
}
seen.aborted = { length: aborted.length, signal: stop.signal.aborted };
console.log(JSON.stringify(seen));
