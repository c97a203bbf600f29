"""`kikitori diagnose`: where a recogniser's errors come from, so that one knows which lever to pull.

Predictions of evaluations go in, with texts to say which words are known and a recogniser to score references where
they are at hand; tables, `errors.json` and `errors.html` come out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import inf
from pathlib import Path

from kikitori.data.speech import read_utterance
from kikitori.errors import ConfigError
from kikitori.io.files import write_text
from kikitori.model.heads import ctc_loss
from kikitori.recognizer import MIN_SAMPLES, Recognizer
from kikitori.scoring.errors import breakdown
from kikitori.scoring.errors.breakdown import Group, Lengths, Row
from kikitori.scoring.errors.search import ListErrors, ScoreErrors, Scores, list_errors, score_errors
from kikitori.scoring.errors.words import Confusions, Known, WordClass, Words, confusions, known_words
from kikitori.scoring.page import Section, render_sections
from kikitori.scoring.report import Prediction
from kikitori.scoring.table import text_table
from kikitori.text.units import TokenizerUnits

SPEAKERS = 20
"""Speakers that the tables show, those with the highest rates; `errors.json` has all."""
EXAMPLES = 10
JSON, HTML = "errors.json", "errors.html"
Progress = Callable[[int], None]
Table = list[list[str]]


@dataclass(frozen=True)
class Bound:
    """What mending one kind of error could win at most; kinds overlap.

    Attributes:
        kind: Which errors.
        errors: How many.
        rate: Rate of word errors without them.
    """

    kind: str
    errors: int
    rate: float


@dataclass(frozen=True)
class Diagnosis:
    """Where errors come from.

    Attributes:
        form: Names of the normalizers; with `nfkc_ja` characters count as words.
        total: All utterances.
        groups: Utterances by what they have in common (`set`, `speaker`, `seconds`, `words`, `rate`, `flag`).
        confusions: What was taken for what.
        known: Errors by what texts know, by the names of the texts.
        lists: What reordering could win.
        heard: What the CTC head says of references; None where it was not asked.
        lengths: How long outputs are.
        bounds: What each lever could win at most.
        unaligned: Utterances too long to be aligned, whose words are counted in groups alone.
    """

    form: str
    total: Group
    groups: Mapping[str, tuple[Group, ...]]
    confusions: Confusions
    known: Mapping[str, Known]
    lists: ListErrors
    heard: ScoreErrors | None
    lengths: Lengths
    bounds: tuple[Bound, ...]
    unaligned: int


def diagnose(rows: Sequence[Row], texts: Mapping[str, Words], scores: Sequence[Scores] | None = None) -> Diagnosis:
    """Where the errors of some utterances come from.

    Args:
        rows: The utterances, as of `kikitori.scoring.errors.breakdown.scored_rows`.
        texts: Words of texts by name, as of `kikitori.scoring.errors.words.count_words`.
        scores: Of each utterance, as of `reference_scores`.
    """
    groups = {
        "set": breakdown.by_set(rows),
        "speaker": breakdown.by_speaker(rows),
        "seconds": breakdown.by_seconds(rows),
        "words": breakdown.by_words(rows),
        "rate": breakdown.by_rate(rows),
        "flag": breakdown.by_flag(rows),
    }
    total = breakdown.group("total", rows)
    confused, lists = confusions(rows), list_errors(rows)
    known = {name: known_words(rows, text) for name, text in texts.items()}
    return Diagnosis(
        form=", ".join(sorted({row.form for row in rows})),
        total=total,
        groups={name: tuple(found) for name, found in groups.items()},
        confusions=confused,
        known=known,
        lists=lists,
        heard=None if scores is None else score_errors(rows, scores),
        lengths=breakdown.lengths(rows),
        bounds=_bounds(total, confused, known, lists),
        unaligned=sum(bool(row.reference or row.predicted) and not row.pairs for row in rows),
    )


def form_of(rows: Sequence[Row]) -> str:
    """The normalizer that all utterances have, which texts get as well.

    Raises:
        ConfigError: They have several.
    """
    forms = sorted({row.form for row in rows})
    if len(forms) > 1:
        what = f"the sets have several normalizers ({', '.join(forms)})"
        raise ConfigError(what, where="--text", remedy="diagnose one language at a time")
    return forms[0]


def reference_scores(
    recognizer: Recognizer, rows: Sequence[Row], *, batch_size: int = 8, progress: Progress = lambda _: None
) -> list[Scores]:
    """What the CTC head gives to references, in the one segmentation of its units, and to what was found.

    Raises:
        AudioError: An utterance cannot be read.
        ModelError: The recogniser has no CTC head.
    """
    scores: dict[int, Scores] = {}
    order = sorted(range(len(rows)), key=lambda index: rows[index].seconds)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        waveforms = {index: read_utterance(rows[index].prediction.utterance) for index in batch}
        heard = [index for index in batch if len(waveforms[index]) >= MIN_SAMPLES]
        scores.update((index, Scores(-inf, -inf)) for index in batch if index not in heard)
        if heard:
            log_probs, lengths = recognizer.ctc_log_probs([waveforms[index] for index in heard])
            for place, index in enumerate(heard):
                one = slice(place, place + 1)
                losses = [
                    ctc_loss(log_probs[one], lengths[one], [labels])
                    for labels in _labels(rows[index].prediction, recognizer.loaded.units)
                ]
                scores[index] = Scores(*(-inf if loss.infeasible else -float(loss.total) for loss in losses))
        progress(len(batch))
    return [scores[index] for index in range(len(rows))]


def sections(found: Diagnosis) -> list[Section]:
    """The diagnosis as tables; rates are fractions."""
    others = dict(found.groups)
    sets, flags = others.pop("set"), others.pop("flag")
    parts = [
        _levers(found),
        Section(
            "Who and how long",
            "Rates by groups of utterances, with 95 % intervals (bootstrap over utterances).",
            (
                _groups("set", [*(sets if len(sets) > 1 else ()), found.total]),
                *(_groups(name, groups[:SPEAKERS]) for name, groups in others.items() if len(groups) > 1),
            ),
        ),
        *(_language(name, known) for name, known in found.known.items()),
        _search(found.lists, found.heard),
        _acoustics(found),
        _lengths(found.lengths, flags),
    ]
    return [part for part in parts if part.tables]


def format_sections(parts: Sequence[Section]) -> str:
    """Sections as plain text."""
    return "\n\n".join(
        "\n\n".join([f"{part.title}\n{'=' * len(part.title)}\n{part.text}", *map(text_table, part.tables)])
        for part in parts
    )


def write_diagnosis(folder: Path, found: Diagnosis, facts: Sequence[str]) -> list[Path]:
    """Writes `errors.json` and `errors.html` and returns their paths.

    Args:
        folder: Where; made if missing.
        found: The diagnosis.
        facts: Where it comes from.

    Raises:
        DataError: A file cannot be written.
    """
    content = {"facts": [*facts], "diagnosis": _plain(found)}
    write_text(folder / JSON, json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    write_text(folder / HTML, render_sections("errors", facts, sections(found)))
    return [folder / JSON, folder / HTML]


def _labels(prediction: Prediction, units: TokenizerUnits) -> tuple[Sequence[int], Sequence[int]]:
    """Reference and best hypothesis in the recogniser's labels, even if the search had others."""
    found = prediction.nbest[0] if prediction.nbest else None
    text = prediction.pred_text if found is None else found.text
    own = found is not None and all(0 <= label < units.size for label in found.labels)
    labels = found.labels if found is not None and own and units.decode(found.labels) == text else units.encode(text)
    return units.encode(prediction.utterance.text or ""), labels


