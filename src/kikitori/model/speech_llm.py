"""The speech LLM: acoustic model, bridge, interface and LLM joined into one network.

waveforms → encoder → frames → bridge → speech prompt → interface → LLM → next labels (Nue-ASR; the "speech LLM" of
"Integration vs. Combination"; with cross-attention and an LLM from scratch, an AED model). The acoustic part carries
the optional CTC heads.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from kikitori.errors import ModelError
from kikitori.io.model_folder import ModelType
from kikitori.model.acoustic import FORMAT_VERSION, AcousticNetwork
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig, adopted, as_config
from kikitori.model.bridge import IdentityBridge, build_bridge
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.interface import build_interface
from kikitori.model.decoder.llm import embed, forward_layers, project
from kikitori.model.decoder.llm_decoder import LLMDecoder
from kikitori.model.encoder import EncoderOutput
from kikitori.text.prompt import DRAFT_ROOM, Prompt
from kikitori.types import DecoderName

Labels = Sequence[Sequence[int]]
"""Label units, a row for each utterance."""


class SpeechLLMConfig(PreTrainedConfig):
    """Configuration of a `SpeechLLM`.

    Args:
        acoustic_config: Configuration of the acoustic model (encoder and CTC heads).
        llm_config: Configuration of the LLM, any decoder-only model of transformers.
        bridge: `conv`, `stack`, `identity` or `ctc_compress`.
        bridge_stride: Frames per speech position; 1 with `identity` and `ctc_compress`.
        bridge_blanks: What `ctc_compress` does with frames of blank: `drop` or `keep`.
        bridge_repeats: What it does with a run of equal outputs: `keep`, `average` or `weighted` average.
        bridge_ctc_layer: Encoder layer whose CTC head it reads, by default the last one named in `ctc_layers`.
        show_ctc: Add to each speech position the LLM's embeddings of the labels, weighted by the last CTC head's
            posteriors there. A small LLM then begins with a transcript it can read.
        shown_labels: LLM labels that spell the outputs of a CTC head with units of its own, one for each, as `show_ctc`
            shows them; empty where the head writes the LLM's units.
        show_phones: The same with the posteriors of the last phone head. The embeddings of phones are rows of the LLM's
            matrix behind those of the label units, others for each of the head's outputs per frame.
        show_draft: Show it what a first search has found, between the speech and the text after it; which search is
            said by `draft.yaml` of the model folder.
        draft_room: A draft is filled up to a multiple of so many labels (`kikitori.text.prompt.Prompt`).
        interface: How the LLM gets at the speech: `prefix`, `merged_attention` or `cross_attention`.
        prompt_before: Labels before the speech.
        prompt_after: Labels between the speech and the transcript, BOS included.
        eos_id: Label that ends the transcript.
        format_version: Version of the folder's format (see `FORMAT_VERSION`).
    """

    model_type = ModelType.SPEECH_LLM.value
    sub_configs: ClassVar[dict[str, Any]] = {"acoustic_config": AcousticModelConfig, "llm_config": AutoConfig}

    def __init__(
        self,
        acoustic_config: PreTrainedConfig | dict[str, Any] | None = None,
        llm_config: PreTrainedConfig | dict[str, Any] | None = None,
        bridge: str = "stack",
        bridge_stride: int = 1,
        bridge_blanks: str = "drop",
        bridge_repeats: str = "keep",
        bridge_ctc_layer: int | None = None,
        show_ctc: bool = False,
        shown_labels: Sequence[int] = (),
        show_phones: bool = False,
        show_draft: bool = False,
        draft_room: int = DRAFT_ROOM,
        interface: str = "prefix",
        prompt_before: Sequence[int] = (),
        prompt_after: Sequence[int] = (),
        eos_id: int = 2,
        format_version: int = FORMAT_VERSION,
        **kwargs: Any,
    ) -> None:
        # Before the nested configurations are in place: transformers resets the attention of every nested one here,
        # and a live LLM that shares it would go on without its causal mask.
        super().__init__(**kwargs)
        self.acoustic_config: Any = as_config(acoustic_config)
        self.llm_config: Any = as_config(llm_config)
        self.bridge, self.bridge_stride = bridge, bridge_stride
        self.show_ctc, self.show_phones, self.show_draft = show_ctc, show_phones, show_draft
        self.shown_labels = list(shown_labels)
        self.draft_room = draft_room
        self.bridge_blanks, self.bridge_repeats = bridge_blanks, bridge_repeats
        self.bridge_ctc_layer = bridge_ctc_layer
        self.interface = interface
        self.prompt_before, self.prompt_after = list(prompt_before), list(prompt_after)
        self.eos_id = eos_id
        self.format_version = format_version

    @property
    def prompt(self) -> Prompt:
        """What stands around the speech in the LLM's input."""
        before, after = tuple(self.prompt_before), tuple(self.prompt_after)
        return Prompt(before, after, None, self.eos_id, self.show_draft, self.draft_room)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:  # noqa: ARG002
        """The LLM's configuration, where transformers looks for vocabulary and cache settings."""
        llm_config = getattr(self, "llm_config", None)  # not there yet while __init__ runs
        return self if llm_config is None else llm_config


