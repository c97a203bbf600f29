"""Every speech encoder of transformers as a tiny random model in a folder: right, or refused with the reason.

    make sweep                                    # after the LLMs; docs/encoders.md is written anew

An encoder is *right* if, once its folder is read, each utterance has the same frames in any batch and behind any
padding, and a single one those of transformers' own encoder over the same features.
"""

import json
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.utils import logging

from kikitori.errors import KikitoriError
from kikitori.model.encoder import MODEL_CLASSES, SpeechEncoder
from kikitori.model.encoder.pretrained import WRAPPING_TYPES
from kikitori.model.safety.config import quiet_transformers

TOLERANCE = 1e-4
"""Of frames with a standard deviation of about 1."""
TABLE = Path(__file__).parents[1] / "docs" / "encoders.md"
MARK = "<!-- measured by make sweep -->"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WAVE = {**SIZES, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
LARGE = {**WAVE, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
CONFORMER = {**LARGE, "conv_depthwise_kernel_size": 7}
WHISPER = {f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in
           (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))}  # fmt: skip
MOONSHINE = {"hidden_size": 32, "intermediate_size": 64} | {
    f"{side}_num_{what}": size
    for side in ("encoder", "decoder")
    for what, size in (("hidden_layers", 2), ("attention_heads", 4))
}
SETTINGS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "hubert": [("base", WAVE), ("large", LARGE), ("batch norm", {**WAVE, "conv_pos_batch_norm": True})],
    "wav2vec2": [("base", WAVE), ("large", LARGE), ("adapters", {**LARGE, "adapter_attn_dim": 8})],
    "wavlm": [("base", WAVE), ("large", LARGE)],
    "whisper": [
        (f"{bins} mel", {**WHISPER, "d_model": 32, "max_source_positions": 100, "num_mel_bins": bins})
        for bins in (80, 128)
    ],
    "parakeet_encoder": [("", {**SIZES, "subsampling_conv_channels": 8})],
    "data2vec-audio": [("", {**WAVE, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5})],
    "moonshine": [("", MOONSHINE)],
    "omniasr_audio": [("", WAVE)],
    "moonshine_streaming_encoder": [("", {**SIZES, "num_key_value_heads": 4, "sliding_windows": ((4, 2), (3, 0))})],
    "speech_to_text": [("", {**WHISPER, "d_model": 32, "conv_channels": 32, "max_source_positions": 50})],
    "unispeech": [("base", WAVE), ("large", LARGE)],
    "unispeech-sat": [("base", WAVE), ("large", LARGE)],
    "voxtral_encoder": [("", {**SIZES, "num_mel_bins": 128, "max_source_positions": 100})],
    "wav2vec2-bert": [
        (kind, {**SIZES, "conv_depthwise_kernel_size": 7, "position_embeddings_type": kind})
        for kind in ("relative_key", "relative", "rotary")
    ],
    "wav2vec2-conformer": [(kind, {**CONFORMER, "position_embeddings_type": kind}) for kind in ("relative", "rotary")],
}
"""Tiny configurations of the encoders that are taken."""
OTHERS = (
    "audio-spectrogram-transformer",
    "audioflamingo3",
    "audioflamingo3_encoder",
    "canary",
    "clap",
    "cohere_asr",
    "encodec",
    "fun_asr_nano",
    "fun_asr_nano_encoder",
    "gemma3n_audio",
    "gemma4_audio",
    "glmasr",
    "glmasr_encoder",
    "granite_speech",
    "granite_speech5_ctc",
    "granite_speech5_encoder",
    "granite_speech_encoder",
    "granite_speech_plus",
    "higgs_audio_v2_tokenizer",
    "kyutai_speech_to_text",
    "lasr_ctc",
    "lasr_encoder",
    "mimi",
    "moonshine_streaming",
    "musicflamingo",
    "nemotron3_5_asr",
    "nemotron_asr_streaming",
    "nemotron_asr_streaming_encoder",
    "omniasr",
    "omniasr_ctc",
    "parakeet_ctc",
    "parakeet_rnnt",
    "parakeet_tdt",
    "pe_audio_encoder",
    "phi4_multimodal_audio",
    "qwen2_audio",
    "qwen2_audio_encoder",
    "qwen3_asr",
    "qwen3_asr_encoder",
    "seamless_m4t",
    "seamless_m4t_v2",
    "sew",
    "sew-d",
    "speecht5",
    "vibevoice_asr",
    "voxtral",
    "voxtral_realtime",
    "voxtral_realtime_encoder",
    "wavtokenizer_encoder",
    "xcodec",
)
"""Other models of transformers that hear."""
OWN_INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "whisper": lambda features: features.mT,
    "voxtral_encoder": lambda features: features.mT,
    "omniasr_audio": lambda features: features[:, None],
    "wav2vec2-bert": lambda features: features[:, : features.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2),
}
"""From our features to what transformers' encoder is given, where that differs."""


OWN_ARGUMENTS: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    # Without a mask transformers' layers read the whole recording, with one their windows.
    "moonshine_streaming_encoder": lambda inputs: {"attention_mask": torch.ones_like(inputs)},
}


class WrongError(Exception):
    """Other frames than there should be."""


