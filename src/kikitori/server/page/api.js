// Requests to the server: docs/server.md has the contract.

/** An error in one line, from whatever the server answered. */
async function failure(response) {
  const body = await response.json().catch(() => null);
  const wait = response.headers.get("retry-after");
  const message = body?.error?.message ?? `${response.status} ${response.statusText}`;
  const error = new Error(wait ? `${message} (again in ${wait} s)` : message);
  error.status = response.status;
  return error;
}

const bearer = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

export async function models(key) {
  const response = await fetch("v1/models", { headers: bearer(key) });
  if (!response.ok) throw await failure(response);
  return (await response.json()).data;
}

/** Transcribes; calls onSegment for each as it arrives, returns the whole answer. */
export async function transcribe({ file, model, decoding, key, signal, onSegment }) {
  const form = new FormData();
  form.append("file", file, "recording");
  form.append("model", model.id);
  form.append("decoding", decoding);
  form.append("response_format", "verbose_json");
  form.append("stream", "true");
  form.append("nbest", "5");
  form.append("timestamp_granularities[]", "segment");
  if (model.word_times) form.append("timestamp_granularities[]", "word");
  const response = await fetch("v1/audio/transcriptions", { method: "POST", body: form, headers: bearer(key), signal });
  if (!response.ok) throw await failure(response);
  for await (const event of events(response.body)) {
    if (event.error) throw new Error(event.error.message);
    if (event.segment) onSegment(event.segment);
    if (event.type === "transcript.text.done") return event;
  }
  throw new Error("the connection broke before the end; transcribe again");
}

/** The events of a stream of server-sent events, whose data are JSON. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}
