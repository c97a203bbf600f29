"""How to decode: a search and its options, from a name, a YAML file or a model folder's `decoding.yaml`.

Each search has a dataclass of its own, which the key `search` chooses. Beside its options a search says what it `needs`
of a model, whether its labels are written by the decoder (`autoregressive`), and by which power of the number of labels
it divides its scores (`length_exponent`). Logs are natural.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from kikitori.errors import ConfigError
from kikitori.io.config import merge_yaml, validate
from kikitori.scorers.options import (
    CTC,
    INTERNAL_LM,
    LENGTH,
    LM,
    NGRAM,
    PRIOR,
    SPEECH_LLM,
    STRICT,
    ScorerOptions,
    Scorers,
    one_of,
    scale_of,
)
from kikitori.search.old_options import new_form
from kikitori.search.pruning import Count, FramePruning, JointPruning, LabelPruning, LexiconPruning

NotNegative = Annotated[int, Field(ge=0)]
Need = Literal["ctc", "phones", "decoder"]
"""What a search may need of a model: a CTC head over label units, one over phones, an autoregressive decoder."""
OVER_LABELS: Mapping[str, Sequence[str]] = {LM: ("path",), NGRAM: ("path",), PRIOR: ("path",)}
"""External scorers of label sequences and what may be said of them."""


class Scored:
    """A search with scorers beside, or in place of, its own.

    Attributes:
        SCALES: Scales of scorers that are not named, or without one; what is missing here counts 0.
        scorers: Those that are named.
    """

    SCALES: ClassVar[Mapping[str, float]] = {}
    scorers: Scorers

    def scale(self, name: str) -> float:
        """The scale of a scorer."""
        return scale_of(self.scorers, name, self.SCALES.get(name, 0.0))

    def scorer(self, name: str) -> ScorerOptions:
        """What is said of a scorer."""
        return self.scorers.get(name, ScorerOptions())


@dataclass(frozen=True, config=STRICT)
class GreedySearch:
    """The speech LLM's most probable labels.

    Attributes:
        search: Name.
        max_labels: Most labels per utterance; None derives it from the duration (see `kikitori.search.length`).
        min_labels: Fewest labels per utterance; None takes the model's.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"decoder"})
    autoregressive: ClassVar[bool] = True
    length_exponent: ClassVar[float] = 0.0
    search: Literal["greedy"] = "greedy"
    max_labels: Count | None = None
    min_labels: NotNegative | None = None


@dataclass(frozen=True, config=STRICT)
class SamplingSearch:
    """Labels drawn from the speech LLM.

    Attributes:
        search: Name.
        max_labels: Most labels per utterance; None derives it from the duration.
        min_labels: Fewest labels per utterance; None takes the model's.
        temperature: Divides the logits before drawing.
        top_k: Draw from so many of the most probable labels; 0 draws from all.
        top_p: Draw from the most probable labels that together reach this probability.
        seed: Decides, together with the audio, what is drawn.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"decoder"})
    autoregressive: ClassVar[bool] = True
    length_exponent: ClassVar[float] = 0.0
    search: Literal["sampling"] = "sampling"
    max_labels: Count | None = None
    min_labels: NotNegative | None = None
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    top_k: NotNegative = 0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: NotNegative = 1234


@dataclass(frozen=True, config=STRICT)
class LabelBeam:
    """What the beam searches of the speech LLM share, see `kikitori.search.autoregressive.beam`.

    Attributes:
        search: Name.
        beam: Most hypotheses that are kept from label to label.
        nbest: Most hypotheses that are returned.
        max_labels: Most labels per utterance; None derives it from the duration.
        min_labels: Fewest labels per utterance; None takes the model's.
        length_exponent: Scores are divided by so high a power of the number of labels, the end being one.
        pruning: What is left out.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"decoder"})
    autoregressive: ClassVar[bool] = True
    search: str
    beam: Count = 4
    nbest: Count = 4
    max_labels: Count | None = None
    min_labels: NotNegative | None = None
    length_exponent: Annotated[float, Field(ge=0.0)] = 0.0
    pruning: LabelPruning = LabelPruning()


@dataclass(frozen=True, config=STRICT)
class BeamSearch(LabelBeam, Scored):
    """The label sequences that the speech LLM finds most probable.

    Attributes:
        search: Name; further options are those of `LabelBeam`.
        scorers: `speech_llm` (scale 1), `ilm` (its internal language model, 0), `length` (the number of labels, 0).
    """

    SCALES: ClassVar[Mapping[str, float]] = {SPEECH_LLM: 1.0}
    search: Literal["beam"] = "beam"
    length_exponent: Annotated[float, Field(ge=0.0)] = 1.0
    scorers: Annotated[Scorers, one_of({SPEECH_LLM: (), INTERNAL_LM: (), LENGTH: ()})] = Field(default_factory=dict)