def _bounds(total: Group, confused: Confusions, known: Mapping[str, Known], lists: ListErrors) -> tuple[Bound, ...]:
    best = list(lists.oracle.values())
    kinds = {
        f"another order of the n-best lists (up to {lists.longest})": best[0] - best[-1] if best else 0,
        "near misses": confused.near,
        "words run together or apart": sum(each.errors for each in confused.boundaries),
        "insertions": total.words.insertions,
        "deletions": total.words.deletions,
    }
    for name, text in known.items():
        kinds[f"words that {name} never has"] = text.by_count[0].errors
        kinds[f"outputs that are no words of {name}"] = text.invented
    words = max(1, total.words.reference_length)
    return tuple(Bound(kind, errors, (total.words.errors - errors) / words) for kind, errors in kinds.items() if errors)


def _levers(found: Diagnosis) -> Section:
    counts = found.total.words
    kinds: Table = [["errors", "number", "per word said"]]
    for name, number in (
        ("substitutions", counts.substitutions),
        ("deletions", counts.deletions),
        ("insertions", counts.insertions),
        ("all", counts.errors),
    ):
        kinds.append([name, str(number), _rate(number, counts.reference_length)])
    bounds: Table = [["without these", "errors", "WER"]]
    bounds += [[bound.kind, str(bound.errors), f"{bound.rate:.4f}"] for bound in found.bounds]
    text = (
        f"{counts.reference_length} words (normalizer {found.form}), {found.total.utterances} utterances. Below, what "
        "is left if all errors of one kind are mended: more than any lever can do, and kinds overlap."
    )
    unaligned = f" {found.unaligned} utterances are too long to be aligned." if found.unaligned else ""
    return Section("Errors", text + unaligned, (kinds, bounds))


def _groups(name: str, groups: Sequence[Group]) -> Table:
    rows = [[name, "utterances", "minutes", "words", "WER", "95 %", "CER", "sub", "del", "ins"]]
    for each in groups:
        counts = each.words
        said = counts.reference_length
        kinds = [_rate(count, said) for count in (counts.substitutions, counts.deletions, counts.insertions)]
        rates = [f"{counts.rate:.4f}", "-".join(f"{end:.3f}" for end in each.interval), f"{each.characters.rate:.4f}"]
        rows.append([each.name, str(each.utterances), f"{each.seconds / 60:.1f}", str(said), *rates, *kinds])
    return rows


