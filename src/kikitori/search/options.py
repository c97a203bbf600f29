"""How to decode: a search and its options, from a name, a YAML file or a model folder's `decoding.yaml`.

Each search has a dataclass of its own, which the key `search` chooses. Beside its options a search says what it `needs`
of a model, whether its labels are written by the decoder (`autoregressive`), and by which power of the number of labels
it divides its scores (`length_exponent`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from kikitori.errors import ConfigError
from kikitori.io.config import merge_yaml, validate
from kikitori.scorers.options import INTERNAL_LM, SPEECH_LLM, STRICT, LMOptions, PriorOptions

Count = Annotated[int, Field(ge=1)]
Need = Literal["ctc", "phones", "decoder"]
"""What a search may need of a model: a CTC head over label units, one over phones, an autoregressive decoder."""


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
    min_labels: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True, config=STRICT)
class SamplingSearch:
    """Labels drawn from the speech LLM.

    Attributes:
        search: Name.
        max_labels: As of `GreedySearch`.
        min_labels: As of `GreedySearch`.
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
    min_labels: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 1234


@dataclass(frozen=True, config=STRICT)
class LabelBeam:
    """What the beam searches of the speech LLM share, see `kikitori.search.autoregressive.beam`; logs are natural.

    Attributes:
        search: Name.
        beam: Most hypotheses that are kept from label to label.
        nbest: Most hypotheses that are returned.
        max_labels: As of `GreedySearch`.
        min_labels: As of `GreedySearch`.
        length_exponent: Scores are divided by so high a power of the number of labels, the end being one.
        length_scale: Added for each label.
        score_beam: Hypotheses at most so far below the best are kept; None keeps all.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"decoder"})
    autoregressive: ClassVar[bool] = True

    search: str
    beam: Count = 4
    nbest: Count = 4
    max_labels: Count | None = None
    min_labels: Annotated[int, Field(ge=0)] | None = None
    length_exponent: Annotated[float, Field(ge=0.0)] = 0.0
    length_scale: float = 0.0
    score_beam: Annotated[float, Field(gt=0.0)] | None = None


@dataclass(frozen=True, config=STRICT)
class BeamSearch(LabelBeam):
    """The label sequences that the speech LLM finds most probable; its options are those of `LabelBeam`."""

    search: Literal["beam"] = "beam"
    length_exponent: Annotated[float, Field(ge=0.0)] = 1.0


@dataclass(frozen=True, config=STRICT)
class JointSearch(LabelBeam):
    """Beam search of the speech LLM in which the CTC head judges every hypothesis, see `autoregressive.joint`.

    Attributes:
        search: Name; further options as of `LabelBeam`.
        ctc_scale: Weight of the CTC prefix score; the LLM has what is missing to 1.
        pre_beam: Labels per hypothesis that CTC judges, the LLM's most probable ones; None for all.
        ctc_labels: And so many that it finds likeliest itself.
        window: Frames that a hypothesis reaches with a log-probability so far below its best are left out; None leaves
            out none.
        vocabulary: As of `FrameBeam`; the LLM is restricted to the same labels.
        vocabulary_by: As of `FrameBeam`.
        collapse: As of `FrameBeam`.
        collapse_by: As of `FrameBeam`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc", "decoder"})

    search: Literal["joint"] = "joint"
    ctc_scale: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3
    pre_beam: Count | None = 16
    ctc_labels: Annotated[int, Field(ge=0)] = 4
    window: Annotated[float, Field(gt=0.0)] | None = 60.0
    vocabulary: Count | None = None
    vocabulary_by: Literal["mean", "max"] = "max"
    collapse: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    collapse_by: Literal["mean", "max"] = "mean"


@dataclass(frozen=True, config=STRICT)
class CTCGreedySearch:
    """The CTC head's most probable outputs."""

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc"})
    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0

    search: Literal["ctc_greedy"] = "ctc_greedy"


