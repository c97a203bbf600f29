"""A batch of recordings as the encoder of a recogniser gives it: what every search starts from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kikitori.data.augment import Waveform
from kikitori.errors import AudioError, ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.acoustic import AcousticNetwork
from kikitori.model.decoder.base import Decoder
from kikitori.model.encoder import EncoderOutput
from kikitori.model.folder import LoadedModel
from kikitori.scorers.ctc.speller import TokenSpeller
from kikitori.scorers.hotwords.phrases import Hotwords
from kikitori.scorers.hotwords.scorer import HotwordScorer
from kikitori.search.resources import ExternalModels
from kikitori.text.forms.japanese import is_spoken_kana
from kikitori.text.units import WORD_MARK, TokenizerUnits
from kikitori.types import Hypothesis, NBest, TrainedOn

if TYPE_CHECKING:
    from kikitori.model.folder import Recogniser
    from kikitori.model.speech_llm import SpeechLLM

Result = NBest | AudioError
"""The n-best list of a recording, or why it has none."""


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """Recordings with their encoder output, and the recogniser that made it.

    Attributes:
        loaded: The recogniser.
        external_models: Language models and priors that may join, over the labels of the CTC head.
        waveforms: The recordings, 16 kHz mono.
        encoded: The encoder's output.
        own_decoder_models: Those over the decoder's labels, where the CTC head has others.
        hotwords: The user's own phrases; None without.
    """

    loaded: LoadedModel
    external_models: ExternalModels
    waveforms: Sequence[Waveform]
    encoded: EncoderOutput
    own_decoder_models: ExternalModels | None = None
    hotwords: Hotwords | None = None

    @property
    def model(self) -> "Recogniser":
        """The network."""
        return self.loaded.model

    @property
    def acoustic(self) -> AcousticNetwork:
        """Its encoder and CTC heads."""
        return self.model.acoustic

    @property
    def speech_llm(self) -> "SpeechLLM":
        """The network of what needs an LLM.

        Raises:
            ModelError: It has none.
        """
        if (model := self.model.speech_llm) is None:
            raise ModelError("the model has no LLM", remedy="use a speech LLM")
        return model

    @property
    def units(self) -> TokenizerUnits:
        """Label units of the decoder; of the CTC head without one."""
        return self.loaded.units

    @property
    def ctc_units(self) -> TokenizerUnits:
        """Label units of the CTC head."""
        return self.loaded.ctc_units

    def ctc_form(self, text: str) -> str | None:
        """A text in the form that the CTC head writes, such as lower case without punctuation.

        None where it writes how words sound and the decoder does not, so that their texts cannot be compared.
        """
        if (own := self.loaded.own_ctc_units) is None:
            return text
        if is_spoken_kana(own.tokenizer.get_vocab()):
            return None
        return " ".join(self.ctc_units.normalize(text).replace(WORD_MARK, " ").split())

    @property
    def decoder_models(self) -> ExternalModels:
        """Language models and priors over the decoder's labels."""
        return self.own_decoder_models or self.external_models

    @property
    def trained_on(self) -> TrainedOn:
        """What the training data were like."""
        return self.loaded.trained_on

    @property
    def seconds(self) -> list[float]:
        """Durations."""
        return [len(waveform) / SAMPLE_RATE for waveform in self.waveforms]

    @property
    def speller(self) -> TokenSpeller | None:
        """From the decoder's tokens to the letters that the CTC head writes; None if both write the same labels."""
        return self.external_models.speller(self.loaded.units) if self.loaded.own_ctc_units is not None else None

    @cached_property
    def ctc_logits(self) -> tuple[Tensor, Tensor]:
        """Of the CTC head, (batch, frames, labels + 1), blank last, and valid frames (batch,); computed once."""
        return self.acoustic.ctc_logits(self.encoded)

    @cached_property
    def evident_hotwords(self) -> list[list[str]]:
        """The phrases of each recording for which its CTC outputs give evidence; found once."""
        return [] if self.hotwords is None else self.hotwords.evident(*self.ctc_logits)

    def hotword_scorers(
        self, units: TokenizerUnits, num_labels: int, scale: float
    ) -> list[tuple[HotwordScorer, float]]:
        """What counts letters of hotwords in the first `num_labels` of some units, with its scale; [] without any."""
        if self.hotwords is None:
            return []
        return [(HotwordScorer(self.evident_hotwords, units, num_labels, spaced=self.hotwords.spaced), scale)]

    def decoder(self, drafts: Sequence[Sequence[int]] | None = None) -> Decoder:
        """The decoder behind the speech.

        Args:
            drafts: In its labels, for a decoder that reads some.

        Raises:
            ModelError: The network has none.
        """
        if (model := self.model.autoregressive) is None:
            raise ModelError("the model has no decoder", remedy="use ctc_greedy")
        return model.decoder(self.encoded, drafts)

    def encode_texts(self, hypotheses: Sequence[Hypothesis]) -> list[list[int]]:
        """The labels in which the decoder would write them; CTC may have written a word in other units."""
        return [self.units.encode(hypothesis.text) for hypothesis in hypotheses]

    def rows(self, rows: Sequence[int]) -> "EncodedBatch":
        """Some of the recordings."""
        place = torch.tensor(rows, device=self.encoded.lengths.device)
        states = tuple(layer[place] for layer in self.encoded.intermediate)
        window, sizes = (
            None if each is None else each[place] for each in (self.encoded.window, self.encoded.window_lengths)
        )
        encoded = EncoderOutput(self.encoded.frames[place], self.encoded.lengths[place], states, window, sizes)
        waveforms = [self.waveforms[row] for row in rows]
        return replace(self, waveforms=waveforms, encoded=encoded)
