"""Pre-trained encoders of transformers: their configuration, and weights from safetensors alone."""

import copy
import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kikitori.errors import ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.encoder.families.fastconformer import FastConformerFamily
from kikitori.model.encoder.families.moonshine import MoonshineFamily
from kikitori.model.encoder.families.moonshine_streaming import MoonshineStreamingFamily
from kikitori.model.encoder.families.omniasr import OmniASRFamily
from kikitori.model.encoder.families.speech_to_text import SpeechToTextFamily
from kikitori.model.encoder.families.wav2vec2_bert import Wav2Vec2BertFamily
from kikitori.model.encoder.families.waveform import WaveformFamily
from kikitori.model.encoder.families.whisper import WhisperFamily
from kikitori.model.encoder.family import Family
from kikitori.model.safety.config import check_config, one_line_errors, quiet_transformers, read_json
from kikitori.model.safety.weights import check_weights, no_larger_than
from kikitori.model.weights import check_finite

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MODEL_CLASSES = {
    "hubert": "hubert.modeling_hubert.HubertModel",
    "wav2vec2": "wav2vec2.modeling_wav2vec2.Wav2Vec2Model",
    "wavlm": "wavlm.modeling_wavlm.WavLMModel",
    "whisper": "whisper.modeling_whisper.WhisperEncoder",
    "parakeet_encoder": "parakeet.modeling_parakeet.ParakeetEncoder",
    "data2vec-audio": "data2vec.modeling_data2vec_audio.Data2VecAudioModel",
    "moonshine": "moonshine.modeling_moonshine.MoonshineEncoder",
    "moonshine_streaming_encoder": "moonshine_streaming.modeling_moonshine_streaming.MoonshineStreamingEncoder",
    "omniasr_audio": "omniasr.modeling_omniasr.OmniASRAudioModel",
    "speech_to_text": "speech_to_text.modeling_speech_to_text.Speech2TextEncoder",
    "unispeech": "unispeech.modeling_unispeech.UniSpeechModel",
    "unispeech-sat": "unispeech_sat.modeling_unispeech_sat.UniSpeechSatModel",
    "voxtral_encoder": "voxtral.modeling_voxtral.VoxtralEncoder",
    "wav2vec2-bert": "wav2vec2_bert.modeling_wav2vec2_bert.Wav2Vec2BertModel",
    "wav2vec2-conformer": "wav2vec2_conformer.modeling_wav2vec2_conformer.Wav2Vec2ConformerModel",
}
"""Encoders by model type, each in a module of its own of `transformers.models`."""
WRAPPING_TYPES = {
    **dict.fromkeys(("parakeet_ctc", "parakeet_tdt", "parakeet_rnnt", "canary", "cohere_asr"), "encoder_config"),
    "moonshine_streaming": "encoder_config",
    **dict.fromkeys(("omniasr", "omniasr_ctc", "voxtral"), "audio_config"),
}
"""Recognisers whose configuration holds that of their encoder, and its name there."""
INNER = r"^(model\.)?(encoder|audio_tower)\."
"""What the weights of an encoder that is a part of a recogniser are called there."""
BARE = (
    *("whisper", "parakeet_encoder", "moonshine", "moonshine_streaming_encoder", "omniasr_audio", "speech_to_text"),
    "voxtral_encoder",
)
"""Encoders whose own weights never have such a name."""
RENAMED = {"cohere_asr": "cohere_asr.modeling_cohere_asr.CohereAsrForConditionalGeneration"}
"""Recognisers whose weights are stored under other names, which transformers knows of the whole alone."""
REASONS = {
    "it averages its frames in pairs at the end": (
        *("audioflamingo3", "audioflamingo3_encoder", "musicflamingo", "qwen2_audio", "qwen2_audio_encoder"),
    ),
    "its front end cuts the features into chunks": ("qwen3_asr", "qwen3_asr_encoder"),
    "its layers run at half the rate of its frames": ("sew", "sew-d"),
    "it is made for streams": (
        *("nemotron3_5_asr", "nemotron_asr_streaming", "nemotron_asr_streaming_encoder"),
        *("voxtral_realtime", "voxtral_realtime_encoder"),
    ),
    "it is an audio codec": ("encodec", "mimi", "higgs_audio_v2_tokenizer", "wavtokenizer_encoder", "xcodec"),
    "it makes a vector of a recording, not frames": ("audio-spectrogram-transformer", "clap"),
}
"""Why some models that hear are not taken."""
TRAINING_ONLY_WEIGHTS = {"masked_spec_embed"}  # missing in some checkpoints; no part of recognition
KALDI_FEATURES = {"dither": 0.0, "do_ceptral_normalize": True, "normalize_means": True, "normalize_vars": True}
PARAKEET_FEATURES = {"hop_length": 160, "n_fft": 512, "win_length": 400, "preemphasis": 0.97}


