"""The sections of a recipe for speech, text, label units and augmentation."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.data.speech import WaveformAugment
from kikitori.text.forms.text_form import TextForm
from kikitori.train.recipe.types import STRICT, AtLeastOne, Count, Fraction, ModelPath, NotNegative, Positive


@dataclass(frozen=True, config=STRICT)
class ManifestRef:
    """One manifest that takes part.

    Attributes:
        path: Manifest file, relative to `data_root`; or shards: a tar or folder of WebDataset, a Shar folder of Lhotse,
            what `save_to_disk` of `datasets` wrote.
        split: Rows of this split only.
        repeat: How often an epoch goes through it.
        share: Fraction of its rows to take, evenly spread.
        exclude_overlap_with: Splits of the same manifest; rows that share six words in a row with their transcripts are
            left out (decontamination, see `kikitori.data.overlap`).
        nonspeech: These are recordings without speech, such as noise: their text is empty, and CTC learns to write
            nothing there.
    """

    path: str
    split: str | None = None
    repeat: AtLeastOne = 1
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    exclude_overlap_with: list[str] = Field(default_factory=list)
    nonspeech: bool = False


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
        batch_characters: Padded characters of transcripts in a batch; 0 sets no limit. Long texts then make batches
            smaller as long recordings do.
        max_batch_size: Utterances in a batch.
        num_buckets: Buckets of similar duration.
        shuffle_rows: Rows of shards among which batches are drawn: shards are taken in an order of each epoch's own
            until they have so many.
        max_dev_utterances: Dev utterances decoded at each evaluation, evenly spread; 0 takes all.
    """

    train: list[ManifestRef]
    dev: list[ManifestRef] = Field(default_factory=list)
    min_seconds: NotNegative = 0.1
    max_seconds: Positive = 30.0
    on_error: Literal["stop", "skip"] = "stop"
    cache_audio: bool = False
    batch_seconds: Positive = 160.0
    batch_characters: Count = 0
    max_batch_size: AtLeastOne = 64
    num_buckets: AtLeastOne = 12
    shuffle_rows: AtLeastOne = 20_000
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
    path: ModelPath | None = None
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
class Augment(WaveformAugment):
    """Augmentation of the training speech.

    Attributes:
        speeds: Speed factors, one drawn per utterance and epoch.
        gain_db: Gain is drawn from plus or minus this many decibels.
        noise_probability: Fraction of utterances that get noise.
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
