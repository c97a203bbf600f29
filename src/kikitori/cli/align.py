"""`kikitori align`: which phone is spoken when, found by forced alignment."""

from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import SafetensorsFile, Split, TextForm, TextFormOption, one_line_errors, read_rows
from kikitori.errors import ConfigError


def align(
    data: Annotated[list[Path] | None, typer.Option("--data", help="Manifest of speech; may be repeated.")] = None,
    split: Split = None,
    lexicon: Annotated[Path | None, typer.Option("--lexicon", help="Pronunciations, see kikitori lexicon.")] = None,
    text_form: TextFormOption = TextForm.plain,
    output: SafetensorsFile = None,
) -> None:
    """Find out which phone is spoken when in transcribed speech, for ctc.phones.alignments of a recipe."""
    with one_line_errors():
        from kikitori.align.hmm.corpus import align_corpus, save_alignments
        from kikitori.text.forms.text_form import in_form
        from kikitori.text.lexicon import read_lexicon

        if not data or lexicon is None or output is None:
            raise ConfigError("--data, --lexicon and -o are needed", remedy="name manifest, lexicon and file")
        rows = read_rows(data, split)
        found = align_corpus(rows, read_lexicon(lexicon), lambda text: in_form(text, text_form.value), print)
        save_alignments(output, found)