def _sums_to_one(scorers: Scorers) -> Scorers:
    """Checks the scale of CTC where the LLM has what is missing to 1."""
    weighted = SPEECH_LLM in scorers and scorers[SPEECH_LLM].scale is not None
    if not weighted and not 0.0 <= scale_of(scorers, CTC, 0.0) <= 1.0:
        raise ValueError("the scale of 'ctc' has to be from 0 to 1, unless 'speech_llm' has one too")
    return scorers


@dataclass(frozen=True, config=STRICT)
class JointSearch(LabelBeam, Scored):
    """Beam search of the speech LLM in which the CTC head scores every hypothesis, see `autoregressive.joint`.

    Attributes:
        search: Name; further options are those of `LabelBeam`.
        pruning: What is left out.
        scorers: `ctc` (scale 0.3), `speech_llm` (what is missing to 1), `ilm`, `lm`, `ngram`, `prior`, `length` (0).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc", "decoder"})
    SCALES: ClassVar[Mapping[str, float]] = {CTC: 0.3, LM: 0.5, NGRAM: 0.5}
    search: Literal["joint"] = "joint"
    pruning: JointPruning = JointPruning()
    scorers: Annotated[
        Scorers,
        one_of({CTC: (), SPEECH_LLM: (), INTERNAL_LM: (), **OVER_LABELS, LENGTH: ()}),
        AfterValidator(_sums_to_one),
    ] = Field(default_factory=dict)

    def scale(self, name: str) -> float:
        """The scale of a scorer."""
        default = 1.0 - self.scale(CTC) if name == SPEECH_LLM else self.SCALES.get(name, 0.0)
        return scale_of(self.scorers, name, default)


@dataclass(frozen=True, config=STRICT)
class CTCGreedySearch:
    """The CTC head's most probable outputs."""

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc"})
    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0
    search: Literal["ctc_greedy"] = "ctc_greedy"


@dataclass(frozen=True, config=STRICT)
class FrameBeam:
    """What the searches over the frames of the CTC head share, see `kikitori.search.ctc.beam`.

    Attributes:
        search: Name.
        beam: Most hypotheses that are kept from frame to frame.
        nbest: Most hypotheses that are returned.
        pruning: What is left out.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc"})
    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0
    search: str
    beam: Count = 16
    nbest: Count = 8
    pruning: FramePruning = FramePruning()


@dataclass(frozen=True, config=STRICT)
class CTCBeamSearch(FrameBeam):
    """The label sequences to which the CTC head gives most; its options are those of `FrameBeam`."""

    search: Literal["ctc_beam"] = "ctc_beam"


@dataclass(frozen=True, config=STRICT)
class ShallowFusionSearch(FrameBeam, Scored):
    """CTC beam search with a language model over the same label units, see `kikitori.search.fusion.shallow`.

    CTC has the scale 1. Scores of LM and n-gram have that of the sentence's end in them.

    Attributes:
        search: Name; further options are those of `FrameBeam`.
        scorers: `lm` (scale 0.5; also the file of an n-gram), `ngram` (file of an n-gram that joins beside the LM, or
            alone where no LM is named or at hand; 0.5), `prior` (of the labels, 0), `length` (the number of labels, 0).
    """

    SCALES: ClassVar[Mapping[str, float]] = {LM: 0.5, NGRAM: 0.5}
    search: Literal["shallow_fusion"] = "shallow_fusion"
    scorers: Annotated[Scorers, one_of({**OVER_LABELS, LENGTH: ()})] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class JointTimeSyncSearch(FrameBeam, Scored):
    """CTC beam search with the speech LLM as its language model, see `kikitori.search.fusion.shallow`.

    CTC has the scale 1.

    Attributes:
        search: Name; further options are those of `FrameBeam`.
        scorers: `speech_llm` (scale 0.5), `length` (0.5), `ilm`, `lm`, `ngram`, `prior` (0).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc", "decoder"})
    autoregressive: ClassVar[bool] = True
    max_labels: ClassVar[None] = None
    min_labels: ClassVar[None] = None
    SCALES: ClassVar[Mapping[str, float]] = {SPEECH_LLM: 0.5, LENGTH: 0.5, LM: 0.5, NGRAM: 0.5}
    search: Literal["joint_time_sync"] = "joint_time_sync"
    beam: Count = 8
    scorers: Annotated[Scorers, one_of({SPEECH_LLM: (), INTERNAL_LM: (), **OVER_LABELS, LENGTH: ()})] = Field(
        default_factory=dict
    )


