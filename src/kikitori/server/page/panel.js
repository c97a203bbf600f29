// One transcript on the page: words, flags, hypotheses, downloads. Texts go in as text, never as markup.

import { FORMATS, clock, download } from "./files.js";

const SURE = 0.8;
const UNSURE = 0.5;

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export class Panel {
  tokens = []; // the words' elements, in order
  segments = new Map(); // id to paragraph

  constructor(search, stem) {
    this.stem = stem;
    this.facts = element("p", { class: "facts" }, "waiting");
    this.text = element("div", { class: "text", role: "group", "aria-label": `Words by ${search.name}` });
    this.more = element("div", { class: "more" });
    const heading = element("h2", {}, search.name, " ", element("small", {}, search.kind));
    this.element = element("section", { class: "panel", "aria-label": search.name }, heading, this.facts, this.text, this.more);
    this.text.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Adds a segment, or puts it in the place of the one of the same id. */
  show(segment, partial = false) {
    const paragraph = element("p", partial ? { class: "partial" } : {});
    const place = this.segments.get(segment.id);
    if (place) place.replaceWith(paragraph);
    else this.text.append(paragraph);
    this.segments.set(segment.id, paragraph);
    if (partial) paragraph.append(segment.text);
    else this.#write(paragraph, segment);
  }

  #write(paragraph, segment) {
    const words = segment.words ?? segment.text.split(/\s+/).filter(Boolean).map((word) => ({ word, start: segment.start }));
    let at = 0;
    for (const word of words) {
      const found = segment.text.indexOf(word.word, at);
      if (found > at) paragraph.append(segment.text.slice(at, found));
      if (found >= 0) at = found + word.word.length;
      paragraph.append(this.#token(word));
    }
    paragraph.append(segment.text.slice(at));
    if (segment.flags?.length) {
      paragraph.append(" ", element("span", { class: "flag" }, `⚑ ${segment.flags.join(", ")}`));
    }
  }

  #token({ word, start, confidence }) {
    const known = confidence ?? null;
    const level = known === null || known >= SURE ? "" : known >= UNSURE ? " middle" : " low";
    const title = `${clock(start)}${known === null ? "" : `, confidence ${Math.round(100 * known)} %`}`;
    const tabindex = this.tokens.length ? "-1" : "0"; // one stop of the tab key a text; arrows move within
    const token = element("button", { type: "button", class: `word${level}`, title, tabindex, "data-start": start }, word);
    this.tokens.push(token);
    return token;
  }

  #move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    const at = this.tokens.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = this.tokens[Math.min(Math.max(at + step, 0), this.tokens.length - 1)];
    this.tokens[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  /** The rest of an answer of verbose_json. */
  finish(answer, seconds) {
    this.answer = answer;
    const rate = answer.duration / seconds;
    const agreement = answer.ctc_agreement ?? null;
    this.facts.textContent =
      `${this.tokens.length} words of ${answer.duration.toFixed(1)} s` +
      (seconds ? `, in ${seconds.toFixed(2)} s (${rate.toFixed(rate < 10 ? 1 : 0)} times real time)` : "") +
      (agreement === null ? "" : `; agrees with the CTC head by ${Math.round(100 * agreement)} %`);
    if (!answer.text.trim()) this.text.replaceChildren(element("p", { class: "partial" }, "no speech found"));
    this.more.replaceChildren(...this.#doubts(answer), ...hypotheses(answer.nbest ?? []), this.#downloads());
  }

  #doubts(answer) {
    const parts = [answer, ...answer.segments.filter((segment) => segment.flags?.length)];
    const lines = new Set();
    for (const part of answer.segments.length > 1 ? parts.slice(1) : parts.slice(0, 1)) {
      const when = part.start === undefined ? "" : `${clock(part.start)} `;
      for (const flag of part.flags ?? []) {
        lines.add(`${when}${flag}${part.reasons?.[flag] ? `: ${part.reasons[flag]}` : ""}`);
      }
    }
    if (!lines.size) return [];
    const list = element("ul", {}, ...[...lines].map((line) => element("li", {}, line)));
    return [element("details", { open: "" }, element("summary", {}, "Reasons for doubt"), list)];
  }

  #downloads() {
    const row = element("p", { class: "downloads" }, "Download ");
    for (const ending of Object.keys(FORMATS)) {
      const button = element("button", { type: "button", "aria-label": `Download ${ending}` }, ending);
      button.addEventListener("click", () => download(this.answer, ending, this.stem));
      row.append(button);
    }
    return row;
  }
}

function hypotheses(nbest) {
  if (!nbest.length) return [];
  const names = Object.keys(nbest[0].scores ?? {});
  const cell = (score) => element("td", {}, typeof score === "number" ? score.toFixed(2) : "");
  const head = ["Hypothesis", "Score", ...names].map((name) => element("th", { scope: "col" }, name));
  const rows = nbest.map(({ text, score, scores }) =>
    element("tr", {}, element("td", { class: "said" }, text), cell(score), ...names.map((name) => cell(scores?.[name]))));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  const scroll = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Hypotheses" }, table);
  return [element("details", {}, element("summary", {}, `${nbest.length} best hypotheses`), scroll)];
}
