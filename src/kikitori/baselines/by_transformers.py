"""Models of transformers, run by transformers: CTC, Whisper and its like, transducers, and speech LLMs.

Features are made, networks run and labels decoded by its own code, in a batch, with the model's own generation
settings. Only safetensors and JSON are read, and no code of the hub.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto as families

from kikitori.baselines.base import Baseline, Writer
from kikitori.data.augment import Waveform
from kikitori.errors import ConfigError, ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.extras import require
from kikitori.model.safety.config import one_line_errors, quiet_transformers, read_json
from kikitori.model.safety.load import read_weights
from kikitori.model.weights import weights_digest

WHISPER = "whisper"
LONGEST_S = 30.0
"""Seconds of the longest utterance where features have no window: about what such models were trained on."""
MOST_LABELS = 448
"""That a speech LLM may write of an utterance; the others' own settings say it."""
TRAINING_ALONE = "masked_spec_embed"
"""Weights that older releases lack, since they are for SpecAugment."""
INSTRUCTION = "Transcribe the audio to text."
"""Of speech LLMs whose processors know no request of their own."""
GRANITE_INSTRUCTION = "can you transcribe the speech into a written format?"
"""Of its model cards."""
_NEEDED = {"voxtral": "mistral_common", "granite_speech": "torchaudio", "granite_speech_plus": "torchaudio"}
"""Packages that transformers needs for the processors of some types of models."""


def load_transformers(path_or_id: str, *, device: str, dtype: torch.dtype, language: str | None = None) -> Baseline:
    """A recogniser of transformers.

    Args:
        path_or_id: A folder, or a hub id.
        device: As torch names it.
        dtype: Arithmetic of its networks.
        language: Code of the language of all recordings, for a Whisper that knows several.

    Raises:
        ModelError: It is missing, damaged or unsafe, or no recogniser of transformers.
        ConfigError: A language is given to a model that takes none, or a package is not installed.
    """
    config = read_json(path_or_id, "config.json")
    if (package := _NEEDED.get(str(config.get("model_type")))) is not None:
        require(package, "its processor needs", where=path_or_id)
    if config.get("has_lora_adapter"):
        remedy = "merge it into the weights, and say has_lora_adapter: false"
        raise ModelError("its LoRA adapter is no part of its weights", where=path_or_id, remedy=remedy)
    model = _load_model(path_or_id, config)
    is_whisper = model.config.model_type == WHISPER
    multilingual = is_whisper and getattr(model.generation_config, "is_multilingual", False)
    if language is not None and not multilingual:
        raise ConfigError("only a Whisper of several languages takes one", where="--language", remedy="leave it out")
    with one_line_errors(path_or_id), quiet_transformers():
        processor = transformers.AutoProcessor.from_pretrained(str(path_or_id), trust_remote_code=False)
    if (features := _feature_extractor(processor)) is None:
        raise ModelError(f"{type(model).__name__} hears nothing", where=path_or_id, remedy="name a speech LLM")
    if (rate := features.sampling_rate) != SAMPLE_RATE:
        raise ModelError(f"it reads {rate} Hz", where=path_or_id, remedy=f"name a model for {SAMPLE_RATE} Hz")
    told = {"task": "transcribe", **({} if language is None else {"language": language})}
    identity = {"weights": weights_digest(model), "transformers": transformers.__version__, "language": language}
    return Baseline(
        write=_writer(model.to(device, dtype), processor, told if multilingual else {}),
        name=Path(path_or_id).name if Path(path_or_id).is_dir() else path_or_id,
        search=f"transformers {transformers.__version__}",
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        longest_s=float(getattr(features, "chunk_length", None) or LONGEST_S),
        language="en" if is_whisper and not multilingual else language,
        identity=identity | {"dtype": str(dtype)},
    )


@dataclass(frozen=True, eq=False)
class _Frames:
    """A CTC head, whose best labels frame by frame its tokenizer collapses."""

    model: Any
    processor: Any

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        inputs = self.processor([*waveforms], sampling_rate=SAMPLE_RATE, return_tensors="pt", padding=True)
        logits = self.model(**_placed(inputs, self.model)).logits
        texts: list[str] = self.processor.batch_decode(logits.argmax(dim=-1))
        return texts


