// The microphone through the WebSocket /v1/live.

const MOST_HZ = 48_000;

/** Starts recording. onMessage gets partial, final and done; returns {stop, ended}, ended resolves to a WAV file. */
export async function listen({ model, decoding, key, onMessage }) {
  if (!navigator.mediaDevices) throw new Error("no microphone here: browsers allow it on https and localhost only");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } }).catch((error) => {
    throw new Error(`no microphone: ${error.message}`);
  });
  let context = new AudioContext();
  if (context.sampleRate > MOST_HZ) {
    await context.close();
    context = new AudioContext({ sampleRate: MOST_HZ });
  }
  const rate = context.sampleRate;
  const blocks = [];
  const release = () => {
    for (const track of stream.getTracks()) track.stop();
    if (context.state !== "closed") context.close();
  };
  const url = new URL("v1/live", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url);
  const ended = new Promise((resolve, reject) => {
    let done = false;
    socket.onopen = () => {
      const start = { type: "start", model: model.id, decoding, sample_rate: rate, words: model.word_times };
      socket.send(JSON.stringify(key ? { ...start, key } : start));
    };
    socket.onmessage = async ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "error") reject(new Error(message.error.message));
      else if (message.type === "ready") await record().catch(reject);
      else onMessage(message);
      done ||= message.type === "done";
    };
    socket.onclose = ({ reason }) => {
      release();
      if (done) resolve(wav(blocks, rate));
      else reject(new Error(reason || "the live connection broke"));
    };
  });

  async function record() {
    await context.audioWorklet.addModule("recorder.js");
    const node = new AudioWorkletNode(context, "recorder", { channelCount: 1, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }) => {
      blocks.push(data);
      if (socket.readyState === WebSocket.OPEN) socket.send(data);
    };
    context.createMediaStreamSource(stream).connect(node);
  }

  async function stop() {
    await context.suspend().catch(() => null);
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "stop" }));
    else socket.close();
  }

  return { stop, ended };
}

function wav(blocks, rate) {
  const bytes = blocks.reduce((sum, block) => sum + block.byteLength, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // mono
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, bytes, true);
  return new File([header, ...blocks], "recording.wav", { type: "audio/wav" });
}
