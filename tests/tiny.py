"""Tiny models, units and waveforms, random but the same on every call: what tests of trained-looking models build on.

Weights are drawn large, so that greedy outputs are varied, differ in length and sometimes end by themselves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    HubertConfig,
    LlamaConfig,
    ParakeetEncoderConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Wav2Vec2Config,
    WavLMConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.acoustic import AcousticNetwork
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig, acoustic_config
from kikitori.model.folder import save_model
from kikitori.model.safety.config import quiet_transformers
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig
from kikitori.text.prompt import PRESETS, Prompt, compile_prompt
from kikitori.text.unit_training import character_units, sentencepiece_units
from kikitori.text.units import SPECIALS, TokenizerUnits
from kikitori.types import TrainedOn

TEXTS = (
    "user transcribe speech to text assistant",
    "the quick brown fox jumps over the lazy dog",
    "it's a small world and we can hear it",
)
DIM = 32
SIZES = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WAVE = {**SIZES, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
WHISPER = {
    "d_model": DIM,
    "vocab_size": 40,
    "max_source_positions": 100,  # 2 s
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}
ENCODERS = ("hubert", "wav2vec2", "wavlm", "whisper", "parakeet")
LLMS = ("gpt_neox", "qwen2", "qwen3", "llama")
INTERFACES = ("prefix", "merged_attention", "cross_attention")
BRIDGES = ("conv", "stack", "identity", "ctc_compress")
TRAINED_ON = TrainedOn(labels_per_second=10.0, max_seconds=1.8, language="en")


def tiny_units(kind: str = "characters") -> TokenizerUnits:
    """Characters, or 36 SentencePiece pieces, and `[SEP]`."""
    units = (
        character_units(TEXTS, "en_plain") if kind == "characters" else sentencepiece_units(TEXTS * 5, 36, "en_plain")
    )
    units.tokenizer.add_special_tokens({"additional_special_tokens": ["[SEP]"]})
    return TokenizerUnits(units.tokenizer)


def tiny_bpe(kind: str = "bytes", *, extra: Sequence[str] = ("[SEP]",)) -> TokenizerUnits:
    """BPE units as LLMs have them: of `bytes` (GPT-2, Qwen), or of `characters` with bytes behind them (Llama)."""
    special = [*SPECIALS, *extra]
    texts = [*TEXTS, *(text.upper() for text in TEXTS)]
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIALS[0], byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = []
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts * 5, trainer)
    names = dict(zip(("unk_token", "bos_token", "eos_token"), SPECIALS, strict=True))
    return TokenizerUnits(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names))


def tiny_encoder_config(family: str = "hubert") -> PreTrainedConfig:
    match family:
        case "hubert":
            return HubertConfig(**WAVE)
        case "wav2vec2":
            return Wav2Vec2Config(**WAVE, feat_extract_norm="layer", do_stable_layer_norm=True)
        case "wavlm":
            return WavLMConfig(**WAVE)
        case "whisper":
            return WhisperConfig(**WHISPER)
        case "parakeet":
            return ParakeetEncoderConfig(**SIZES, subsampling_conv_channels=8)
    raise ValueError(family)


def tiny_llm_config(family: str = "gpt_neox", vocab_size: int = 60) -> PreTrainedConfig:
    """GPT-NeoX and Llama with an output matrix of their own, the Qwens with tied embeddings."""
    sizes: dict[str, Any] = {**SIZES, "vocab_size": vocab_size, "bos_token_id": 1, "eos_token_id": 2}
    match family:
        case "gpt_neox":
            return GPTNeoXConfig(**sizes, use_parallel_residual=False, hidden_dropout=0.0, tie_word_embeddings=False)
        case "qwen2":
            return Qwen2Config(**sizes, num_key_value_heads=2, tie_word_embeddings=True)
        case "qwen3":
            return Qwen3Config(**sizes, num_key_value_heads=2, head_dim=12, tie_word_embeddings=True)
        case "llama":
            return LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=False)
    raise ValueError(family)


def tiny_llm(family: str = "gpt_neox", vocab_size: int = 60, *, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    llm = AutoModelForCausalLM.from_config(tiny_llm_config(family, vocab_size)).eval()
    shake(llm, seed, 0.3)
    eos_row = llm.get_output_embeddings().weight.data[2]
    eos_row *= {"gpt_neox": 3.0, "llama": 1.6}.get(family, 1.3)  # so that some transcripts end by themselves
    return llm


def tiny_gpt2(vocab_size: int = 60, max_positions: int = 80) -> PreTrainedModel:
    """An LLM with a table of learned positions, which ends."""
    sizes = {"n_embd": DIM, "n_layer": 2, "n_head": 4, "n_positions": max_positions}
    torch.manual_seed(0)
    config = GPT2Config(**sizes, vocab_size=vocab_size, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False)
    llm = AutoModelForCausalLM.from_config(config).eval()
    shake(llm, 0, 0.3)
    return llm


def tiny_acoustic_model(
    encoder: str = "hubert", *, ctc_layers: Sequence[int] = (1, 2), num_units: int | None = None, seed: int = 0
) -> AcousticModel:
    num_units = tiny_units().size if num_units is None else num_units
    torch.manual_seed(seed)
    model = AcousticModel(AcousticModelConfig(tiny_encoder_config(encoder), ctc_layers, num_units)).eval()
    shake(model, seed, 0.3 if encoder == "parakeet" else 0.1)
    for head in model.ctc_heads.values():
        head.linear.weight.data *= 5.0
    return model


def tiny_speech_llm(
    encoder: str = "hubert",
    llm: str = "gpt_neox",
    bridge: str = "stack",
    *,
    ctc_layers: Sequence[int] = (2,),
    acoustic: AcousticNetwork | None = None,
    body: PreTrainedModel | None = None,
    compression: tuple[str, str] = ("drop", "keep"),
    interface: str = "prefix",
    prompt: str = "plain",
    units: TokenizerUnits | None = None,
    show_draft: bool = False,
    seed: int = 0,
) -> SpeechLLM:
    """A whole speech LLM over `tiny_units()`, its interface wide open; `prompt` is the name of a preset.

    `acoustic` is a model to take instead of one of the family `encoder`, `body` an LLM instead of one of the family
    `llm`, `compression` what a `ctc_compress` bridge does with blanks and with repeats.
    """
    units = tiny_units() if units is None else units
    if acoustic is None:
        acoustic = tiny_acoustic_model(encoder, ctc_layers=ctc_layers, num_units=units.size, seed=seed)
    body = tiny_llm(llm, units.size, seed=seed) if body is None else body
    compiled: Prompt = compile_prompt(PRESETS[prompt], units)
    config = SpeechLLMConfig(
        acoustic_config(acoustic),
        body.config,
        bridge=bridge,
        bridge_stride={"conv": 4, "stack": 3}.get(bridge, 1),
        bridge_blanks=compression[0],
        bridge_repeats=compression[1],
        show_draft=show_draft,
        interface=interface,
        prompt_before=compiled.before,
        prompt_after=compiled.after if compiled.bos is None else (*compiled.after, compiled.bos),
        eos_id=compiled.eos,
    )
    torch.manual_seed(seed)
    model = SpeechLLM(config, acoustic=acoustic, llm=body).eval()
    for parameter in model.bridge.parameters():
        parameter.data *= 3.0
    shake(model.interface, seed, 0.3)
    model.interface.open()
    return model


def save_tiny(
    directory: Path, model: PreTrainedModel | None = None, *, trained_on: TrainedOn = TRAINED_ON
) -> PreTrainedModel:
    """Writes a recogniser folder, by default with `tiny_speech_llm()`; returns the model in it."""
    model = tiny_speech_llm() if model is None else model
    save_model(directory, model, tiny_units(), trained_on)
    return model


def save_tiny_llm(directory: Path, family: str = "gpt_neox", *, units: TokenizerUnits | None = None) -> PreTrainedModel:
    """Writes a language model folder, by default over `tiny_units()`."""
    units = tiny_units() if units is None else units
    llm = tiny_llm(family, units.size)
    with quiet_transformers():
        llm.save_pretrained(directory)
    units.save(directory)
    return llm


WHISPER_EXTRA = ("<|startoftranscript|>", "<|en|>", "<|ja|>", "<|transcribe|>", "<|translate|>", "<|notimestamps|>")


def tiny_whisper_units() -> TokenizerUnits:
    """BPE of bytes with Whisper's special tokens behind it, as Whisper has them."""
    units = tiny_bpe(extra=())
    units.tokenizer.add_special_tokens({"additional_special_tokens": [*WHISPER_EXTRA]})
    return TokenizerUnits(units.tokenizer)