@dataclass(frozen=True, config=STRICT)
class DelayedFusionSearch(FrameBeam, Scored):
    """CTC beam search with a language model over any units, which scores words, see `kikitori.search.fusion.delayed`.

    CTC has the scale 1. Other scores count from when the words are scored.

    Attributes:
        search: Name; further options are those of `FrameBeam`.
        trigger: When complete words are scored: after every so many frames; at every `word_end`; when the `shortest`
            hypothesis has some; or `never`, that is, when the frames are over.
        scorers: `lm` (scale 0.5), `prior` (of the recogniser's labels, 0), `length` (their number, 0).
    """

    SCALES: ClassVar[Mapping[str, float]] = {LM: 0.5}
    search: Literal["delayed_fusion"] = "delayed_fusion"
    trigger: Count | Literal["word_end", "shortest", "never"] = 20
    scorers: Annotated[Scorers, one_of({LM: ("path", "text_form", "prompt"), PRIOR: ("path",), LENGTH: ()})] = Field(
        default_factory=dict
    )


def _lookahead(scorers: Scorers) -> Scorers:
    """The tree's lookahead is a bound from above for scales from 0 on alone."""
    if scale_of(scorers, NGRAM, 0.0) < 0.0:
        raise ValueError("the scale of 'ngram' has to be 0 or above")
    return scorers


@dataclass(frozen=True, config=STRICT)
class LexiconSearch(Scored):
    """The sentences of known words that a CTC head over phones and a word n-gram find likeliest.

    See `kikitori.search.lexicon.search`. CTC has the scale 1.

    Attributes:
        search: Name.
        beam: Most hypotheses that are kept from frame to frame.
        nbest: Most hypotheses that are returned.
        lexicon: File of the pronunciations; None takes `lexicon.tsv.xz` in the model folder.
        pruning: What is left out.
        scorers: `ngram` (over words, scale 0.5; `words.ngram` in the model folder), `length` (the number of words, 0),
            `prior` (of phones, in every frame, 0; `phone_prior.safetensors` in the model folder).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"phones"})
    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0
    SCALES: ClassVar[Mapping[str, float]] = {NGRAM: 0.5}
    search: Literal["lexicon"] = "lexicon"
    beam: Count = 200
    nbest: Count = 32
    lexicon: str | None = None
    pruning: LexiconPruning = LexiconPruning()
    scorers: Annotated[
        Scorers, one_of({NGRAM: ("path",), PRIOR: ("path",), LENGTH: ()}), AfterValidator(_lookahead)
    ] = Field(default_factory=dict)


DraftSearch = CTCGreedySearch | CTCBeamSearch | LexiconSearch
"""What may make drafts for a speech LLM."""


def _by_ctc_beam(values: object) -> object:
    """The options of a first search, which is `ctc_beam` unless they say otherwise."""
    return {"search": CTCBeamSearch.search, **values} if isinstance(values, dict) else values


@dataclass(frozen=True, config=STRICT)
class RescoringSearch(Scored):
    """The hypotheses of a CTC beam search in another order, see `kikitori.search.rescore`.

    Attributes:
        search: Name.
        first: The search that makes the hypotheses: that of CTC, or `lexicon`.
        scorers: By any name language models, n-grams and priors; and `ctc` (scale 1), `speech_llm`, `ilm` (its internal
            language model), `length` (the number of labels). What is named is computed, also with scale 0. Behind
            `lexicon` there is its `ngram`, and `length` counts words.
    """

    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0
    SCALES: ClassVar[Mapping[str, float]] = {CTC: 1.0}
    search: Literal["rescoring"] = "rescoring"
    first: Annotated[
        Annotated[CTCBeamSearch | LexiconSearch, Field(discriminator="search")],
        BeforeValidator(_by_ctc_beam),
    ] = Field(default_factory=lambda: CTCBeamSearch(beam=64, nbest=64))
    scorers: Scorers = Field(default_factory=dict)

    @property
    def needs(self) -> frozenset[Need]:
        """Those of the first search, and the decoder if it is among the scorers."""
        own: frozenset[Need] = frozenset({"decoder"} if {SPEECH_LLM, INTERNAL_LM} & {*self.scorers} else ())
        return self.first.needs | own

    @property
    def first_scores(self) -> tuple[str, ...]:
        """Scores beside CTC's that hypotheses have from the first search."""
        return (NGRAM,) if "phones" in self.first.needs else ()

    @property
    def priors(self) -> Scorers:
        """The label priors among the scorers."""
        return {name: each for name, each in self.scorers.items() if each.path and (each.prior or name == PRIOR)}

    @property
    def lms(self) -> Scorers:
        """The language models and n-grams among the scorers."""
        return {name: each for name, each in self.scorers.items() if each.path and name not in self.priors}

    @property
    def scales(self) -> dict[str, float]:
        """The scales by name; that of CTC is 1 where none is given."""
        return {CTC: self.scale(CTC), **{name: self.scale(name) for name in self.scorers}}