def _language(name: str, known: Known) -> Section:
    text = (
        f"{known.words:,} words, {known.distinct:,} different ones. Of {known.wrong} wrong words in the outputs "
        f"{known.invented} are not among these, {known.invented_near} of which are near misses."
    )
    tables = _classes("said, in the text", known.by_count), _classes("by rank in the text", known.by_rank)
    return Section(f"Language: words of {name}", text, tables)


def _classes(heading: str, classes: Sequence[WordClass]) -> Table:
    rows = [[heading, "words", "recall", "near misses", "other sub", "deleted", "share of errors"]]
    total = sum(each.errors for each in classes)
    for each in classes:
        shares = [_rate(part, each.words) for part in (each.correct, each.near, each.substituted, each.deleted)]
        rows.append([each.name, str(each.words), *shares, _rate(each.errors, total)])
    return rows


def _search(lists: ListErrors, heard: ScoreErrors | None) -> Section:
    oracle = [["best of the first", "errors", "WER"]]
    oracle += [[str(size), str(errors), _rate(errors, lists.words)] for size, errors in lists.oracle.items()]
    where = [["reference", "utterances"]]
    where += [
        ["is first", str(lists.right)],
        ["is below", str(lists.below)],
        ["is not in the list", str(lists.missing)],
    ]
    tables: list[Table] = [oracle, where] if lists.longest > 1 else []
    if lists.preferences:
        shares = [["scorer prefers", "the better one", "the first"]]
        tables.append(shares + [[each.share, str(each.better), str(each.first)] for each in lists.preferences])
    if heard is not None:
        verdicts = [["the CTC head", "utterances"], ["the reference was found", str(heard.found)]]
        verdicts += [["prefers the reference: search or other scorers lost it", str(heard.search)]]
        verdicts += [[f"prefers what was found, by {heard.margin:.1f} nats on average", str(heard.scores)]]
        tables.append([*verdicts, ["has too few frames for the reference", str(heard.impossible)]])
    text = (
        f"Lists of {lists.hypotheses:.1f} hypotheses on average, {lists.longest} at most; {lists.improvable} "
        "utterances have a better hypothesis than the first. A scorer that is subtracted should prefer the first."
    )
    return Section("Search", text, tuple(tables))


def _acoustics(found: Diagnosis) -> Section:
    confused, words = found.confusions, found.total.words.reference_length
    exact = [each for each in confused.boundaries if each.exact]
    kinds: Table = [
        ["", "number", "per word said"],
        ["substituted words", str(confused.substituted), _rate(confused.substituted, words)],
        ["near misses among them", str(confused.near), _rate(confused.near, words)],
        ["words run together or apart", str(len(confused.boundaries)), _rate(len(confused.boundaries), words)],
        ["with all letters right", str(len(exact)), _rate(len(exact), words)],
    ]
    tables: list[Table] = [kinds]
    taken = [["said", "recognised", "times"], *([a, b, str(n)] for a, b, n in confused.substitutions[:EXAMPLES])]
    lost = [["missing", "times"], *([word, str(n)] for word, n in confused.deletions[:EXAMPLES])]
    added = [["too many", "times"], *([word, str(n)] for word, n in confused.insertions[:EXAMPLES])]
    apart = [["said", "recognised"], *([each.reference, each.predicted] for each in confused.boundaries[:EXAMPLES])]
    tables += [table for table in (taken, lost, added, apart) if len(table) > 1]
    rate = found.total.characters.rate
    text = f"CER {rate:.4f} beside WER {found.total.words.rate:.4f}; spaces are no characters."
    return Section("Acoustics and spelling", text, tuple(tables))


def _lengths(found: Lengths, flags: Sequence[Group]) -> Section:
    table = [["outputs", "utterances"]]
    table += [["as long as the reference", str(found.equal)], ["empty", str(found.empty)]]
    table += [["half as long at most", str(found.short)], ["half as long again or longer", str(found.long)]]
    text = (
        f"{found.predicted} words recognised of {found.reference} ({_rate(found.predicted, found.reference)}); an "
        f"output is {found.difference:.1f} words longer or shorter on average. {found.cut} words are missing at ends."
    )
    return Section("Length", text, (table, *([_groups("flag", flags)] if flags else [])))


def _plain(value: object) -> object:
    """A value as JSON has it, dataclasses with their properties."""
    match value:
        case Mapping():
            return {str(key): _plain(member) for key, member in value.items()}
        case tuple():
            return [_plain(member) for member in value]
        case _ if is_dataclass(value):
            properties = [name for name, member in vars(type(value)).items() if isinstance(member, property)]
            return {name: _plain(getattr(value, name)) for name in [*(f.name for f in fields(value)), *properties]}
    return value


def _rate(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else "-"
