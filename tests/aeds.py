"""Tiny encoder-decoders of transformers beside Whisper, random but the same on every call, and their folders."""

import io
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from transformers import (
    CanaryConfig,
    CanaryForConditionalGeneration,
    CohereAsrConfig,
    CohereAsrFeatureExtractor,
    CohereAsrForConditionalGeneration,
    FeatureExtractionMixin,
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    MoonshineStreamingConfig,
    MoonshineStreamingForConditionalGeneration,
    ParakeetFeatureExtractor,
    PreTrainedModel,
    Speech2TextConfig,
    Speech2TextFeatureExtractor,
    Speech2TextForConditionalGeneration,
    Speech2TextTokenizer,
    Wav2Vec2FeatureExtractor,
)
from transformers.models.canary.configuration_canary import CanaryDecoderConfig
from transformers.models.moonshine_streaming.configuration_moonshine_streaming import MoonshineStreamingEncoderConfig

from kikitori.model.published.transcript_rules import CANARY_PROMPT
from kikitori.model.safety.config import quiet_transformers
from kikitori.text.units import SPECIALS, TokenizerUnits
from tests.tiny import DIM, SIZES, TEXTS, shake, tiny_bpe, tiny_encoder_config

EOS = 2


@dataclass(frozen=True)
class TinyAed:
    """An encoder-decoder with what lies beside it.

    Attributes:
        network: The whole of it, as transformers has it.
        units: Its tokenizer.
        features: Its feature extractor.
    """

    network: PreTrainedModel
    units: TokenizerUnits
    features: FeatureExtractionMixin

    def inputs(self, waveform: NDArray[np.float32]) -> dict[str, torch.Tensor]:
        """What the network reads of one waveform."""
        whole: dict[str, Any] = {"sampling_rate": 16000, "return_tensors": "pt", "padding": True}
        if self.network.config.model_type == "moonshine_streaming":
            whole["pad_to_multiple_of"] = 80  # as its processor does
        found: Any = self.features(waveform, **whole)  # type: ignore[operator]
        return {name: found[name] for name in ("input_values", "input_features", "attention_mask") if name in found}

    def generated(self, waveform: NDArray[np.float32], prompt: list[int]) -> tuple[int, ...]:
        """Labels that transformers writes behind a prompt, greedily, without the end."""
        network: Any = self.network
        given, settings = torch.tensor([prompt]), {"num_beams": 1, "do_sample": False}
        if network.generation_config.max_length is None:
            settings["max_length"] = 40  # else transformers ends after 20 labels
        (found,) = network.generate(**self.inputs(waveform), decoder_input_ids=given, **settings).tolist()
        return tuple(label for label in found[len(prompt) :] if label != EOS)

    def save(self, folder: Path) -> None:
        """Writes a folder as transformers has it."""
        with quiet_transformers():
            self.network.save_pretrained(folder)
        self.units.save(folder)
        self.features.save_pretrained(folder)


def tiny_moonshine() -> TinyAed:
    """Moonshine, which ends after 40 labels."""
    units = tiny_bpe("characters")
    sizes = {"vocab_size": units.size, "hidden_size": DIM, "intermediate_size": 64, "max_position_embeddings": 60}
    both = {f"{side}_num_{what}": size for side in ("encoder", "decoder") for what, size in
            (("hidden_layers", 2), ("attention_heads", 4))}  # fmt: skip
    torch.manual_seed(0)
    network = MoonshineForConditionalGeneration(MoonshineConfig(**sizes, **both)).eval()
    shake(network, 0, 0.3)
    network.generation_config = GenerationConfig(
        decoder_start_token_id=1, bos_token_id=1, eos_token_id=EOS, pad_token_id=EOS, max_length=40
    )
    return TinyAed(varied(network, 0, 0.7), units, Wav2Vec2FeatureExtractor(do_normalize=False))


def tiny_moonshine_streaming() -> TinyAed:
    """Moonshine Streaming with windows of a few frames, and an encoder of another size than the decoder."""
    units = tiny_bpe("characters")
    both = {"num_key_value_heads": 4, "max_position_embeddings": 200}
    windows = ((4, 2), (3, 0))
    encoder = MoonshineStreamingEncoderConfig(**{**SIZES, "hidden_size": 24}, **both, sliding_windows=windows)
    special = {"decoder_start_token_id": 1, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0}
    torch.manual_seed(0)
    config = MoonshineStreamingConfig(
        **SIZES, **both, encoder_config=encoder.to_dict(), vocab_size=units.size, **special
    )
    network = MoonshineStreamingForConditionalGeneration(config).eval()
    shake(network, 0, 0.3)
    heard(network)
    network.generation_config = GenerationConfig(**special, max_length=40)
    return TinyAed(
        varied(network, 0, 0.7), units, Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    )