@dataclass(frozen=True, eq=False)
class _Generated:
    """What writes from features alone: a decoder such as Whisper's, a transducer, a CTC model that masks padding."""

    model: Any
    processor: Any
    settings: Mapping[str, Any]

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        inputs = self.processor.feature_extractor(
            [*waveforms], sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True, **self.padding
        )
        with quiet_transformers():  # it warns of what it does itself
            found = self.model.generate(**_placed(inputs, self.model), **self.settings)
        texts: list[str] = self.processor.batch_decode(getattr(found, "sequences", found), skip_special_tokens=True)
        return texts

    @property
    def padding(self) -> dict[str, Any]:
        """To the longest recording; Whisper reads 30 s always, which is its extractor's own."""
        return {} if self.model.config.model_type == WHISPER else {"padding": True}


Request = Callable[[Any, list[Waveform]], Any]
"""From a speech LLM's processor and waveforms to what the LLM reads."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """A speech LLM that reads a request to transcribe and continues it."""

    model: Any
    processor: Any
    request: Request

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        inputs = _placed(self.request(self.processor, [*waveforms]), self.model)
        with quiet_transformers():
            found = self.model.generate(**inputs, max_new_tokens=MOST_LABELS)
        written = getattr(found, "sequences", found)[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self.processor.batch_decode(written, skip_special_tokens=True)
        return texts


def _own_request(processor: Any, waveforms: list[Waveform]) -> Any:
    """What the processor itself knows."""
    return processor.apply_transcription_request(waveforms)


def _voxtral_request(processor: Any, waveforms: list[Waveform]) -> Any:
    """Voxtral's, which goes by way of a request to its maker's server, with a file and the name of a model."""
    return processor.apply_transcription_request(waveforms, "voxtral", sampling_rate=SAMPLE_RATE, format="wav")


def _granite_request(processor: Any, waveforms: list[Waveform]) -> Any:
    """Granite Speech's chat, whose text says where the audio stands."""
    chat = [{"role": "user", "content": f"{processor.audio_token}{GRANITE_INSTRUCTION}"}]
    text = processor.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return processor([text] * len(waveforms), waveforms, return_tensors="pt")


def _chat(processor: Any, waveforms: list[Waveform]) -> Any:
    """An instruction behind the audio, in the model's own chat template."""
    chats = [
        [{"role": "user", "content": [{"type": "audio", "audio": each}, {"type": "text", "text": INSTRUCTION}]}]
        for each in waveforms
    ]
    settings = {"tokenize": True, "add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    return processor.apply_chat_template(chats, **settings, padding=True, sampling_rate=SAMPLE_RATE)


def _load_model(path_or_id: str, config: dict[str, Any]) -> Any:
    architectures = config.get("architectures") or []
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else "none"
    known = {*_CTC, *_FROM_FEATURES, *families.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.values()}
    if name not in known:
        what = f"its architecture ({name}) is no speech recogniser of transformers {transformers.__version__}"
        raise ModelError(what, where=path_or_id, remedy="name a CTC model, a Whisper or a speech LLM")
    model, info = read_weights(getattr(transformers, name), path_or_id, config)
    if lacking := sorted(key for key in info["missing_keys"] if not key.endswith(TRAINING_ALONE)):
        what = f"the weights do not fit config.json at {lacking[0]}"
        raise ModelError(what, where=path_or_id, remedy="copy the folder again")
    return model.eval()


_CTC = {*families.MODEL_FOR_CTC_MAPPING_NAMES.values()}
_FROM_FEATURES = {
    *families.MODEL_FOR_RNNT_MAPPING_NAMES.values(),
    *families.MODEL_FOR_TDT_MAPPING_NAMES.values(),
    "WhisperForConditionalGeneration",
    "MoonshineForConditionalGeneration",
    "Speech2TextForConditionalGeneration",
}


def _writer(model: Any, processor: Any, settings: Mapping[str, Any]) -> Writer:
    name = type(model).__name__
    if name in _CTC and not hasattr(model, "generate"):
        return _Frames(model, processor)
    if name in _CTC or name in _FROM_FEATURES:
        return _Generated(model, processor, settings)
    processor.tokenizer.padding_side = "left"  # what it writes follows the request at once
    match model.config.model_type:
        case "voxtral":
            return _Asked(model, processor, _voxtral_request)
        case "granite_speech" | "granite_speech_plus":
            return _Asked(model, processor, _granite_request)
        case _ if hasattr(processor, "apply_transcription_request"):
            return _Asked(model, processor, _own_request)
        case _:
            return _Asked(model, processor, _chat)


def _feature_extractor(processor: Any) -> Any:
    """That of a processor under either name; None of one that reads no audio."""
    return getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)


def _placed(inputs: Any, model: Any) -> Any:
    """Inputs where the model is, real numbers in its arithmetic."""
    return inputs.to(model.device, dtype=model.dtype)
