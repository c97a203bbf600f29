"""A batch of recordings as the encoder of a recogniser gives it: what every search starts from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kikitori.data.augment import Waveform
from kikitori.errors import ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.acoustic_model import AcousticModel
from kikitori.model.decoder.base import Decoder
from kikitori.model.encoder import EncoderOutput
from kikitori.model.folder import LoadedModel, Recogniser
from kikitori.model.speech_llm import SpeechLLM
from kikitori.search.resources import ExternalModels
from kikitori.text.units import TokenizerUnits
from kikitori.types import Hypothesis, TrainedOn


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """Recordings with their encoder output, and the recogniser that made it.

    Attributes:
        loaded: The recogniser.
        external_models: Language models and priors that may join.
        waveforms: The recordings, 16 kHz mono.
        encoded: The encoder's output.
    """

    loaded: LoadedModel
    external_models: ExternalModels
    waveforms: Sequence[Waveform]
    encoded: EncoderOutput

    @property
    def model(self) -> Recogniser:
        """The network."""
        return self.loaded.model

    @property
    def acoustic(self) -> AcousticModel:
        """Its encoder and CTC heads."""
        return self.model.acoustic

    @property
    def speech_llm(self) -> SpeechLLM:
        """The network of what needs an LLM.

        Raises:
            ModelError: It has none.
        """
        if (model := self.model.speech_llm) is None:
            raise ModelError("the model has no LLM", remedy="use a speech LLM")
        return model

    @property
    def units(self) -> TokenizerUnits:
        """Label units."""
        return self.loaded.units

    @property
    def trained_on(self) -> TrainedOn:
        """What the training data were like."""
        return self.loaded.trained_on

    @property
    def seconds(self) -> list[float]:
        """Durations."""
        return [len(waveform) / SAMPLE_RATE for waveform in self.waveforms]

    @cached_property
    def ctc_logits(self) -> tuple[Tensor, Tensor]:
        """Of the CTC head, (batch, frames, labels + 1), blank last, and valid frames (batch,); computed once."""
        return self.acoustic.ctc_logits(self.encoded)

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
        window = self.encoded.window if self.encoded.window is None else self.encoded.window[place]
        encoded = EncoderOutput(self.encoded.frames[place], self.encoded.lengths[place], states, window)
        return EncodedBatch(self.loaded, self.external_models, [self.waveforms[row] for row in rows], encoded)
