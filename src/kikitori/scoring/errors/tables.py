"""A diagnosis as tables: who and how long, words, search, acoustics, lengths; rates are fractions."""

from collections.abc import Sequence

from kikitori.errors import counted
from kikitori.scoring.errors.breakdown import Group, Lengths
from kikitori.scoring.errors.diagnosis import Diagnosis
from kikitori.scoring.errors.search import ListErrors, ScoreErrors
from kikitori.scoring.errors.words import Known, WordClass
from kikitori.scoring.page import Section
from kikitori.scoring.table import text_table
from kikitori.text.normalize import versioned

SPEAKERS = 20
"""Speakers that the tables show, those with the highest rates; `errors.json` has all."""
EXAMPLES = 10
Table = list[list[str]]


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
        _search(found.lists, found.ctc),
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
        f"{counted(counts.reference_length, 'word')} (normalizer {versioned(found.form)}), "
        f"{counted(found.total.utterances, 'utterance')}. "
        "Below, what is left if all errors of one kind are mended: more than any lever can do, and kinds overlap."
    )
    unaligned = f" Too long to be aligned: {counted(found.unaligned, 'utterance')}." if found.unaligned else ""
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
        rates = [_rate(part, each.words) for part in (each.correct, each.near, each.substituted, each.deleted)]
        rows.append([each.name, str(each.words), *rates, _rate(each.errors, total)])
    return rows


def _search(lists: ListErrors, ctc: ScoreErrors | None) -> Section:
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
        scorers = [["scorer prefers", "the better one", "the first"]]
        tables.append(scorers + [[each.share, str(each.better), str(each.first)] for each in lists.preferences])
    if ctc is not None:
        verdicts = [["the CTC head", "utterances"], ["the reference was found", str(ctc.found)]]
        verdicts += [["prefers the reference: search or other scorers lost it", str(ctc.search)]]
        verdicts += [[f"prefers what was found, by {ctc.margin:.1f} nats on average", str(ctc.scores)]]
        tables.append([*verdicts, ["has too few frames for the reference", str(ctc.impossible)]])
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


def _rate(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else "-"
