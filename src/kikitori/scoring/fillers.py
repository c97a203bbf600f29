"""Fillers of references and predictions: counted, and left out of what is scored where that is asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kikitori.errors import ConfigError
from kikitori.scoring.report import Prediction
from kikitori.text.forms.fillers import LANGUAGES, FillerCounts, without_fillers
from kikitori.text.forms.languages import primary_language
from kikitori.types import Utterance


def count_fillers(sets: Mapping[str, Sequence[Prediction]], *, removed: bool) -> FillerCounts:
    """Those of the rows that have a reference; `removed` says whether they are left out of what is scored."""
    rows = [row for rows in sets.values() for row in rows if row.utterance.text is not None]
    return FillerCounts(
        reference=sum(without_fillers(row.utterance.text or "", row.utterance.language)[1] for row in rows),
        predicted=sum(without_fillers(row.pred_text, row.utterance.language)[1] for row in rows),
        removed=removed,
    )


def leave_out_fillers(sets: Mapping[str, Sequence[Prediction]]) -> dict[str, list[Prediction]]:
    """The same predictions without the fillers of references, texts and hypotheses."""
    return {name: [_without(row) for row in rows] for name, rows in sets.items()}


def check_fillers(utterances: Iterable[Utterance], where: str = "--fillers remove") -> None:
    """Refuses utterances of which none is in a language whose fillers are known; `where` is what asks for it.

    Raises:
        ConfigError: All are in others.
    """
    if not any(primary_language(each.language) in LANGUAGES for each in utterances):
        what = f"fillers are known of {' and '.join(LANGUAGES)} alone"
        raise ConfigError(what, where=where, remedy="name the language of the rows, or leave it out")


def _without(row: Prediction) -> Prediction:
    language = row.utterance.language

    def plain(text: str) -> str:
        return without_fillers(text, language)[0]

    said = None if row.utterance.text is None else plain(row.utterance.text)
    nbest = tuple(replace(each, text=plain(each.text)) for each in row.nbest)
    return replace(row, utterance=replace(row.utterance, text=said), pred_text=plain(row.pred_text), nbest=nbest)
