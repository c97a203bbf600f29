"""The sections of a recipe but for encoder, bridge and LLM, which `components.py` describes."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from kikitori.text.units import TextForm
from kikitori.types import Component

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
AveragingFactor = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class ManifestRef:
    """One manifest that takes part.

    Attributes:
        path: Manifest file, relative to `data_root`.
        split: Rows of this split only.
        repeat: How often an epoch goes through it.
        share: Take so many of its rows, evenly spread.
        apart_from: Splits of the same manifest; rows that share six words in a row with their transcripts are left out
            (see `kikitori.data.overlap`).
    """

    path: str
    split: str | None = None
    repeat: AtLeastOne = 1
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    apart_from: list[str] = Field(default_factory=list)


@dataclass(frozen=True, config=STRICT)
class SpeechData:
    """Transcribed speech.

    Attributes:
        train: Manifests to train on.
        dev: Manifests that choose between checkpoints.
        min_seconds: Shorter utterances are left out of training.
        max_seconds: Longer utterances are left out of training.
        on_error: `skip` goes on without broken manifest lines and unreadable files, `stop` ends the run.
        cache_audio: Keep decoded audio in memory (115 MB an hour).
        batch_seconds: Padded seconds of audio in a batch.
        max_batch_size: Utterances in a batch.
        num_buckets: Buckets of similar duration.
        start_seconds: Longest utterance of the first `start_epochs` epochs.
        start_epochs: Number of epochs on short utterances at the start.
        max_dev_utterances: Dev utterances decoded at each evaluation, evenly spread; 0 takes all.
    """

    train: list[ManifestRef]
    dev: list[ManifestRef] = Field(default_factory=list)
    min_seconds: NotNegative = 0.1
    max_seconds: Positive = 30.0
    on_error: Literal["stop", "skip"] = "stop"
    cache_audio: bool = False
    batch_seconds: Positive = 160.0
    max_batch_size: AtLeastOne = 64
    num_buckets: AtLeastOne = 12
    start_seconds: Positive = 30.0
    start_epochs: Count = 0
    max_dev_utterances: Count = 0

    def __post_init__(self) -> None:
        """Checks that some duration is allowed."""
        if self.min_seconds > self.max_seconds:
            raise ValueError("min_seconds is more than max_seconds")


@dataclass(frozen=True, config=STRICT)
class TextData:
    """Text for units and language models: UTF-8 files, one sentence a line, `.xz` and `.gz` included.

    Attributes:
        files: Text files, relative to `data_root`.
        transcripts: Manifests whose transcripts are text too, relative to `data_root`.
        max_lines: Lines taken of each file, evenly spread; 0 takes all.
        dev_lines: Lines held out, evenly spread, for the dev perplexity.
        spoken_titles: Write Mr., Mrs. and Dr. as they are spoken (English).
        batch_labels: Labels in a batch, padding included.
        max_labels: Longer sentences are cut.
    """

    files: list[str] = Field(default_factory=list)
    transcripts: list[ManifestRef] = Field(default_factory=list)
    max_lines: Count = 0
    dev_lines: Count = 500
    spoken_titles: bool = False
    batch_labels: AtLeastOne = 4096
    max_labels: AtLeastOne = 256


@dataclass(frozen=True, config=STRICT)
class Units:
    """Label units.

    Attributes:
        kind: `characters`, `sentencepiece` (trained on the recipe's text), `llm` (the LLM's own) or `run` (those of an
            earlier run or model folder).
        size: Number of SentencePiece units.
        text_form: `as_is`, `lower`, or `en_plain` (lower case, a to z and apostrophe); prompts of an LLM's own units
            keep their form.
        path: Folder that holds the units, for `run`.
        bpe_dropout: Probability with which training passes over a merge of an LLM's BPE; each epoch then segments anew.
    """

    kind: Literal["characters", "sentencepiece", "llm", "run"]
    size: AtLeastOne = 512
    text_form: TextForm = "as_is"
    path: str | None = None
    bpe_dropout: Fraction = 0.0

    def __post_init__(self) -> None:
        """Checks that `path` is there exactly when it is used."""
        if (self.kind == "run") != (self.path is not None):
            raise ValueError("units.path goes with units.kind 'run', and only with it")


@dataclass(frozen=True, config=STRICT)
class SpecAugment:
    """SpecAugment on log-mel features.

    Attributes:
        time_masks_per_second: Time masks per second of speech.
        max_time_mask: Longest time mask in frames of 10 ms.
        frequency_masks: Number of frequency masks.
        max_frequency_mask: Widest frequency mask in bins.
        ramp: Fraction of the training over which the number of masks grows from none to all.
    """

    time_masks_per_second: NotNegative = 0.7
    max_time_mask: Count = 20
    frequency_masks: Count = 2
    max_frequency_mask: Count = 16
    ramp: Fraction = 0.1


@dataclass(frozen=True, config=STRICT)
class Augment:
    """Augmentation of the training speech.

    Attributes:
        speeds: Speed factors, one drawn per utterance and epoch.
        gain_db: Gain is drawn from plus or minus this many decibels.
        noise_probability: Share of utterances that get noise.
        noise_snr_db: Lowest and highest signal-to-noise ratio of the noise.
        vocal_tract: Frequencies are warped by factors drawn from 1 minus to 1 plus this, as if others were speaking,
            for encoders that read log-mel features.
        spec_augment: Masks on log-mel features; None switches them off.
    """

    speeds: list[Positive] = Field(default_factory=list)
    gain_db: NotNegative = 0.0
    noise_probability: Fraction = 0.0
    noise_snr_db: tuple[float, float] = (10.0, 40.0)
    vocal_tract: Fraction = 0.0
    spec_augment: SpecAugment | None = None

    def __post_init__(self) -> None:
        """Checks the order of the signal-to-noise ratios."""
        if self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise ValueError("noise_snr_db goes from the lowest to the highest")


@dataclass(frozen=True, config=STRICT)
class Prompt:
    """The text around the speech in the LLM's input.

    Attributes:
        preset: `nue_asr`, `rwth` or `plain`; the other fields override it.
        before: Text before the speech.
        after: Text after the speech.
        bos: Token between the prompt and the transcript.
        eos: Token that ends the transcript.
        draft: File of the search (`lexicon`, `ctc_beam` or `ctc_greedy`, with what it needs) whose text stands between
            the speech and the text after it; None for none. The model keeps a copy.
    """

    preset: Literal["nue_asr", "rwth", "plain"] = "plain"
    before: str | None = None
    after: str | None = None
    bos: str | None = None
    eos: str | None = None
    draft: str | None = None


@dataclass(frozen=True, config=STRICT)
class Denoising:
    """Reading practice for the LLM without any audio.

    A share of the sentences is shown twice: first as a prompt of label embeddings like those that a CTC head gives
    (`bridge.show_ctc`), then as the text to write. An LLM that starts a speech LLM from here has learnt to read what it
    is shown and to mend it. With `ctc` and `speech` the prompts are put together from what a real CTC head heard in
    real speech; without, their errors are invented.

    Attributes:
        share: Share of the sentences with a prompt.
        error_rate: Highest share of invented errors: labels wrong, missing or inserted; drawn per sentence from 0 up.
        frames_per_label: Average positions per label among invented errors.
        ctc: Run or model folder whose CTC head is imitated; its label units must be the recipe's.
        speech: Transcribed speech that it listens to, augmented as the recipe says.
        lexicon: Show phones instead, as the phone head of `ctc` hears them (`bridge.show_phones`), by this file of
            pronunciations. Sentences with other words get no prompt. An adaptation may do without `ctc`.
    """

    share: Fraction = 0.5
    error_rate: Fraction = 0.4
    frames_per_label: Positive = 2.5
    ctc: str | None = None
    speech: list[ManifestRef] = Field(default_factory=list)
    lexicon: str | None = None

    def __post_init__(self) -> None:
        """Checks that the head has something to listen to."""
        if (self.ctc is None) == bool(self.speech):
            raise ValueError("ctc and speech go together")


@dataclass(frozen=True, config=STRICT)
class Adapt:
    """Adaptation of a finished speech LLM to a domain (papers.md A2).

    Attributes:
        model: Folder or hub id of the base recogniser.
        components: What is adapted, the rest is frozen: the `llm` by LoRA; the `bridge` (with the interface), and the
            `encoder` (all but its convolutional front end, with the CTC heads that `ctc.weights` names), by full
            fine-tuning. `whole_llm` fine-tunes the LLM fully instead; its adapter is as large as the LLM.
    """

    model: str
    components: list[Component] = Field(default_factory=lambda: list[Component](["llm"]))

    def __post_init__(self) -> None:
        """Checks that something is adapted, and once."""
        if not self.components or len(set(self.components)) < len(self.components):
            raise ValueError("components are llm or whole_llm, bridge and encoder, each at most once")
        if {"llm", "whole_llm"} <= set(self.components):
            raise ValueError("components llm (LoRA) and whole_llm exclude each other")


@dataclass(frozen=True, config=STRICT)
class Replay:
    """Old data among the new, so that an adapted recogniser keeps its domain.

    Attributes:
        train: Manifests of the old domain; of a text adaptation, their transcripts.
        share: Their share of each epoch; utterances (or sentences) are drawn anew every time.
    """

    train: list[ManifestRef]
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25


@dataclass(frozen=True, config=STRICT)
class Hold:
    """A penalty on leaving the base: KL(base ‖ adapted) of the LLM's next label, in nats, on the training batches.

    Attributes:
        weight: Its weight beside the cross-entropy.
    """

    weight: Positive = 1.0


@dataclass(frozen=True, config=STRICT)
class Cosine:
    """Linear warm-up, then cosine decay; both as fractions of the training."""

    kind: Literal["cosine"]
    warmup: Fraction = 0.05
    final: Fraction = 0.01


@dataclass(frozen=True, config=STRICT)
class Piecewise:
    """Linear pieces between (fraction of training, factor on the learning rate) points (papers.md B2.2)."""

    kind: Literal["piecewise"]
    points: list[tuple[Fraction, Fraction]] = Field(
        default_factory=lambda: [(0.0, 0.01), (0.45, 1.0), (0.9, 0.01), (1.0, 0.001)]
    )

    def __post_init__(self) -> None:
        """Checks the order of the points."""
        fractions = [fraction for fraction, _ in self.points]
        if fractions != sorted(fractions) or not fractions or fractions[0] != 0.0 or fractions[-1] != 1.0:
            raise ValueError("points must rise from fraction 0.0 to 1.0")


@dataclass(frozen=True, config=STRICT)
class Optim:
    """Optimiser and schedule.

    Attributes:
        lr: Peak learning rate of AdamW.
        schedule: `cosine` or `piecewise`.
        betas: AdamW's averaging.
        eps: AdamW's epsilon.
        weight_decay: Not applied to biases, norms and embeddings.
        max_grad_norm: Global gradient clipping.
        accumulate: Batches per step.
        label_smoothing: Of the cross-entropy on text.
    """

    lr: Positive
    schedule: Annotated[Cosine | Piecewise, Field(discriminator="kind")] = Field(
        default_factory=lambda: Cosine(kind="cosine")
    )
    betas: tuple[AveragingFactor, AveragingFactor] = (0.9, 0.98)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.01
    max_grad_norm: Positive = 5.0
    accumulate: AtLeastOne = 1
    label_smoothing: Fraction = 0.0


@dataclass(frozen=True, config=STRICT)
class Run:
    """How long and how carefully.

    Attributes:
        epochs: Passes over the training data.
        precision: `float32` or `bfloat16` (autocast; weights stay in float32).
        device: `auto`, `cpu` or `cuda`.
        gradient_checkpointing: Keep only the inputs of the encoder's and the LLM's layers for the backward pass and
            compute the rest again there: less memory, about a third more time, the same gradients.
        evaluate_every: Epochs between evaluations on dev.
        log_every: Steps between lines of the log.
        checkpoint_every: Steps between checkpoints within an epoch; one is always written at its end.
        keep_checkpoints: Newest checkpoints kept.
        average_best: Export the mean of the weights after so many epochs, those with the best dev scores.
        average_last: Export the mean of the weights after the last so many epochs instead; 0 means the best.
        patience: End the training after so many evaluations on dev without a better score; 0 goes on to the end.
        max_skipped_in_row: End the run after so many steps in a row whose loss or gradient was not finite.
        max_skipped_share: End the run when more than this share of its steps was skipped for that reason.
    """

    epochs: AtLeastOne
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gradient_checkpointing: bool = False
    evaluate_every: AtLeastOne = 1
    log_every: AtLeastOne = 20
    checkpoint_every: AtLeastOne = 1000
    keep_checkpoints: AtLeastOne = 2
    average_best: AtLeastOne = 1
    average_last: Count = 0
    patience: Count = 0
    max_skipped_in_row: AtLeastOne = 10
    max_skipped_share: Fraction = 0.1

    def __post_init__(self) -> None:
        """Checks that one kind of average is asked for."""
        if self.average_last and self.average_best > 1:
            raise ValueError("average_last and average_best exclude each other")