@dataclass(frozen=True, config=STRICT)
class FrameBeam:
    """What the searches over the frames of the CTC head share, see `kikitori.search.ctc.beam`; logs are natural.

    Attributes:
        search: Name.
        beam: Most hypotheses that are kept from frame to frame.
        nbest: Most hypotheses that are returned.
        recombine: Whether the paths of a label sequence are summed, or the best counts (Viterbi).
        score_beam: Hypotheses at most so far below the best are kept; None keeps all.
        frame_labels: Labels per frame that may extend a hypothesis, the most probable ones; None for all.
        min_log_prob: Labels below are left out of a frame; None leaves out none.
        vocabulary: Labels of an utterance: those most probable over its frames, renormalised; None for all.
        vocabulary_by: Whether that is by the highest of their log-probabilities over time, or the mean.
        collapse: A frame joins the one before if both have the same best output with at least this probability; None
            joins none.
        collapse_by: Whether joined frames are averaged, or the highest of each output renormalised.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc"})
    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0

    search: str
    beam: Count = 16
    nbest: Count = 8
    recombine: Literal["sum", "max"] = "sum"
    score_beam: Annotated[float, Field(gt=0.0)] | None = 14.0
    frame_labels: Count | None = 40
    min_log_prob: Annotated[float, Field(le=0.0)] | None = -9.0
    vocabulary: Count | None = None
    vocabulary_by: Literal["mean", "max"] = "max"
    collapse: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    collapse_by: Literal["mean", "max"] = "mean"


@dataclass(frozen=True, config=STRICT)
class CTCBeamSearch(FrameBeam):
    """The label sequences to which the CTC head gives most; its options are those of `FrameBeam`."""

    search: Literal["ctc_beam"] = "ctc_beam"


@dataclass(frozen=True, config=STRICT)
class ShallowFusionSearch(FrameBeam):
    """CTC beam search with a language model over the same label units, see `kikitori.search.fusion.shallow`.

    Attributes:
        search: Name; further options as of `FrameBeam`.
        lm: Folder, run or hub id of the LM, or file of an n-gram; None takes `lm/` in the model folder.
        prior: File of the label prior; None takes `prior.safetensors` in the model folder.
        llm_scale: Weight of the LM's log-probability (share `lm`), that of the sentence's end included.
        prior_scale: Weight of the prior's, which is subtracted; with 0 none is needed.
        length_scale: Added for each label.
        ngram: File of an n-gram that joins beside the LM, .arpa or .ngram; also alone, where no LM is named or at hand.
        ngram_scale: Weight of its log-probability.
    """

    search: Literal["shallow_fusion"] = "shallow_fusion"
    lm: str | None = None
    prior: str | None = None
    llm_scale: Annotated[float, Field(ge=0.0)] = 0.5
    prior_scale: Annotated[float, Field(ge=0.0)] = 0.0
    length_scale: float = 0.0
    ngram: str | None = None
    ngram_scale: Annotated[float, Field(ge=0.0)] = 0.5


@dataclass(frozen=True, config=STRICT)
class JointTimeSyncSearch(FrameBeam):
    """CTC beam search with the speech LLM as its language model, see `kikitori.search.fusion.shallow`.

    Attributes:
        search: Name; further options as of `FrameBeam`.
        llm_scale: Weight of the LLM's log-probability, that of the end included; CTC has 1.
        length_scale: Added for each label.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc", "decoder"})
    autoregressive: ClassVar[bool] = True
    max_labels: ClassVar[None] = None
    min_labels: ClassVar[None] = None

    search: Literal["joint_time_sync"] = "joint_time_sync"
    beam: Count = 8
    llm_scale: Annotated[float, Field(ge=0.0)] = 0.5
    length_scale: float = 0.5


@dataclass(frozen=True, config=STRICT)
class DelayedFusionSearch(FrameBeam):
    """CTC beam search with a language model over any units, which judges words, see `kikitori.search.fusion.delayed`.

    Attributes:
        search: Name; further options as of `FrameBeam`.
        lm: The LM; None takes `lm/` in the model folder as it is.
        trigger: When complete words are judged: after every so many frames; at every `word_end`; when the `shortest`
            hypothesis has some; or `never`, that is, when the frames are over.
        prior: As of `ShallowFusionSearch`; so the scales. All of them count from when the words are judged.
        llm_scale: As there.
        prior_scale: As there.
        length_scale: As there.
    """

    search: Literal["delayed_fusion"] = "delayed_fusion"
    lm: LMOptions | None = None
    trigger: Count | Literal["word_end", "shortest", "never"] = 20
    prior: str | None = None
    llm_scale: Annotated[float, Field(ge=0.0)] = 0.5
    prior_scale: Annotated[float, Field(ge=0.0)] = 0.0
    length_scale: float = 0.0