@dataclass(frozen=True, config=STRICT)
class SpeculativeSearch:
    """What `greedy` writes, in fewer passes over drafts of a faster search, see `autoregressive.speculative`.

    Attributes:
        search: Name.
        max_labels: Most labels per utterance; None derives it from the duration.
        min_labels: Fewest labels per utterance; None takes the model's.
        draft: The search that makes the drafts; None takes those that the LLM reads beside the speech, if it does, and
            else `ctc_greedy`.
    """

    autoregressive: ClassVar[bool] = True
    length_exponent: ClassVar[float] = 0.0
    search: Literal["speculative"] = "speculative"
    max_labels: Count | None = None
    min_labels: NotNegative | None = None
    draft: Annotated[DraftSearch, Field(discriminator="search")] | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """The decoder, and what makes the drafts."""
        drafts = CTCGreedySearch.needs if self.draft is None else self.draft.needs
        return frozenset[Need]({"decoder"}) | drafts


Decoding = (
    GreedySearch
    | SamplingSearch
    | BeamSearch
    | JointSearch
    | JointTimeSyncSearch
    | CTCGreedySearch
    | CTCBeamSearch
    | ShallowFusionSearch
    | DelayedFusionSearch
    | LexiconSearch
    | RescoringSearch
    | SpeculativeSearch
)
SEARCHES: Mapping[str, type[Decoding]] = {search().search: search for search in get_args(Decoding)}


def load_decoding(name_or_yaml: str | Path, overrides: Sequence[str] = ()) -> Decoding:
    """Options from the name of a search or a YAML file, with overrides such as `decoding.max_labels=50`.

    Raises:
        ConfigError: No such search or file, or an option that does not fit.
    """
    if str(name_or_yaml).endswith((".yaml", ".yml")):
        return with_overrides(_read(name_or_yaml), overrides)
    return with_overrides(_validated({"search": str(name_or_yaml)}, "--decoding"), overrides)


def with_overrides(decoding: Decoding, overrides: Sequence[str]) -> Decoding:
    """The options with overrides such as `decoding.max_labels=50` applied.

    `decoding.search=NAME` changes the search; what was set of another one's options is then left behind.

    Raises:
        ConfigError: An override that names no option or does not fit.
    """
    for override in overrides:
        if not override.startswith("decoding."):
            raise ConfigError("no such option", where=override, remedy="options here begin with decoding.")
    changes = merge_yaml(None, [override.removeprefix("decoding.") for override in overrides])
    kept = asdict(decoding) if changes.get("search", decoding.search) == decoding.search else {}
    changes = new_form(changes, str(changes.get("search", decoding.search)), "decoding")
    return _validated(_merged(kept, changes), "decoding")


def check_overrides(overrides: Sequence[str]) -> None:
    """Checks overrides before it is known to which search they will apply.

    Raises:
        ConfigError: There is no search that they all fit.
    """
    problems = []
    for search in SEARCHES.values():
        try:
            with_overrides(search(), overrides)
        except ConfigError as error:
            problems.append(error)
        else:
            return
    raise problems[0]


def decoding_yaml(options: Decoding) -> str:
    """The options that differ from a search's own, as the text of a YAML file."""
    import yaml

    values = _changed(asdict(options), asdict(type(options)()))
    return yaml.safe_dump({"search": options.search, **values}, sort_keys=False, allow_unicode=True)


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are not the defaults, section by section."""
    changed: dict[str, Any] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if value == default:
            continue
        if key == "scorers":
            plain = asdict(ScorerOptions())
            changed[key] = {name: _changed(each, plain) for name, each in value.items()}
        elif isinstance(value, dict) and "search" in value:
            own = asdict(SEARCHES[value["search"]]())
            # The first search is CTC's unless its name is given.
            named = {} if value["search"] == CTCBeamSearch.search and key == "first" else {"search": value["search"]}
            changed[key] = named | _changed(value, own)
        elif isinstance(value, dict):
            changed[key] = _changed(value, default or {})
        else:
            changed[key] = value
    return changed


def _read(file: str | Path) -> Decoding:
    values = merge_yaml(file)
    name = values.get("search", GreedySearch.search)
    return _validated(new_form(values, str(name), str(file)), str(file))


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with changes applied, section by section."""
    merged = dict(values)
    for key, change in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(change, dict) and not _another_search(old, change):
            merged[key] = _merged(old, change)
        else:
            merged[key] = change
    return merged


def _another_search(old: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    """Whether a section changes its search, so that the options of the old one no longer apply."""
    return bool(change.get("search", old.get("search")) != old.get("search"))


def _validated(values: dict[str, Any], where: str) -> Decoding:
    name = values.get("search", GreedySearch.search)
    if not isinstance(name, str) or name not in SEARCHES:
        known = ", ".join(repr(search) for search in SEARCHES)
        raise ConfigError(f"no such search: {name!r}", where=f"{where}: search", remedy=f"known are {known}")
    return validate(SEARCHES[name], values, where)
