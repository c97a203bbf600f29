// What can be downloaded, from the answer of verbose_json.

const two = (number) => String(number).padStart(2, "0");

export function clock(seconds, fraction) {
  const ms = Math.round(seconds * 1000);
  const whole = Math.floor(ms / 1000);
  const text = `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return fraction ? `${text}${fraction}${String(ms % 1000).padStart(3, "0")}` : text.replace(/^00:/, "");
}

const cues = (answer) => answer.segments.filter((segment) => segment.text.trim() && segment.end > segment.start);
const srtText = (text) => text.trim().replaceAll("-->", "->");
const vttText = (text) => text.trim().replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function srt(answer) {
  const cue = ({ start, end, text }, number) =>
    `${number + 1}\n${clock(start, ",")} --> ${clock(end, ",")}\n${srtText(text)}\n`;
  return cues(answer).map(cue).join("\n");
}

function vtt(answer) {
  const cue = ({ start, end, text }) => `\n${clock(start, ".")} --> ${clock(end, ".")}\n${vttText(text)}\n`;
  return `WEBVTT\n${cues(answer).map(cue).join("")}`;
}

/** Ending to [media type, content of the file]. */
export const FORMATS = {
  txt: ["text/plain", (answer) => `${answer.text}\n`],
  srt: ["application/x-subrip", srt],
  vtt: ["text/vtt", vtt],
  json: ["application/json", (answer) => JSON.stringify(answer, null, 1)],
};

export function download(answer, ending, stem) {
  const [type, content] = FORMATS[ending];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content(answer)], { type }));
  link.download = `${stem}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
