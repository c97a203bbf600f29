"""The CTC acoustic model as a model of transformers, which trains it, alone or as the first half of a speech LLM."""

import copy
from typing import Any, ClassVar, TypeVar

from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from kikitori.io.model_folder import ModelType
from kikitori.model.acoustic import FORMAT_VERSION, AcousticNetwork
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.whisper.config import WhisperConfig

M = TypeVar("M", bound=nn.Module)


class AcousticModelConfig(PreTrainedConfig):
    """Configuration of an `AcousticModel`: the entries of `HeadConfig`, and those of transformers.

    Args:
        format_version: Version of the folder's format (see `FORMAT_VERSION`); for the others see `HeadConfig`.
    """

    model_type = ModelType.ACOUSTIC_MODEL.value
    sub_configs: ClassVar[dict[str, Any]] = {"encoder_config": AutoConfig}

    def __init__(
        self,
        encoder_config: PreTrainedConfig | dict[str, Any] | None = None,
        ctc_layers: tuple[int, ...] | list[int] = (),
        num_units: int = 0,
        phones: tuple[str, ...] | list[str] = (),
        phone_layers: tuple[int, ...] | list[int] = (),
        phone_upsample: int = 1,
        format_version: int = FORMAT_VERSION,
        **kwargs: Any,
    ) -> None:
        # Before the nested configuration is in place: transformers resets the attention of every nested one here, and
        # a live encoder that shares it would go on without its padding mask.
        super().__init__(**kwargs)
        self.encoder_config: Any = as_config(encoder_config)
        self.ctc_layers = list(ctc_layers)
        self.num_units = num_units
        self.phones = list(phones)
        self.phone_layers = list(phone_layers)
        self.phone_upsample = phone_upsample
        self.format_version = format_version

    @property
    def num_phone_outputs(self) -> int:
        """What a phone head says of a frame beside blanks: its phones, as often as it is asked."""
        return self.phone_upsample * len(self.phones)


class AcousticModel(AcousticNetwork, PreTrainedModel):
    """An `AcousticNetwork` that transformers can save, load and train."""

    config: AcousticModelConfig
    config_class = AcousticModelConfig
    main_input_name = "waveforms"
    _supports_sdpa = True

    def __init__(self, config: AcousticModelConfig, *, encoder: SpeechEncoder | None = None) -> None:
        PreTrainedModel.__init__(self, config)
        self.add_parts(SpeechEncoder(config.encoder_config) if encoder is None else adopted(encoder))
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:  # noqa: ARG002
        # The encoder initialises itself; the heads keep torch's own initialisation.
        return


def acoustic_config(network: AcousticNetwork) -> AcousticModelConfig:
    """The configuration of a network for transformers."""
    heads = network.config
    if isinstance(heads, AcousticModelConfig):
        return heads
    encoder = heads.encoder_config
    return AcousticModelConfig(
        encoder_config=encoder.entries() if isinstance(encoder, WhisperConfig) else copy.deepcopy(encoder),
        ctc_layers=list(heads.ctc_layers),
        num_units=heads.num_units,
        phones=list(heads.phones),
        phone_layers=list(heads.phone_layers),
        phone_upsample=heads.phone_upsample,
    )


def as_acoustic_model(network: AcousticNetwork) -> AcousticModel:
    """An acoustic model with the weights of a network that transformers cannot train, such as that of a Whisper."""
    if isinstance(network, AcousticModel):
        return network
    model = AcousticModel(acoustic_config(network))
    model.load_state_dict(network.state_dict())
    model.eval()  # type: ignore[no-untyped-call]
    return model


def as_config(config: PreTrainedConfig | dict[str, Any] | None) -> PreTrainedConfig | None:
    """A nested configuration from what config.json holds."""
    if isinstance(config, dict):
        return AutoConfig.for_model(**config)
    return config


def adopted(module: M) -> M:
    """A part that keeps its weights in `post_init`, which would draw anew whatever transformers did not load itself."""
    for part in module.modules():
        part._is_hf_initialized = True  # type: ignore[assignment]
    return module


AutoConfig.register(AcousticModelConfig.model_type, AcousticModelConfig)
AutoModel.register(AcousticModelConfig, AcousticModel)