class SpeechLLM(PreTrainedModel):
    """A decoder-only LLM that reads a speech prompt and writes the transcript."""

    config: SpeechLLMConfig
    config_class = SpeechLLMConfig
    decoder_name: ClassVar[DecoderName] = "speech_llm"
    main_input_name = "waveforms"
    _supports_sdpa = True

    def __init__(
        self,
        config: SpeechLLMConfig,
        *,
        acoustic: AcousticNetwork | None = None,
        llm: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        self.acoustic = AcousticModel(config.acoustic_config) if acoustic is None else adopted(acoustic)
        # Without remote code, lest transformers ask on standard input whether to run it.
        self.llm: Any = (
            AutoModelForCausalLM.from_config(config.llm_config, trust_remote_code=False)
            if llm is None
            else adopted(llm)
        )
        embeddings: Any = self.llm.get_input_embeddings()
        self.bridge = build_bridge(
            config.bridge,
            self.acoustic.encoder.dim,
            embeddings.embedding_dim,
            config.bridge_stride,
            blanks=config.bridge_blanks,
            repeats=config.bridge_repeats,
        )
        _check_bridge_head(config, self.acoustic.config.ctc_layers)
        self.interface = build_interface(config.interface, self.llm)
        _check_interface(config)
        _check_shown(config, self.acoustic.config, embeddings.num_embeddings)
        if (config.show_ctc or config.show_phones) and not isinstance(self.bridge, IdentityBridge):
            for parameter in self.bridge.linear.parameters():
                nn.init.zeros_(parameter)  # training adds what the labels do not say
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:  # noqa: ARG002
        # Encoder, heads and LLM initialise themselves; bridge and interface keep their own initialisation.
        return

    def speech_prompt(self, encoded: EncoderOutput) -> tuple[Tensor, Tensor]:
        """Frames to speech embeddings (batch, positions, llm_dim) and lengths."""
        bridge, inputs = self.bridge, [encoded.lengths]
        if bridge.reads_ctc:
            inputs.append(self.acoustic.log_probs(encoded, self.config.bridge_ctc_layer)[0])
        embeds, lengths = bridge(encoded.frames, *inputs)
        if self.config.show_ctc:
            embeds = embeds + bridge.pool(self._label_embeddings(encoded), *inputs)
        if self.config.show_phones:
            embeds = embeds + bridge.pool(self._phone_embeddings(encoded), *inputs)
        return embeds, lengths

    @property
    def autoregressive(self) -> "SpeechLLM":
        """The model itself: it has a decoder."""
        return self

    @property
    def speech_llm(self) -> "SpeechLLM":
        """The model itself: it has an LLM."""
        return self

    @property
    def follows_speech(self) -> bool:
        """Its attention does not say when words are said."""
        return False

    @property
    def reads_drafts(self) -> bool:
        """Whether the LLM reads what a first search has found beside the speech."""
        return bool(self.config.show_draft)

    def decoder(self, encoded: EncoderOutput, drafts: Labels | None = None) -> LLMDecoder:
        """The LLM behind the speech of some utterances, as searches take it; some read a draft of each."""
        return LLMDecoder(self.llm, self.prefix(encoded, drafts), self.config.eos_id)

    def prefix(self, encoded: EncoderOutput, drafts: Labels | None = None) -> AssembledInput:
        """The LLM input before the first label of the transcript; with `show_draft` it takes a draft for each row."""
        return self._assembled(encoded, drafts, None)

    def teacher_input(self, encoded: EncoderOutput, labels: Labels, drafts: Labels | None = None) -> AssembledInput:
        """The LLM input of teacher forcing: the prefix and the transcripts."""
        return self._assembled(encoded, drafts, labels)

    def target_states(self, rows: AssembledInput, layers: Sequence[int] = ()) -> list[Tensor]:
        """Hidden states (positions, llm_dim) at the loss positions of a `teacher_input`: after some layers, last."""
        hidden = forward_layers(self.llm, rows.embeds, rows.lengths, rows.memory, layers)
        return [states[rows.target_positions] for states in hidden]

    def target_logits(self, rows: AssembledInput) -> Tensor:
        """Logits (positions, vocab) at the loss positions of a `teacher_input`, one for each of its `next_labels`."""
        return project(self.llm, self.target_states(rows)[-1])

    def prefix_lengths(self, frame_lengths: Tensor) -> Tensor | None:
        """LLM positions before the first label for utterances of so many frames; None if only the speech can tell."""
        if self.config.show_draft:
            return None
        prompt = len(self.config.prompt_before) + len(self.config.prompt_after)
        if self.config.interface != "prefix":
            return torch.full_like(frame_lengths, prompt)  # speech takes none
        speech = self.bridge.output_lengths(frame_lengths)
        return None if speech is None else speech + prompt

    def label_logits(
        self, encoded: EncoderOutput, labels: Labels, drafts: Labels | None = None
    ) -> tuple[Tensor, Tensor]:
        """Teacher forcing: logits (positions, vocab) that predict `labels` and EOS, and those next labels (positions,).

        Loss positions of all rows are flat, row by row (papers.md A2: the loss is on text positions only).
        """
        rows = self.teacher_input(encoded, labels, drafts)
        return self.target_logits(rows), rows.next_labels

    def encode(self, waveforms: Tensor, num_samples: Tensor) -> EncoderOutput:
        """Encode right-padded 16 kHz waveforms (batch, samples), of `num_samples` (batch,) each."""
        return self.acoustic.encode(waveforms, num_samples)

    def encode_for_heads(self, waveforms: Tensor, num_samples: Tensor) -> EncoderOutput:
        """The same, for CTC and phone heads alone."""
        return self.encode(waveforms, num_samples)

    def forward(
        self, waveforms: Tensor, lengths: Tensor, labels: Labels, drafts: Labels | None = None
    ) -> tuple[Tensor, Tensor]:
        """Right-padded 16 kHz waveforms (batch, samples) and transcripts to `label_logits`."""
        encoded = self.acoustic.encode(waveforms, lengths)
        return self.label_logits(encoded, labels, drafts)

    def _assembled(self, encoded: EncoderOutput, drafts: Labels | None, labels: Labels | None) -> AssembledInput:
        speech_embeds, lengths = self.speech_prompt(encoded)
        rows: AssembledInput = self.interface(self._embed, self.config.prompt, speech_embeds, lengths, labels, drafts)
        return rows

    def _embed(self, labels: Tensor) -> Tensor:
        return embed(self.llm, labels)

    def _label_embeddings(self, encoded: EncoderOutput) -> Tensor:
        """Expected embedding (batch, frames, llm_dim) under the CTC head's posteriors; a blank adds nothing."""
        log_probs, _ = self.acoustic.log_probs(encoded)
        table: Tensor = self.llm.get_input_embeddings().weight
        table = table[self.config.shown_labels or slice(log_probs.shape[2] - 1)]
        return log_probs[..., :-1].exp().to(table.dtype) @ table

    def _phone_embeddings(self, encoded: EncoderOutput) -> Tensor:
        """Expected embedding (batch, frames, llm_dim) under the phone head's posteriors; blanks add nothing."""
        log_probs, _ = self.acoustic.phone_log_probs(encoded)
        posteriors = log_probs[..., :-1].exp().unflatten(1, (-1, self.acoustic.config.phone_upsample)).flatten(2)
        first = self.acoustic.config.num_units
        table: Tensor = self.llm.get_input_embeddings().weight[first : first + posteriors.shape[2]]
        embeds: Tensor = posteriors.to(table.dtype) @ table
        return embeds


def _check_shown(config: SpeechLLMConfig, acoustic: AcousticModelConfig, rows: int) -> None:
    if config.show_ctc and not acoustic.ctc_layers:
        raise ModelError("show_ctc needs a CTC head", remedy="give a layer a weight in ctc.weights")
    if config.shown_labels and (len(config.shown_labels) != acoustic.num_units or max(config.shown_labels) >= rows):
        what = f"{len(config.shown_labels)} labels of an LLM of {rows} cannot show {acoustic.num_units} outputs of CTC"
        raise ModelError(what, remedy="mend shown_labels in config.json")
    if config.show_phones and not acoustic.phone_layers:
        raise ModelError("show_phones needs a phone head", remedy="give ctc.phones in the recipe")
    if config.show_phones and rows < acoustic.num_units + acoustic.num_phone_outputs:
        raise ModelError(f"the LLM's {rows} embeddings are too few for phones", remedy="train it with show_phones")


def _check_bridge_head(config: SpeechLLMConfig, ctc_layers: Sequence[int]) -> None:
    layer = config.bridge_ctc_layer
    if config.bridge == "ctc_compress" and (not ctc_layers or layer not in (None, *ctc_layers)):
        raise ModelError(
            f"a ctc_compress bridge needs a CTC head{'' if layer is None else f' on encoder layer {layer}'}",
            remedy="give the layer a weight in ctc.weights",
        )


def _check_interface(config: SpeechLLMConfig) -> None:
    if config.interface != "prefix" and not config.prompt_before and not config.prompt_after:
        raise ModelError(
            f"nothing stands before the first label with {config.interface}", remedy="give the prompt a BOS or a text"
        )


AutoConfig.register(SpeechLLMConfig.model_type, SpeechLLMConfig)
AutoModel.register(SpeechLLMConfig, SpeechLLM)
