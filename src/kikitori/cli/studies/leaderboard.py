"""`kikitori leaderboard`: predictions as the Open ASR Leaderboard's result files, scored as it scores."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from kikitori.scoring.leaderboard.results import Dataset
    from kikitori.scoring.report import Prediction


def leaderboard(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Folders of kikitori evaluate, their predictions.jsonl; or result files, to score them."),
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="MANIFEST=NAME:SPLIT, which public set a manifest is, or MANIFEST=PATH:NAME:SPLIT."),
    ] = None,
    model_id: Annotated[str | None, typer.Option("--model-id", help="Hub id of the model, ORG/NAME.")] = None,
    output: common.Folder = None,
) -> None:
    """Score English predictions as the Open ASR Leaderboard does, and write its result files."""
    with common.one_line_errors():
        from kikitori.scoring.leaderboard.results import is_result_file, read_results, results_of
        from kikitori.scoring.leaderboard.score import score
        from kikitori.scoring.leaderboard.submission import score_table, write_submission

        for path in sources:
            if not path.exists():
                raise DataError("no such file or folder", where=path, remedy="check the path")
        if all(map(is_result_file, sources)):
            if sets or model_id or output:
                raise ConfigError("is of no use here", where="--set, --model-id, -o", remedy="result files are scored")
            names = _shown([*dict.fromkeys(sources)])
            print(score_table({name: score(read_results(path)) for name, path in names.items()}))
            return
        output = common.folder_for("the result files", output)
        if model_id is None or not re.fullmatch(r"[\w.-]+/[\w.-]+", model_id):
            raise ConfigError(f"'{model_id or ''}' is no hub id", where="--model-id", remedy="write ORG/NAME")
        predictions, facts = _read(sources)
        datasets = _datasets(sets or (), predictions)
        common.make_folder(output)
        results = {}
        for name, rows in predictions.items():
            results[datasets[name]], skipped = results_of(rows)
            if skipped:
                what = counted(skipped, "recording")
                print(f"kikitori: {name}: {what} skipped, as the leaderboard does", file=sys.stderr)
            failed = [row.utterance.utt_id for row in rows if row.error is not None]
            if failed:
                print(
                    f"kikitori: warning: {name}: {len(failed)} failed and count as empty, such as {failed[0]}",
                    file=sys.stderr,
                )
        files = write_submission(output, model_id, results, facts)
        print(score_table({str(dataset): score(rows) for dataset, rows in results.items()}), flush=True)
        for file in files:
            print(f"kikitori: {file}", file=sys.stderr)


def _read(sources: Sequence[Path]) -> "tuple[dict[str, list[Prediction]], dict[str, Any]]":
    """Predictions by set, and what the reports beside them say; all of one model with one search, on clean sound."""
    from kikitori.scoring.conditions import read_conditions
    from kikitori.scoring.predictions import read_evaluations, read_report
    from kikitori.scoring.report import PREDICTIONS, REPORT

    files = [path / PREDICTIONS if path.is_dir() else path for path in sources]
    facts: dict[str, Any] = {}
    for file in files:
        values = read_report(file.with_name(REPORT))
        conditions = read_conditions(values.get("conditions"))
        if conditions is not None and conditions.sound:
            raise ConfigError(f"was made with {conditions.sound}", where=file, remedy="evaluate clean recordings")
        found = {key: values.get(key) for key in ("model", "decoding")} if values else {}
        if facts and found and any(facts[key] != found[key] for key in found):
            what = f"has another model or search ({found['model']}, {found['decoding']})"
            raise ConfigError(what, where=file, remedy="evaluate all sets with the same settings")
        facts |= found | ({"conditions": str(conditions)} if conditions is not None else {})
    return read_evaluations(files), facts


def _datasets(arguments: Sequence[str], predictions: "Mapping[str, Sequence[Prediction]]") -> "dict[str, Dataset]":
    """The data set of each set of predictions, which `--set` names by its manifest or that file's name."""
    from kikitori.scoring.leaderboard.results import parse_dataset

    datasets: dict[str, Dataset] = {}
    for argument in arguments:
        manifest, equals, dataset = argument.rpartition("=")
        if not equals:
            raise ConfigError(f"'{argument}' names no manifest", where="--set", remedy="write MANIFEST=NAME:SPLIT")
        found = [name for name in predictions if manifest in (name, Path(name).name, Path(name).stem)]
        if len(found) != 1:
            what = f"'{manifest}' is {'no set' if not found else 'several sets'} of the predictions"
            raise ConfigError(what, where="--set", remedy=f"they have {', '.join(predictions)}")
        if found[0] in datasets:
            raise ConfigError(f"'{manifest}' is named twice", where="--set", remedy="name each manifest once")
        datasets[found[0]] = parse_dataset(dataset)
    missing = [name for name in predictions if name not in datasets]
    if missing:
        remedy = f"add --set {Path(missing[0]).name}=NAME:SPLIT, such as librispeech:test.clean"
        raise ConfigError(f"not said which set {missing[0]} is", where="--set", remedy=remedy)
    if len(set(datasets.values())) < len(datasets):
        raise ConfigError("two manifests are the same set", where="--set", remedy="name each set once")
    return datasets


def _shown(paths: Sequence[Path]) -> dict[str, Path]:
    """Result files by what the table calls them: their sets, or the files themselves where sets come twice."""
    from kikitori.scoring.leaderboard.results import set_of

    by_set = {set_of(path): path for path in paths}
    return by_set if len(by_set) == len(paths) else {str(path): path for path in paths}
