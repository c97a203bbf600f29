"""`kikitori adapt`: a recogniser and a domain's speech or text in, an adapter and a comparison on both domains out.

The run is a recipe like any other (task `adaptation`; `kikitori train` takes it from a file) and goes through
`kikitori.train`; what is special comes before it, the recipe's defaults, and after it: base and adapted recogniser on
the new domain and on the old one.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kikitori.errors import ConfigError
from kikitori.io.config import merge_yaml, merged
from kikitori.io.files import write_text
from kikitori.io.model_folder import LEXICON, model_folder
from kikitori.loading import load
from kikitori.model.adapters.folder import num_bytes, num_parameters
from kikitori.model.safety.config import read_json
from kikitori.model.safety.trained_on import read_trained_on
from kikitori.scoring.source_target import compare, format_comparison
from kikitori.search.options import GreedySearch
from kikitori.train.build.corpora import read_ref
from kikitori.train.recipe.adaptation import Adaptation, SpeechAdaptationRecipe, TextAdaptationRecipe
from kikitori.train.recipe.components import CTC
from kikitori.train.recipe.legacy import renamed_overrides
from kikitori.train.recipe.recipe import parse_recipe
from kikitori.train.run import train_recipe
from kikitori.types import Utterance
from kikitori.workflows.evaluate import Searching, evaluate
from kikitori.workflows.machine.conditions import versions

SEARCH = GreedySearch()
"""What the report decodes with: the LLM's own search, for the LLM is what is adapted."""
CTC_WEIGHT = 0.3
"""Weight of each CTC loss where the encoder is adapted, so that its heads follow it."""


@dataclass(frozen=True)
class Rows:
    """Manifests, and the split that is taken of them (None: all rows)."""

    manifests: Sequence[Path] = ()
    split: str | None = None

    def references(self) -> list[dict[str, Any]]:
        """The manifests in the form that recipes have."""
        return [{"path": str(path), "split": self.split} for path in self.manifests]


@dataclass(frozen=True)
class Domain:
    """Speech or text of the new domain to adapt to, and what there is of both domains beside it.

    Attributes:
        dev: Speech of the new domain that chooses between epochs and is reported on.
        replay: Speech of the old domain to mix in (for a text adaptation, its transcripts).
        source: Speech of the old domain that is reported on.
    """

    data: Rows = Rows()
    text: Sequence[Path] = ()
    dev: Rows = Rows()
    replay: Rows = Rows()
    source: Rows = Rows()


def adapt(
    recipe: Adaptation, directory: Path, *, resume: bool = False, weights_only: bool = False
) -> dict[str, Any] | None:
    """Adapts a recogniser: `adapter/` and `adaptation.json` in the run folder; returns that report.

    None if SIGTERM ended the run early, with everything saved.

    Raises:
        KikitoriError: The settings, the data or the base do not fit, or the run broke off.
    """
    sides = read_sides(recipe)
    if not train_recipe(recipe, directory, resume=resume, weights_only=weights_only):
        return None
    if int(os.environ.get("RANK", "0")):
        return None
    report = comparison_report(recipe, directory, sides)
    write_text(directory / "adaptation.json", json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    return report


def adaptation_recipe(model: str, domain: Domain, overrides: Sequence[str] = ()) -> Adaptation:
    """The recipe of an adaptation of a base (a folder, a run or a hub id), with overrides `section.key=value`.

    Raises:
        ConfigError: There is nothing to adapt to, or an override does not fit.
    """
    if bool(domain.data.manifests) == bool(domain.text):
        raise ConfigError("nothing to adapt to, or two things", where="adapt", remedy="give either --data or --text")
    folder = model_folder(model)
    sides = {"target": domain.dev.references(), "source": domain.source.references()}
    report = {name: references for name, references in sides.items() if references}
    values: dict[str, Any] = {
        "task": "adaptation",
        "units": {"kind": "run", "path": folder},
        "adapt": {"model": folder, "components": ["llm"]},
        "report": report,
        "optim": {"lr": 2e-4},
        "run": {"epochs": 5},
        "language": read_trained_on(folder).language or "en",
    }
    if domain.text:
        values["text"] = {"files": [str(path) for path in domain.text], "dev_lines": 50}
        values["text_injection"] = {"share": 1.0, "lexicon": _shown_lexicon(folder)}
    else:
        values["data"] = {"train": domain.data.references(), "dev": domain.dev.references(), "batch_seconds": 80.0}
    if domain.replay.manifests:
        values["replay"] = {"train": domain.replay.references()}
    match parse_recipe(merged(values, merge_yaml(None, renamed_overrides(overrides))), "adapt"):
        case SpeechAdaptationRecipe() as recipe if "encoder" in recipe.adapt.components and not recipe.ctc.weights:
            return replace(recipe, ctc=CTC(weights=dict.fromkeys(_ctc_layers(folder), CTC_WEIGHT)))
        case SpeechAdaptationRecipe() | TextAdaptationRecipe() as recipe:
            return recipe
        case _:
            raise ConfigError("an adaptation is of no other task", where="adapt: task", remedy="leave it out")


def read_sides(recipe: Adaptation) -> dict[str, list[Utterance]]:
    """The rows of each side of the report.

    Raises:
        DataError: A manifest is missing, has a broken line, or no rows of the split.
    """
    root = Path(recipe.data_root)
    return {
        name: [row for ref in refs for row in read_ref(root, ref).rows] for name, refs in (recipe.report or {}).items()
    }


def comparison_report(recipe: Adaptation, directory: Path, sides: Mapping[str, Sequence[Utterance]]) -> dict[str, Any]:
    """Content of `adaptation.json`: base and adapted recogniser on the rows of each side.

    Warns of an adapter that changes nothing, also if there are no sides.
    """
    base, adapter, device = model_folder(recipe.adapt.model), directory / "adapter", recipe.run.device
    before, after = (
        evaluate(Searching(load(base, device=device, decoding=SEARCH, adapter=switched_on), SEARCH), sides)
        for switched_on in (None, adapter)
    )
    return {
        "model": base,
        "adapter": {
            "components": recipe.adapt.components,
            "bytes": num_bytes(adapter),
            "parameters": num_parameters(adapter),
        },
        "decoding": SEARCH.search,
        "sides": {name: compare(before[name], after[name], language=recipe.language) for name in sides},
        "versions": versions(),
    }


def format_report(report: Mapping[str, Any]) -> str:
    """The report as plain text."""
    adapter = report["adapter"]
    size = f"adapter: {adapter['parameters'] / 1e6:.3f} M parameters, {adapter['bytes'] / 1e6:.2f} MB"
    lines = [f"{size} ({', '.join(adapter['components'])})"]
    return "\n".join([*([format_comparison(report["sides"])] if report["sides"] else []), *lines])


def _shown_lexicon(folder: str) -> str | None:
    """The base's pronunciations, if its speech prompts show phones."""
    lexicon = Path(folder) / LEXICON
    return str(lexicon) if lexicon.is_file() and read_json(folder, "config.json").get("show_phones") else None


def _ctc_layers(folder: str) -> list[int]:
    acoustic = read_json(folder, "config.json").get("acoustic_config")
    return list(acoustic.get("ctc_layers") or []) if isinstance(acoustic, dict) else []