def family_of(config: Any) -> Family:
    """The family of an encoder's own configuration."""
    match config.model_type:
        case "whisper" | "voxtral_encoder":
            return WhisperFamily(getattr(config, "window", "padded"))
        case "parakeet_encoder":
            return FastConformerFamily()
        case "moonshine":
            return MoonshineFamily()
        case "moonshine_streaming_encoder":
            return MoonshineStreamingFamily()
        case "omniasr_audio":
            return OmniASRFamily()
        case "speech_to_text":
            return SpeechToTextFamily()
        case "wav2vec2-bert":
            return Wav2Vec2BertFamily()
        case _:
            return WaveformFamily()


def model_class(model_type: str) -> Any:
    """The class of an encoder."""
    return _class(MODEL_CLASSES[model_type])


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"transformers.models.{module}"), name)


def load_pretrained(path_or_id: str | Path, revision: str | None) -> tuple[Any, nn.Module]:
    """Configuration and float32 model of a checkpoint, also of a whole recogniser, whose encoder is taken.

    Raises:
        ModelError: Nothing there, an unsupported family, pickled, damaged or missing weights.
    """
    config = pretrained_config(path_or_id, revision)
    size, whole = check_weights(path_or_id), RENAMED.get(read_json(path_or_id, "config.json")["model_type"])
    settings: dict[str, Any] = {"revision": revision, "use_safetensors": True, "dtype": torch.float32}
    with one_line_errors(path_or_id), quiet_transformers(), no_larger_than(size, path_or_id):
        if whole is not None:
            recogniser, info = _class(whole).from_pretrained(path_or_id, output_loading_info=True, **settings)
            model = recogniser.model.encoder
            config = model.config
            read_preprocessor(path_or_id, revision, config)
        else:
            mapping = {INNER: ""} if config.model_type in BARE else None
            model, info = model_class(config.model_type).from_pretrained(
                path_or_id, config=config, key_mapping=mapping, output_loading_info=True, **settings
            )
    missing = sorted(set(info["missing_keys"]) - TRAINING_ONLY_WEIGHTS)
    if missing:
        what = f"{len(missing)} encoder weights are missing, the first is {missing[0]}"
        raise ModelError(what, where=path_or_id, remedy="check that the weights belong to config.json")
    for name, weight in model.state_dict().items():
        check_finite(path_or_id, name, weight)
    return config, model


def pretrained_config(path_or_id: str | Path, revision: str | None) -> Any:
    """The configuration of a pre-trained encoder; its weights are not touched.

    Raises:
        ModelError: Nothing there, or an unsupported family.
    """
    from transformers import AutoConfig

    check_config(path_or_id, read_json(path_or_id, "config.json"))
    with one_line_errors(path_or_id), quiet_transformers():
        found = AutoConfig.from_pretrained(path_or_id, revision=revision, trust_remote_code=False)
        config = encoder_config(found, where=path_or_id)
        read_preprocessor(path_or_id, revision, config)
    return config


def encoder_config(config: "PreTrainedConfig", *, where: object = None) -> Any:
    """A copy of the encoder's own configuration."""
    own: Any = getattr(config, WRAPPING_TYPES[config.model_type]) if config.model_type in WRAPPING_TYPES else config
    if own.model_type not in MODEL_CLASSES:
        why = next((f": {why}" for why, types in REASONS.items() if own.model_type in types), "")
        what = f"model type {own.model_type!r} is no supported speech encoder{why}"
        raise ModelError(what, where=where, remedy=f"use one of {', '.join([*MODEL_CLASSES, *WRAPPING_TYPES])}")
    if getattr(own, "add_adapter", False):
        raise ModelError("encoders with add_adapter are not supported", where=where, remedy="leave it to the bridge")
    return copy.deepcopy(own)


def read_preprocessor(path_or_id: str | Path, revision: str | None, config: Any) -> None:
    """Take `do_normalize` from the checkpoint's feature extractor, and refuse features other than ours.

    Raises:
        ModelError: With the entry.
    """
    from transformers.utils.hub import cached_file

    settings: dict[str, Any] = {}
    for name in ("processor_config.json", "preprocessor_config.json"):
        file = cached_file(path_or_id, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if file:
            content = json.loads(Path(file).read_text(encoding="utf-8"))
            settings |= content.get("feature_extractor", content)
    expected: dict[str, float] = {"sampling_rate": SAMPLE_RATE}
    if family_of(config).takes_waveform and "do_normalize" in settings:
        config.do_normalize = bool(settings["do_normalize"])
    if config.model_type == "parakeet_encoder":
        expected |= {"feature_size": config.num_mel_bins, **PARAKEET_FEATURES}
        config.dither = float(settings.get("dither") or 0.0)
    if config.model_type == "speech_to_text":
        expected |= {"num_mel_bins": config.input_feat_per_channel, **KALDI_FEATURES}
    for name, value in expected.items():
        if settings.get(name, value) != value:
            what = f"features with {name} = {settings[name]} are not supported"
            raise ModelError(what, where=path_or_id, remedy=f"use a checkpoint with {name} = {value}")
