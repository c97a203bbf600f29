"""Encoder-decoder recognisers (AED): a speech encoder and the decoder that was trained with it, such as Whisper.

waveforms → encoder → frames (of Whisper those of its 30 s window) → cross-attention of the decoder → labels. The
folders are those of transformers, see `kikitori.model.published.aed`; `rules` say what stands before a transcript and
which labels are never written.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from kikitori.errors import ModelError
from kikitori.model.acoustic import AcousticNetwork, HeadConfig
from kikitori.model.decoder.base import start
from kikitori.model.decoder.encoder_decoder import CrossAttentionDecoder, DecoderLayout, TranscriptRules, read_frames
from kikitori.model.encoder import SAMPLE_RATE, EncoderOutput, SpeechEncoder, equal_encoders, share_layers
from kikitori.model.encoder.family import Window
from kikitori.types import DecoderName, LengthRule, TrainedOn


class EncoderDecoder(nn.Module):
    """A recogniser: `encoder`, `network` (its decoder) and `output`, and `acoustic` with CTC heads if any.

    Args:
        whole: A network with the parts of those of transformers, such as a `Whisper`, which are taken.
        layout: How its decoder is put together.
        rules: What stands before a transcript, and what is never written.
        language: The language of all recordings by its code; None for one that is not known, or found out for each.
        max_seconds: The longest utterance, where the encoder takes no less.
        heads: CTC heads on an encoder of the same kind, whose first layers are those of `whole`; None for none.
        shared_layers: How many layers these are.

    Attributes:
        language: As given; may be changed.
        window: What Whisper reads behind an utterance: silence up to 30 s, as in its training, or half a second, at a
            fraction of the work. See `kikitori.search.windows` for what can go wrong then.
        previous_text: Labels that stand before "start of transcript", as of text before the recording; may be empty.
    """

    decoder_name: ClassVar[DecoderName] = "encoder_decoder"

    def __init__(
        self,
        whole: Any,
        layout: DecoderLayout,
        rules: TranscriptRules,
        language: str | None,
        max_seconds: float,
        heads: AcousticNetwork | None = None,
        shared_layers: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(whole.config, model=whole.model.encoder)
        self.window: Window = "padded"
        self.previous_text: list[int] = []
        self.network, self.output, self._layout = whole.model.decoder, whole.get_output_embeddings(), layout
        self.rules, self.language, self._max_seconds = rules, language, max_seconds
        self._shared_layers = shared_layers
        self.acoustic = AcousticNetwork(HeadConfig(self.encoder.config), self.encoder) if heads is None else heads
        if heads is not None and self.has_window:
            share_layers(heads.encoder, self.encoder, shared_layers)
        elif heads is not None and equal_encoders(heads.encoder, self.encoder):
            heads.encoder = self.encoder

    @property
    def has_window(self) -> bool:
        """Whether the encoder reads a window, as Whisper's does, and not the speech alone."""
        return self.encoder.family.split is not None

    def encode(self, waveforms: Tensor, num_samples: Tensor) -> EncoderOutput:
        """Encode right-padded 16 kHz waveforms (batch, samples), of `num_samples` (batch,) each.

        The layers of a Whisper that the decoder's encoder and that of the CTC heads share run once; above them the
        heads read no more than the speech, as in their training. Other encoders run once, or twice if they differ.
        """
        heads, shared = self.acoustic, self._shared_layers
        if not self.has_window:
            encoded = self.encoder(waveforms, num_samples, layers=heads.layers)
            above = encoded if heads.encoder is self.encoder else heads.encode(waveforms, num_samples)
            return replace(above, window=encoded.frames, window_lengths=encoded.lengths)
        ours = self.encoder.with_window(self.window)
        if heads.encoder is self.encoder:
            return cast(EncoderOutput, ours(waveforms, num_samples))
        states, lengths = self._shared(waveforms, num_samples)
        decoders = ours.encode_upper(states, lengths, shared)
        encoded = heads.encoder.encode_upper(states, lengths, shared, layers=heads.layers)
        return replace(encoded, window=decoders.window, window_lengths=decoders.window_lengths)

    def encode_for_heads(self, waveforms: Tensor, num_samples: Tensor) -> EncoderOutput:
        """What `encode` gives for CTC and phone heads alone, without what only the decoder reads."""
        heads = self.acoustic
        if not self.has_window:
            return heads.encode(waveforms, num_samples)
        if heads.encoder is self.encoder:
            return self.encode(waveforms, num_samples)
        states, lengths = self._shared(waveforms, num_samples)
        encoded = heads.encoder.encode_upper(states, lengths, self._shared_layers, layers=heads.layers)
        return replace(encoded, window=None, window_lengths=None)

    def _shared(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """States (batch, window, dim) behind the shared layers, and lengths of the features (batch,)."""
        ours = self.encoder.with_window(self.window)
        inputs, lengths = ours.features(waveforms, num_samples)
        return ours.encode_lower(inputs, lengths, self._shared_layers), lengths

    def with_window(self, window: Window) -> "EncoderDecoder":
        """The same recogniser, with the same weights in memory, behind another window."""
        other = copy.copy(self)
        other.window = window
        return other

    def with_previous_text(self, labels: Sequence[int]) -> "EncoderDecoder":
        """The same recogniser, with the same weights in memory, behind other text.

        Of the text the last labels are read, one less than half the decoder's positions (223), as in OpenAI's code.

        Args:
            labels: The text in the decoder's labels; none for no text.

        Raises:
            ModelError: The model has no label that text before a transcript begins with.
        """
        if self.rules.previous is None:
            raise ModelError("the model was not trained to read a prompt", remedy="leave it out")
        other, most = copy.copy(self), self.rules.positions // 2 - 1
        other.previous_text = [self.rules.previous, *labels[-most:]] if labels else []
        return other

    @property
    def autoregressive(self) -> "EncoderDecoder":
        """The model itself: it has a decoder."""
        return self

    @property
    def speech_llm(self) -> None:
        """It has no LLM."""

    @property
    def reads_drafts(self) -> bool:
        """Its decoder reads nothing but the speech and what it has written."""
        return False

    @property
    def follows_speech(self) -> bool:
        """Heads of its cross-attention do, where it is known which."""
        return bool(self.rules.alignment_heads)

    @property
    def trained_on(self) -> TrainedOn:
        """The longest utterance, and as many labels for it as the decoder has positions for."""
        most = self.rules.positions - len(self.previous_text) - len(self.rules.prompt)
        rule: LengthRule = "window" if self.window == "padded" else "speech_window"
        samples = self.encoder.max_samples
        seconds = self._max_seconds if samples is None else min(self._max_seconds, samples / SAMPLE_RATE)
        return TrainedOn(most / seconds, seconds, self.language, rule)

    def decoder(self, encoded: EncoderOutput, drafts: Sequence[Sequence[int]] | None = None) -> CrossAttentionDecoder:  # noqa: ARG002
        """The decoder behind the speech of some utterances, as searches take it.

        Args:
            encoded: The encoder's output.
            drafts: Not read.

        Raises:
            ModelError: The encoder gives no window.
        """
        if encoded.window is None:
            raise ModelError("the decoder reads what was encoded for it", remedy="encode with this model")
        rules, frames = self.rules, encoded.window
        memory = read_frames(self.network, self._layout, frames, encoded.window_lengths)
        first = torch.full((len(frames), 1), rules.start, device=frames.device)
        decoder = CrossAttentionDecoder(
            self.network,
            self._layout,
            self.output,
            memory,
            first,
            rules.eos,
            rules.positions,
            frames.shape[2],
            rules.suppressed,
            rules.suppressed_first,
            alignment_heads=rules.alignment_heads,
        )
        labels = self._languages(decoder)
        codes = {label: code for code, label in rules.languages.items()}
        languages = [codes.get(label, self.language) for label in labels]
        prompts = [[*self.previous_text, *rules.prompt_in(label)] for label in labels]
        return replace(decoder, prompts=first.new_tensor(prompts), languages=languages)

    def _languages(self, decoder: CrossAttentionDecoder) -> list[int]:
        """The language label of each utterance: the one given, or the likeliest behind "start of transcript"."""
        languages = self.rules.languages
        if not languages or self.language is not None:
            return [languages.get(self.language or "", 0)] * len(decoder.prompts)
        labels = torch.tensor([*languages.values()], device=decoder.device)
        return labels[start(decoder)[0][:, labels].argmax(dim=-1)].tolist()  # type: ignore[no-any-return]