def tiny_whisper(*, multilingual: bool = False, seed: int = 0) -> WhisperForConditionalGeneration:
    """A whole Whisper for 2 s and 40 positions over `tiny_whisper_units()`, as transformers has it."""
    units = tiny_whisper_units()
    start, english, japanese, transcribe, translate, no_timestamps = (units.special_id(name) for name in WHISPER_EXTRA)
    special = {"eos_token_id": 2, "pad_token_id": 2, "bos_token_id": 2, "decoder_start_token_id": start}
    torch.manual_seed(seed)
    sizes = {**WHISPER, **special, "vocab_size": units.size, "max_target_positions": 40}
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes)).eval()
    shake(model, seed, 0.3)
    decoder: Any = model.model.decoder
    decoder.embed_positions.weight.data *= 4.0  # so that transcripts are varied
    decoder.embed_tokens.weight.data[2] *= -4.0  # and some end by themselves
    rules: dict[str, Any] = {
        **special,
        "is_multilingual": multilingual,
        "no_timestamps_token_id": no_timestamps,
        "suppress_tokens": [0, 1, start, english, japanese, transcribe, translate, no_timestamps, 30, 40],
        "begin_suppress_tokens": [2, 50, 51, 52],
        "max_length": 40,
    }
    if multilingual:
        rules["lang_to_id"] = {"<|en|>": english, "<|ja|>": japanese}
        rules["task_to_id"] = {"transcribe": transcribe, "translate": translate}
    model.generation_config = GenerationConfig(**rules)
    return model


