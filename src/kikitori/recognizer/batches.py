"""Batches of waveforms in, hypotheses out: a model with its search, as evaluating, tuning and training use it.

audio → batch → encoder → (CTC head | bridge → LLM) → labels → text. The same audio gives the same text whatever it is
batched with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kikitori.align.calibration import AS_IS, WordCalibration
from kikitori.context import Context, hotwords_of, with_prompt
from kikitori.data.augment import Waveform
from kikitori.data.speech import pad_waveforms
from kikitori.errors import AudioError, ConfigError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.acoustic import AcousticNetwork
from kikitori.model.encoder.rows import encode_rows, rows_in_turn
from kikitori.model.folder import LoadedModel
from kikitori.scorers.hotwords.phrases import Hotwords
from kikitori.search.batch import EncodedBatch, Result
from kikitori.search.check import check_search
from kikitori.search.defaults import named_search
from kikitori.search.guards import NO_SPEECH, Guards, guarded
from kikitori.search.options import CTCGreedySearch, Decoding, LexiconSearch, Need
from kikitori.search.resources import ExternalModels
from kikitori.search.windows import is_doubtful
from kikitori.types import DecoderName, Hypothesis
from kikitori.word_times import with_words

MIN_SAMPLES = 400  # one analysis window of 25 ms; what is shorter holds no speech
EVERYTHING: frozenset[Need] = frozenset({"ctc", "phones", "decoder"})
CAREFUL, PLAIN = Guards(on_runaway="ctc"), Guards(on_runaway="keep", on_no_speech="keep")
"""What to do about doubtful transcripts: for reading, and for measuring a search as it is."""

Precision = Literal["float32", "bfloat16", "int8"]


@dataclass(frozen=True)
class BatchRecognizer:
    """A model with its default search, for batches of waveforms.

    Attributes:
        loaded: Network, label units and what its training data were like.
        decoding: Default search.
        name: Name of the model, for reports.
        dtype: Arithmetic of the networks; `int8` of linear layers that `kikitori.load` has put into 8 bits.
        folder: Where the recogniser lies, None for the hub: its `lm/` and prior are found there.
        guards: What transcribing does about doubtful texts.
        words: How late the model writes labels, and how its confidences relate to being right.
        padded: The same model with Whisper's window of 30 s, where it reads a shorter one.
        prompt: Text that a Whisper-type model reads before each utterance, such as names or the topic.
        hotwords: Names and terms that searches with a CTC head shall prefer where they are heard.
    """

    loaded: LoadedModel
    decoding: Decoding
    name: str
    dtype: Precision = "float32"
    folder: Path | None = None
    guards: Guards = CAREFUL
    words: WordCalibration = AS_IS
    padded: LoadedModel | None = None
    prompt: str = ""
    hotwords: tuple[str, ...] = ()

    @cached_property
    def external_models(self) -> ExternalModels:
        """Language models and priors that join in search, over the labels of the CTC head."""
        return ExternalModels(self.folder, self.loaded.ctc_units, self._acoustic.device)

    @cached_property
    def _decoder_models(self) -> ExternalModels | None:
        if self.loaded.own_ctc_units is None:
            return None
        return ExternalModels(None, self.loaded.units, self._acoustic.device)

    def recognize(self, waveforms: Sequence[Waveform], decoding: Decoding | str | None = None) -> list[Hypothesis]:
        """Decodes one batch of 16 kHz mono waveforms; returns the best hypothesis of each.

        Raises:
            AudioError: One of them is too long for the LLM, or its numbers are not finite.
        """
        hypotheses = []
        for result in self.try_recognize(waveforms, decoding):
            if isinstance(result, AudioError):
                raise result
            hypotheses.append(result[0])
        return hypotheses

    def try_recognize(
        self, waveforms: Sequence[Waveform], decoding: Decoding | str | None = None, guards: Guards = PLAIN
    ) -> list[Result]:
        """As `recognize`, but gives all hypotheses of a waveform, or its error in its place.

        Without other `guards`, whatever the search finds is flagged and kept, in recordings without speech too.
        """
        return self._recognize(waveforms, self._options(decoding), guards, [False] * len(waveforms), self._context())

    @property
    def phones(self) -> list[str]:
        """What the phone head writes, in the order of its outputs; empty without one."""
        return [*self._acoustic.config.phones]

    @property
    def decoder(self) -> DecoderName | None:
        """What writes label by label, of what the model folder may hold; None without any."""
        return self.loaded.model.decoder_name

    @property
    def device(self) -> str:
        """Where it computes, as torch names it."""
        return str(self._acoustic.device)

    def arithmetic(self) -> torch.autocast:
        """The context in which the networks compute in `dtype`."""
        return torch.autocast(self._acoustic.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    @torch.inference_mode()
    def ctc_log_probs(self, waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the CTC head (batch, frames, labels + 1), blank last, and valid frames (batch,).

        Raises:
            ModelError: There is no CTC head.
        """
        self._options(CTCGreedySearch())
        with self.arithmetic():
            return self._acoustic.log_probs(self.encode(waveforms, needs=CTCGreedySearch.needs).encoded)

    @torch.inference_mode()
    def phone_log_probs(self, waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
        """The same of the phone head: (batch, outputs, phones + 1) and valid outputs (batch,).

        Raises:
            ModelError: There is no phone head.
        """
        self._options(LexiconSearch())
        with self.arithmetic():
            return self._acoustic.phone_log_probs(self.encode(waveforms, needs=LexiconSearch.needs).encoded)

    @torch.inference_mode()
    def encode(
        self,
        waveforms: Sequence[Waveform],
        prompt: str = "",
        hotwords: Hotwords | None = None,
        needs: frozenset[Need] = EVERYTHING,
    ) -> EncodedBatch:
        """Encode one batch of 16 kHz mono waveforms, each of 400 samples or more; the decoder reads the prompt.

        For what needs no decoder nothing is computed that it alone reads.

        Raises:
            ModelError: The model was not trained to read a prompt.
        """
        loaded = with_prompt(self.loaded, prompt, self.name)
        acoustic = self._acoustic
        padded, num_samples = pad_waveforms(waveforms)
        padded, num_samples = padded.to(acoustic.device), num_samples.to(acoustic.device)
        model = self.loaded.model
        encode = model.encode if "decoder" in needs else model.encode_for_heads
        with self.arithmetic():
            rows = rows_in_turn(acoustic.encoder, padded)
            encoded = encode_rows(encode, padded, num_samples, rows)
        return EncodedBatch(loaded, self.external_models, waveforms, encoded, self._decoder_models, hotwords)

    @property
    def _acoustic(self) -> AcousticNetwork:
        return self.loaded.model.acoustic

    def _options(self, decoding: Decoding | str | None) -> Decoding:
        options = named_search(decoding, self.folder) if isinstance(decoding, str) else decoding or self.decoding
        model = self.loaded.model
        check_search(options, model, self.name, own_ctc_units=self.loaded.own_ctc_units is not None)
        if model.autoregressive is not None and model.autoregressive.reads_drafts and "decoder" in options.needs:
            check_search(self.external_models.draft_search, model, self.name)
        return options

    def _context(self, prompt: str | None = None, hotwords: Sequence[str] | None = None) -> Context:
        """What is given, else what is the recogniser's own."""
        if isinstance(hotwords, str):
            raise ConfigError("a text is no list of phrases", where="hotwords", remedy=f"give [{hotwords[:30]!r}]")
        phrases = self.hotwords if hotwords is None else tuple(hotwords)
        return Context(self.prompt if prompt is None else prompt, phrases)

    @torch.inference_mode()
    def _recognize(
        self, waveforms: Sequence[Waveform], options: Decoding, guards: Guards, timed: Sequence[bool], context: Context
    ) -> list[Result]:
        """What the search finds in each waveform; in those that are `timed` with times of words, if there can be."""
        results: list[Result] = [(Hypothesis(labels=(), text="", score=0.0),)] * len(waveforms)
        rows = [row for row, waveform in enumerate(waveforms) if len(waveform) >= MIN_SAMPLES]
        if rows:
            hotwords = hotwords_of(self.loaded, context.hotwords, options, self.name)
            with self.arithmetic():
                given = [waveforms[row] for row in rows]
                batch = self.encode(given, context.prompt, hotwords, options.needs)
                found = with_words(batch, guarded(batch, options, guards), [timed[row] for row in rows], self.words)
            for row, result in zip(rows, found, strict=True):
                results[row] = result
            if self.padded is not None and options.autoregressive:
                again = [row for row in rows if self._is_doubtful(results[row], waveforms[row])]
                other = replace(self, loaded=self.padded, padded=None)
                timed = [timed[row] for row in again]
                doubtful = [waveforms[row] for row in again]
                mended = other._recognize(doubtful, options, guards, timed, context) if again else []
                for row, result in zip(again, mended, strict=True):
                    results[row] = result
        return results

    def _is_doubtful(self, result: Result, waveform: Waveform) -> bool:
        """Whether what was found behind a short window is to be decoded again at 30 s."""
        if isinstance(result, AudioError) or NO_SPEECH in result[0].warnings:
            return False
        return is_doubtful(result[0], len(waveform) / SAMPLE_RATE)