def tiny_config(family: str, changes: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of an encoder."""
    config: PreTrainedConfig = CONFIG_MAPPING[family](**changes)
    return config


def check(config: PreTrainedConfig) -> None:
    """Write an encoder into a folder, read it, and compare frames."""
    torch.manual_seed(0)
    made = SpeechEncoder(config)
    generator = torch.Generator().manual_seed(3)
    for weight in made.model.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    with TemporaryDirectory() as folder:
        with quiet_transformers():
            made.model.save_pretrained(folder)
        encoder = SpeechEncoder.from_pretrained(folder).eval()
    lengths = torch.tensor([9000, 1, 399, 8000, 31999])
    waveforms = torch.full((5, 33000), torch.nan)
    for row, length in enumerate(lengths.tolist()):
        waveforms[row, :length] = 0.1 * torch.randn(length, generator=generator) + 0.02
    with torch.no_grad():
        batch = encoder(waveforms[:, :32000], lengths)
        again = encoder(waveforms[[4, 3, 0]], lengths[[4, 3, 0]])
        for place, row in enumerate((4, 3, 0)):
            size = int(batch.lengths[row])
            _same(again.frames[place, :size], batch.frames[row, :size], "frames in another order and padding")
        for row, length in enumerate(lengths.tolist()):
            alone = encoder(waveforms[row : row + 1, :length], lengths[row : row + 1])
            _same(batch.frames[row, : int(batch.lengths[row])], alone.frames[0], "frames in a batch")
        whole, samples = waveforms[4:, :31999].nan_to_num(), torch.tensor([31999])
        features, _ = encoder.features(whole, samples)
        inputs = OWN_INPUTS[config.model_type](features) if config.model_type in OWN_INPUTS else features
        arguments = OWN_ARGUMENTS[config.model_type](inputs) if config.model_type in OWN_ARGUMENTS else {}
        own = encoder.model(inputs, **arguments).last_hidden_state
        found = encoder(whole, samples).frames
        _same(found, own[:, : found.shape[1]], "frames and those of transformers")


def _same(found: Tensor, expected: Tensor, what: str) -> None:
    if found.shape != expected.shape:
        raise WrongError(f"{what}: {tuple(found.shape)} and {tuple(expected.shape)}")
    if not (off := float((found - expected).abs().max())) <= TOLERANCE:
        raise WrongError(f"{what} differ by {off:.2g}")


def outcome(use: Callable[[], object]) -> tuple[str, str]:
    """What becomes of an encoder: a sign and the reason."""
    try:
        use()
    except KikitoriError as error:
        return "no", f"{error.what}"
    except WrongError as error:
        return "**wrong**", str(error)
    except Exception as error:  # noqa: BLE001  (tracebacks are what is counted)
        return "**traceback**", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
    return "yes", ""


def read_config(family: str) -> str:
    """What is said of a folder with this configuration: the encoder that is taken from it.

    Raises:
        KikitoriError: None is.
    """
    with TemporaryDirectory() as folder:
        config: dict[str, Any] = {"model_type": family}
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        return str(SpeechEncoder.pretrained_config(folder).model_type)


def main() -> None:
    """Sweeps all encoders and writes their table."""
    warnings.filterwarnings("ignore")
    logging.set_verbosity(50)
    torch.set_num_threads(1)
    rows: list[tuple[str, str, str]] = []
    for family in MODEL_CLASSES:
        if family not in CONFIG_MAPPING:
            rows.append((family, "–", "not in this release of transformers"))
            continue
        for variant, changes in SETTINGS[family]:
            name = f"{family}: {variant}".removesuffix(": ")
            rows.append((name, *outcome(partial(check, tiny_config(family, changes)))))
            print(" | ".join(rows[-1]), flush=True)
    for family in OTHERS:
        sign, reason = outcome(partial(read_config, family))
        if sign == "yes":
            reason = f"its encoder, {read_config(family)}, under `{WRAPPING_TYPES[family]}`"
        rows.append((family, sign, reason))
        print(" | ".join(rows[-1]), flush=True)
    write(rows)


def write(rows: list[tuple[str, str, str]]) -> None:
    """Writes the counts and the table into docs/encoders.md, behind its introduction."""
    introduction = TABLE.read_text(encoding="utf-8").partition(MARK)[0]
    signs: dict[str, str] = {}
    for name, sign, _ in rows:
        family = name.partition(":")[0]
        signs[family] = sign if signs.get(family, "yes") == "yes" else signs[family]
    encoders = Counter(signs[family] for family in MODEL_CLASSES)
    others = Counter(signs[family] for family in OTHERS)
    kinds = ("yes", "no", "**wrong**", "**traceback**")
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}"
    lines = [
        MARK,
        "",
        f"Measured with {versions}.",
        "",
        f"| | {' | '.join(kinds)} |",
        "| --- |" + " --- |" * len(kinds),
    ]
    for what, counts in (("encoders", encoders), ("other models that hear", others)):
        lines.append(f"| {what} | " + " | ".join(str(counts[kind]) for kind in kinds) + " |")
    lines += ["", "| model type | taken | reason |", "| --- | --- | --- |"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    TABLE.write_text(introduction + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
