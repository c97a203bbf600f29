// The page: a recording comes in, one or two searches write it down, words can be heard.

import { models, transcribe } from "./api.js";
import { common, plain } from "./compare.js";
import { listen } from "./live.js";
import { Panel, element } from "./panel.js";

const $ = (id) => document.getElementById(id);
const state = { models: [], file: null, panels: [], running: null, live: null };

const model = () => state.models.find(({ id }) => id === $("model").value);
const search = (id) => model().searches.find(({ name }) => name === $(id).value);
const key = () => $("key").value.trim();
const say = (text) => { $("status").textContent = text; };

function fail(error) {
  say("");
  if (error.status === 401) $("key-label").hidden = false;
  $("error").textContent = error.name === "AbortError" ? "" : error.message.replace(/\s+/g, " ");
}

async function loadModels() {
  try {
    state.models = await models(key());
  } catch (error) {
    return fail(error);
  }
  $("error").textContent = "";
  $("model").replaceChildren(...state.models.map(({ id }) => element("option", { value: id }, id)));
  showSearches();
}

function showSearches() {
  const { searches } = model();
  const options = () => searches.map(({ name, kind }) => element("option", { value: name }, `${name} (${kind})`));
  $("first").replaceChildren(...options());
  $("second").replaceChildren(element("option", { value: "" }, "nothing"), ...options());
  $("first").value = (searches.find((each) => each.default) ?? searches[0]).name;
}

function take(file) {
  state.file = file;
  $("name").textContent = `${file.name}, ${(file.size / 1e6).toFixed(1)} MB`;
  $("go").disabled = false;
  URL.revokeObjectURL($("audio").src);
  $("audio").src = URL.createObjectURL(file);
}

function lay(searches) {
  const stem = (state.file?.name ?? "recording").replace(/\.[^.]*$/, "");
  state.panels = searches.map((each) => new Panel(each, stem));
  $("panels").replaceChildren(...state.panels.map((panel) => panel.element));
  $("agreement").textContent = $("error").textContent = "";
  $("results").hidden = false;
}

function busy(on) {
  $("go").disabled = on || !state.file;
  $("record").disabled = on;
  $("cancel").hidden = !on;
  $("panels").setAttribute("aria-busy", on);
}

async function run() {
  if (!state.file || !model() || state.running || state.live) return;
  const searches = [search("first"), search("second")].filter(Boolean);
  lay(searches);
  state.running = new AbortController();
  busy(true);
  try {
    for (const [i, panel] of state.panels.entries()) { // one after the other, so that seconds can be compared
      const { name } = searches[i];
      say(`${name} is listening`);
      panel.facts.textContent = "listening";
      const began = performance.now();
      const answer = await transcribe({
        file: state.file, model: model(), decoding: name, key: key(), signal: state.running.signal,
        onSegment: (segment) => panel.show(segment),
      });
      panel.finish(answer, (performance.now() - began) / 1000);
    }
    compare();
    say("Done");
  } catch (error) {
    for (const panel of state.panels) if (!panel.answer) panel.facts.textContent = "stopped";
    fail(error);
  }
  state.running = null;
  busy(false);
}

function compare() {
  if (state.panels.length < 2) return;
  const [a, b] = state.panels.map(({ tokens }) => tokens);
  const pairs = common(a.map((token) => plain(token.textContent)), b.map((token) => plain(token.textContent)));
  if (!pairs) {
    $("agreement").textContent = "· the texts differ too much to compare";
    return;
  }
  const same = new Set(pairs.flatMap(([i, j]) => [a[i], b[j]]));
  for (const token of [...a, ...b]) {
    if (same.has(token)) continue;
    token.classList.add("differs");
    token.title += ", differs";
  }
  const share = a.length + b.length ? (2 * pairs.length) / (a.length + b.length) : 1;
  $("agreement").replaceChildren("· ", element("span", { class: "differs" }, "differs"),
    ` · the two agree in ${Math.round(100 * share)} % of their words`);
}

async function record() {
  if (state.live) return state.live.stop();
  const began = [];
  const chosen = search("first");
  lay([chosen]);
  const [panel] = state.panels;
  panel.facts.textContent = "listening";
  $("record").disabled = true;
  try {
    state.live = await listen({
      model: model(), decoding: chosen.name, key: key(),
      onMessage(message) {
        if (message.type === "done") panel.finish({ ...message, segments: began, model: model().id, decoding: chosen.name }, 0);
        else panel.show(message, message.type === "partial");
        if (message.type === "final") {
          began.push(message);
          $("said").append(element("p", {}, message.text));
        }
      },
    });
    pressed(true);
    say("Speak; Stop ends the recording");
    take(await state.live.ended);
    say("Recorded. Transcribe writes it down once more, as a whole");
  } catch (error) {
    panel.facts.textContent = "stopped";
    fail(error);
  }
  state.live = null;
  pressed(false);
}

function pressed(on) {
  $("record").disabled = false;
  $("record").setAttribute("aria-pressed", on);
  $("record").textContent = on ? "Stop" : "Record";
  $("go").disabled = on || !state.file;
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
$("file").addEventListener("change", ({ target }) => { if (target.files[0]) { take(target.files[0]); run(); } });
$("record").addEventListener("click", record);
$("cancel").addEventListener("click", () => state.running?.abort());
$("model").addEventListener("change", showSearches);
$("key").addEventListener("change", loadModels);
$("panels").addEventListener("click", ({ target }) => {
  if (!target.dataset.start) return;
  $("audio").currentTime = Number(target.dataset.start);
  $("audio").play().catch(() => say("this browser cannot play the recording"));
});

let now = [];
$("audio").addEventListener("timeupdate", ({ target }) => {
  for (const token of now) token.classList.remove("now");
  now = state.panels.map(({ tokens }) => last(tokens, target.currentTime)).filter(Boolean);
  for (const token of now) token.classList.add("now");
});

/** The last word that has begun, by bisection. */
function last(tokens, seconds) {
  let [low, high] = [0, tokens.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (Number(tokens[middle].dataset.start) <= seconds) low = middle + 1;
    else high = middle;
  }
  return tokens[low - 1];
}

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
  });
}
document.addEventListener("drop", ({ dataTransfer }) => {
  if (dataTransfer.files[0] && !state.running && !state.live) { take(dataTransfer.files[0]); run(); }
});

loadModels();
