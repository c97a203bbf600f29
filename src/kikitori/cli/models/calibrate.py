"""`kikitori calibrate`: times and confidences of a recogniser's words, mended by transcribed speech."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError, counted
from kikitori.io.progress import progress_bar

if TYPE_CHECKING:
    from kikitori.workflows.calibrate import Spans


def calibrate(
    overrides: common.Overrides = None,
    data: common.Data = None,
    split: common.Split = None,
    model: common.Model = None,
    decoding: common.Search = None,
    lexicon: Annotated[
        Path | None, typer.Option("--lexicon", help="Pronunciations: measures too how late words are written.")
    ] = None,
    text_form: common.TextFormOption = common.TextForm.plain,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File; words.yaml in the model folder is read from there.")
    ] = None,
    batch_size: common.BatchSize = 8,
    device: common.DeviceOption = common.Device.auto,
    dtype: common.DtypeOption = common.Precision.float32,
    decoder: common.Decoder = None,
    window: common.Window = common.WindowSize.padded,
) -> None:
    """Calibrate confidences and times of words on transcribed speech, for words.yaml of a model folder."""
    with common.one_line_errors():
        changes = common.only_overrides(overrides)
        paths = common.manifests(data)
        if output is None:
            raise ConfigError("no file given", where="-o", remedy="name one, such as MODEL/words.yaml")
        from kikitori.align.calibration import save_calibration
        from kikitori.workflows.calibrate import calibrate as calibrating

        rows = common.read_rows(paths, split)
        recognizer = common.load_recognizer(
            model, decoding, changes, device, dtype, None, window=window, decoder=decoder
        )
        common.make_folder(output.parent)
        spans: dict[str, Spans] = {}
        if lexicon is not None:
            from kikitori.align.hmm.corpus import align_corpus, segments, word_spans
            from kikitori.text.forms.text_form import in_form
            from kikitori.text.lexicon import read_lexicon

            known = read_lexicon(lexicon)
            aligned = align_corpus(rows, known, lambda text: in_form(text, text_form.value), print)
            for row in rows:
                if row.utt_id in aligned.states:
                    phones = segments(aligned.states[row.utt_id], aligned.labels)
                    spans[row.utt_id] = word_spans(in_form(row.text or "", text_form.value), phones, known)
        with progress_bar("decoding", len(rows)) as progress:
            found = calibrating(recognizer, rows, spans, batch_size=batch_size, progress=progress)
        save_calibration(output, found.calibration)
        before, after = found.errors
        print(f"{counted(found.words, 'word')}: expected calibration error {before:.4f} -> {after:.4f}")
        if found.borders:
            before, after = found.offsets
            print(f"{found.borders} borders: median distance {1000 * before:.0f} -> {1000 * after:.0f} ms")
        print(output, flush=True)
