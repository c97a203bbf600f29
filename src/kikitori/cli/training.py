"""`kikitori train | align | adapt | merge`: recognisers from recipes, and for other domains."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli.common import (
    Model,
    SplitOption,
    TextForm,
    folder_for,
    one_line_errors,
    only_overrides,
    warnings_as_lines,
)
from kikitori.errors import ConfigError

if TYPE_CHECKING:
    from kikitori.train.recipe.adaptation import Adaptation


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as run.epochs=10.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint.")] = False,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="With --resume: weights and position alone, the rest afresh.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, train nothing.")] = False,
) -> None:
    """Train what a recipe describes."""
    with one_line_errors():
        for override in overrides or []:
            if "=" not in override:
                raise ConfigError("not an override", where=override, remedy="write section.key=value")
        from kikitori.train import run
        from kikitori.train.recipe.adaptation import AdaptationRecipe
        from kikitori.train.recipe.recipe import load_recipe

        if dry_run:
            for line in run.dry_run(recipe, overrides or []):
                print(line)
        elif output is None:
            raise ConfigError("no run folder given", where="-o", remedy="name one, or use --dry-run")
        else:
            loaded = load_recipe(recipe, overrides or [])
            if isinstance(loaded, AdaptationRecipe):
                _adapt(loaded, output, resume=resume, weights_only=weights_only)
            else:
                run.train_recipe(loaded, output, resume=resume, weights_only=weights_only)


def align(
    data: Annotated[list[Path] | None, typer.Option("--data", help="Manifest of speech; may be repeated.")] = None,
    split: SplitOption = None,
    lexicon: Annotated[Path | None, typer.Option("--lexicon", help="Pronunciations, see kikitori lexicon.")] = None,
    text_form: Annotated[TextForm, typer.Option("--text-form", help="Form of the lexicon's words.")] = TextForm.plain,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File, .safetensors.")] = None,
) -> None:
    """Find out which phone is spoken when in transcribed speech, for ctc.phones.alignments of a recipe."""
    with one_line_errors():
        from kikitori.align.hmm.corpus import align_corpus, save_alignments
        from kikitori.data.manifest import read_manifest
        from kikitori.text.lexicon import read_lexicon
        from kikitori.text.units import in_form

        if not data or lexicon is None or output is None:
            raise ConfigError("--data, --lexicon and -o are needed", remedy="name manifest, lexicon and file")
        rows = [row for manifest in data for row in read_manifest(manifest, split=split).utterances]
        found = align_corpus(rows, read_lexicon(lexicon), lambda text: in_form(text, text_form.value), print)
        save_alignments(output, found)


def adapt(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides such as lora.rank=8 or run.epochs=3.")
    ] = None,
    model: Model = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="Manifest to adapt to; may be repeated.")] = None,
    split: SplitOption = None,
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="Text to adapt to instead, plain, .gz, .xz.")
    ] = None,
    dev: Annotated[
        list[Path] | None, typer.Option("--dev", help="New domain's manifest, to choose and report.")
    ] = None,
    dev_split: SplitOption = None,
    replay: Annotated[list[Path] | None, typer.Option("--replay", help="Old domain's manifest, to mix in.")] = None,
    replay_split: SplitOption = None,
    source: Annotated[list[Path] | None, typer.Option("--source", help="Old domain's manifest, to report.")] = None,
    source_split: SplitOption = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint.")] = False,
) -> None:
    """Adapt a recogniser to a domain: an adapter, and what it gains and costs."""
    with one_line_errors():
        settings = only_overrides(overrides)
        if output is None:
            raise ConfigError("no run folder given", where="-o", remedy="name one")
        from kikitori.recognizer import BUNDLED
        from kikitori.workflows import adapt as adaptation

        rows = adaptation.Rows
        domain = adaptation.Domain(
            data=rows(data or (), split),
            text=text or (),
            dev=rows(dev or (), dev_split),
            replay=rows(replay or (), replay_split),
            source=rows(source or (), source_split),
        )
        recipe = adaptation.adaptation_recipe(model or str(BUNDLED), domain, settings)
        _adapt(recipe, output, resume=resume)


def merge(
    adapter: Annotated[Path, typer.Argument(help="Adapter folder, or the run of kikitori adapt.")],
    model: Model = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the recogniser.")] = None,
) -> None:
    """Write a recogniser and its adapter as one plain recogniser."""
    with one_line_errors(), warnings_as_lines():
        output = folder_for("the recogniser", output)
        from kikitori.model.adapters.folder import merge_adapter
        from kikitori.recognizer import BUNDLED

        merge_adapter(model or BUNDLED, adapter, output)
        print(f"{output}", flush=True)


def _adapt(recipe: "Adaptation", output: Path, *, resume: bool, weights_only: bool = False) -> None:
    from kikitori.workflows import adapt as adaptation

    with warnings_as_lines():
        report = adaptation.adapt(recipe, output, resume=resume, weights_only=weights_only)
    if report is not None:
        print(adaptation.format_report(report), flush=True)