@dataclass(frozen=True, config=STRICT)
class LexiconSearch:
    """The sentences of known words that a CTC head over phones and a word n-gram find likeliest.

    See `kikitori.search.lexicon.search`; logs are natural.

    Attributes:
        search: Name.
        beam: Most hypotheses that are kept from frame to frame.
        nbest: Most hypotheses that are returned.
        score_beam: Hypotheses at most so far below the best are kept; None keeps all.
        histories: Most word histories that are kept of those between which the n-gram's state and the word at hand make
            no difference; None for all.
        frame_phones: Phones per frame that may extend a hypothesis, the most probable ones; None for all.
        min_log_prob: Phones below are left out of a frame; None leaves out none.
        lexicon: File of the pronunciations; None takes `lexicon.tsv.xz` in the model folder.
        ngram: File of the n-gram over words; None takes `words.ngram` in the model folder.
        ngram_scale: Weight of its log-probability, that of the sentence's end included.
        unknown_score: Added to the log-probability of `<unk>` for words that the n-gram has not.
        length_scale: Added for each word.
        prior: File of the phone prior, for which `prior_scale` asks; None takes the folder's `phone_prior.safetensors`.
        prior_scale: Weight of its log-probability, which is subtracted in every frame; with 0 none is needed.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"phones"})
    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0

    search: Literal["lexicon"] = "lexicon"
    beam: Count = 200
    nbest: Count = 32
    score_beam: Annotated[float, Field(gt=0.0)] | None = 16.0
    histories: Count | None = 1
    frame_phones: Count | None = None
    min_log_prob: Annotated[float, Field(le=0.0)] | None = -7.0
    lexicon: str | None = None
    ngram: str | None = None
    ngram_scale: Annotated[float, Field(ge=0.0)] = 0.5
    unknown_score: Annotated[float, Field(le=0.0)] = -5.0
    length_scale: float = 0.0
    prior: str | None = None
    prior_scale: Annotated[float, Field(ge=0.0)] = 0.0


DraftSearch = CTCGreedySearch | CTCBeamSearch | LexiconSearch
"""What may make drafts for a speech LLM."""


def _by_ctc_beam(values: object) -> object:
    """The options of a first search, which is `ctc_beam` unless they say otherwise."""
    return {"search": CTCBeamSearch.search, **values} if isinstance(values, dict) else values


@dataclass(frozen=True, config=STRICT)
class RescoringSearch:
    """The hypotheses of a CTC beam search in another order, see `kikitori.search.rescore`.

    Attributes:
        search: Name.
        first: The search that makes the hypotheses: that of CTC, or `lexicon`.
        lms: Language models by name; each needs a scale.
        priors: Label priors by name; each needs a scale, which is below 0 to subtract it.
        scales: What the shares count, by name: `ctc` (1 if not given), `speech_llm` (the recogniser's own), `ilm`
            (its internal language model), `length` (the number of labels), and those of `lms` and `priors`. What is
            named is computed, also with scale 0. Behind `lexicon` there is its `ngram`, and `length` counts words.
    """

    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0

    search: Literal["rescoring"] = "rescoring"
    first: Annotated[
        Annotated[CTCBeamSearch | LexiconSearch, Field(discriminator="search")],
        BeforeValidator(_by_ctc_beam),
    ] = Field(default_factory=lambda: CTCBeamSearch(beam=64, nbest=64))
    lms: dict[str, LMOptions] = Field(default_factory=dict)
    priors: dict[str, PriorOptions] = Field(default_factory=dict)
    scales: dict[str, float] = Field(default_factory=dict)

    @property
    def needs(self) -> frozenset[Need]:
        """Those of the first search, and the decoder if it has a scale."""
        own: frozenset[Need] = frozenset({"decoder"} if {SPEECH_LLM, INTERNAL_LM} & {*self.scales} else ())
        return self.first.needs | own


@dataclass(frozen=True, config=STRICT)
class SpeculativeSearch:
    """What `greedy` writes, in fewer passes over drafts of a faster search, see `autoregressive.speculative`.

    Attributes:
        search: Name.
        max_labels: As of `GreedySearch`.
        min_labels: As of `GreedySearch`.
        draft: The search that makes the drafts; None takes those that the LLM reads beside the speech, if it does, and
            else `ctc_greedy`.
        margin: A label of the draft may be less probable than the LLM's own by less than this (natural log). With 0 the
            result is that of `greedy`.
        sure: A draft stands, without the LLM, if the CTC head gives it at least this probability; None always asks.
    """

    autoregressive: ClassVar[bool] = True
    length_exponent: ClassVar[float] = 0.0

    search: Literal["speculative"] = "speculative"
    max_labels: Count | None = None
    min_labels: Annotated[int, Field(ge=0)] | None = None
    draft: Annotated[DraftSearch, Field(discriminator="search")] | None = None
    margin: Annotated[float, Field(ge=0.0)] = 0.0
    sure: Annotated[float, Field(gt=0.0, le=1.0)] | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """The decoder, what makes the drafts, and the CTC head that is to be sure of them."""
        drafts = CTCGreedySearch.needs if self.draft is None else self.draft.needs
        own: frozenset[Need] = frozenset({"decoder", "ctc"} if self.sure else {"decoder"})
        return own | drafts


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
        return with_overrides(_validated(merge_yaml(name_or_yaml), str(name_or_yaml)), overrides)
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