def tiny_speech_to_text(languages: Sequence[str] = ()) -> TinyAed:
    """Speech2Text with a SentencePiece tokenizer, which transformers runs in Python; it writes 39 labels at most."""
    with tempfile.TemporaryDirectory() as folder:
        units = TokenizerUnits(sentencepiece_tokenizer(Path(folder), languages))
    sizes = {
        "d_model": DIM,
        "vocab_size": units.size,
        "conv_channels": 32,
        "max_source_positions": 100,
        "max_target_positions": 60,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    }
    torch.manual_seed(0)
    network = Speech2TextForConditionalGeneration(Speech2TextConfig(**sizes)).eval()
    shake(network, 0, 0.3)
    heard(network)
    network.generation_config = GenerationConfig(
        decoder_start_token_id=2, bos_token_id=0, eos_token_id=EOS, pad_token_id=1, max_length=40
    )
    return TinyAed(varied(network, 8, 1.0), units, Speech2TextFeatureExtractor())


def sentencepiece_tokenizer(folder: Path, languages: Sequence[str] = ()) -> Speech2TextTokenizer:
    """One whose labels are in fairseq's order, and not in that of SentencePiece; it is made in a folder."""
    choice, text = random.Random(0), io.BytesIO()  # noqa: S311
    words = ["".join(choice.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS * 20, *(" ".join(choice.choices(words, k=6)) for _ in range(100))]),
        model_writer=text,
        vocab_size=300,
        model_type="bpe",
        user_defined_symbols=[f"<lang:{code}>" for code in languages],
        minloglevel=2,
        num_threads=1,
    )
    (folder / "spm.model").write_bytes(text.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=text.getvalue())
    pieces = [piece for number in range(len(processor)) if (piece := processor.id_to_piece(number)) not in SPECIALS]
    labels = {piece: number for number, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *reversed(pieces)])}
    (folder / "labels.json").write_text(json.dumps(labels))
    return Speech2TextTokenizer(str(folder / "labels.json"), str(folder / "spm.model"))


def tiny_cohere() -> TinyAed:
    """Cohere's transcriber, whose keys are shared by two heads each."""
    units = told_units()
    sizes = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 40, "vocab_size": units.size}
    start = units.special_id("▁")
    special = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": EOS, "decoder_start_token_id": start}
    torch.manual_seed(0)
    encoder = {**tiny_encoder_config("parakeet").to_dict(), "num_mel_bins": 128}
    config = CohereAsrConfig(encoder_config=encoder, **sizes, **special)
    network = CohereAsrForConditionalGeneration(config).eval()
    shake(network, 0, 0.3)
    heard(network)
    network.generation_config = GenerationConfig(**special, max_length=40)
    return TinyAed(varied(network, 7, 1.0), units, CohereAsrFeatureExtractor())


def tiny_canary() -> TinyAed:
    """Canary; its generation has no limit of its own."""
    units = told_units()
    start = units.special_id("<|startofcontext|>")
    special = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": EOS}
    sizes = {**SIZES, "head_dim": 8, "num_key_value_heads": 4, "max_position_embeddings": 40, "vocab_size": units.size}
    torch.manual_seed(0)
    encoder = {**tiny_encoder_config("parakeet").to_dict(), "num_mel_bins": 128}
    decoder = CanaryDecoderConfig(**sizes, **special).to_dict()
    config = CanaryConfig(
        encoder_config=encoder,
        decoder_config=decoder,
        vocab_size=units.size,
        decoder_start_token_id=start,
        tie_word_embeddings=True,
        **special,
    )
    network = CanaryForConditionalGeneration(config).eval()
    shake(network, 0, 0.3)
    heard(network)
    network.generation_config = GenerationConfig(**special, decoder_start_token_id=start)
    return TinyAed(varied(network, 4, 1.0), units, ParakeetFeatureExtractor(feature_size=128))


def told_units() -> TokenizerUnits:
    """BPE with the labels that stand before a transcript of Canary and Cohere."""
    extra = [token for token in CANARY_PROMPT if token is not None]
    return tiny_bpe("characters", extra=[*extra, *(f"<|{code}|>" for code in ("en", "de", "ja"))])


def heard(network: Any) -> None:
    """Lets the speech and the place of a label count for more than what is the same everywhere."""
    for name, values in network.named_parameters():
        if name.endswith(".bias"):
            values.data *= 0.1
        if "fc2" in name:
            values.data *= 0.3
        if any(part in name for part in ("encoder_attn", "embed_tokens", "subsampling", "conv_layers")):
            values.data *= 2.0


def varied(network: Any, seed: int, amount: float) -> PreTrainedModel:
    """Draws the row of the end anew, so that some transcripts end by themselves."""
    row = network.get_output_embeddings().weight.data[EOS]
    row[:] = amount * torch.randn(row.shape, generator=torch.Generator().manual_seed(seed))
    return network  # type: ignore[no-any-return]


def has_nemo_features() -> bool:
    """Whether transformers has those of Canary and Cohere; its oldest release that we support wants librosa."""
    try:
        ParakeetFeatureExtractor()
    except ImportError:
        return False
    return True


AEDS: dict[str, Callable[[], TinyAed]] = {
    "moonshine": tiny_moonshine,
    "moonshine_streaming": tiny_moonshine_streaming,
    "speech_to_text": tiny_speech_to_text,
    **({"canary": tiny_canary, "cohere_asr": tiny_cohere} if has_nemo_features() else {}),
}
LANGUAGES = {"cohere_asr": "en", "canary": "de"}
"""What must be asked for of those that are told their language."""
