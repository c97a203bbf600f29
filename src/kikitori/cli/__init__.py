"""The command line: `kikitori transcribe | evaluate | diagnose | rescore | tune | train | adapt | ...`.

One file a command; `about`: commands that say what is at hand, `data`: those that make data, `language`: those that
make or measure language models, priors and lexicons; `common`: options, errors and progress that commands share.

Heavy libraries are imported by the commands that use them. Exit status: 0 all done, 1 some files failed (the others
are done), 2 the call itself is wrong. Whatever goes wrong is one line on standard error.
"""

import io
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer

from kikitori import __version__
from kikitori.cli import (
    adapt,
    align,
    diagnose,
    doctor,
    evaluate,
    picture,
    rescore,
    serve,
    train,
    transcribe,
    tune,
)
from kikitori.cli.common import SOME_FAILED, complain
from kikitori.cli.data import check, pseudo_label, synthesize
from kikitori.cli.data import convert as convert_data
from kikitori.cli.language import lexicon, ngram, perplexity, prior
from kikitori.cli.models import calibrate, convert, merge
from kikitori.cli.models import list as listing
from kikitori.cli.studies import compare, leaderboard, study
from kikitori.errors import KikitoriError
from kikitori.kernels import limit_kernel_caches


def _group(name: str | None, help_text: str) -> typer.Typer:
    return typer.Typer(
        name=name,
        help=help_text,
        no_args_is_help=True,
        add_completion=name == "kikitori",
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # usage errors are one line, without a box
    )


app = _group("kikitori", "Speech recognition with pre-trained speech encoders and large language models.")
for _command in (
    *(transcribe.transcribe, evaluate.evaluate, diagnose.diagnose, compare.compare, rescore.rescore, tune.tune),
    leaderboard.leaderboard,
    *(train.train, study.study, align.align, adapt.adapt, merge.merge, calibrate.calibrate, serve.serve),
    *(perplexity.perplexity, prior.prior, ngram.ngram, lexicon.lexicon),
):
    app.command()(_command)
app.command("list")(listing.models)
app.command()(doctor.doctor)

_data = _group("data", "Make data to train on, and check it.")
_data.command("convert")(convert_data.convert)
_data.command("check")(check.check)
_data.command("synthesize")(synthesize.synthesize)
_data.command("pseudo-label")(pseudo_label.pseudo_label)
app.add_typer(_data)

_convert = _group("convert", "Make a model folder from a published model in another layout.")
_convert.command("nue-asr")(convert.nue_asr)
_convert.command("heads")(convert.heads)
_convert.command("speech-llm")(convert.speech_llm)
_convert.command("decoder")(convert.decoder)
_convert.command("llm")(convert.llm)
_convert.command("ctranslate2")(convert.ctranslate2)
app.add_typer(_convert)

_picture = _group("picture", "Draw the attention of the speech LLM, or the posteriors of the CTC head.")
_picture.command("attention")(picture.attention)
_picture.command("ctc")(picture.ctc)
app.add_typer(_picture)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"kikitori {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the `kikitori` command."""
    limit_kernel_caches()
    if not sys.warnoptions and not sys.flags.dev_mode:  # what other packages say is not for the user
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Scripts get one encoding everywhere, and file names that are not text come out as they came in.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        app()
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        complain(KikitoriError(f"unexpected {where}: {error}", remedy="set PYTHONDEVMODE=1 to see the traceback"))
        sys.exit(SOME_FAILED)