def save_tiny_whisper(directory: Path, model: WhisperForConditionalGeneration | None = None) -> None:
    """Writes a folder as transformers has it."""
    with quiet_transformers():
        (tiny_whisper() if model is None else model).save_pretrained(directory)
    tiny_whisper_units().save(directory)


def tiny_waveform(seconds: float = 0.6, seed: int = 0) -> NDArray[np.float32]:
    """Noise over tones that change every tenth of a second."""
    generator = np.random.default_rng(seed)
    num_samples = max(1, round(seconds * SAMPLE_RATE))
    pitches = generator.uniform(100, 3000, num_samples // 1600 + 1).repeat(1600)[:num_samples]
    tones = np.sin(2 * np.pi * np.cumsum(pitches) / SAMPLE_RATE)
    return (0.3 * tones + 0.1 * generator.standard_normal(num_samples)).astype(np.float32)


def tiny_waveforms(count: int, seed: int = 0, seconds: tuple[float, float] = (0.1, 1.6)) -> list[NDArray[np.float32]]:
    """Waveforms of different lengths."""
    lengths = np.random.default_rng(seed).uniform(*seconds, count)
    return [tiny_waveform(float(length), seed + index) for index, length in enumerate(lengths)]


def shake(model: torch.nn.Module, seed: int, amount: float) -> None:
    """Adds noise to all weights, that no bias is zero and no norm is one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += amount * torch.randn(parameter.shape, generator=generator)
