"""The processor: what stands between users' audio and text and the tensors of the models."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from kikitori.data.speech import pad_waveforms
from kikitori.io.audio import to_mono_16k
from kikitori.model.acoustic_model import AcousticModelConfig
from kikitori.model.speech_llm import SpeechLLMConfig
from kikitori.text.units import TokenizerUnits


class SpeechProcessor(ProcessorMixin):
    """Audio arrays to `waveforms` and `lengths`, text to `labels`, labels to text.

    Log-mel features are the encoder's own business, so that they are the same in training and in use.
    """

    attributes: ClassVar[list[str]] = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"

    def __init__(self, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(tokenizer, **kwargs)  # type: ignore[no-untyped-call]

    def __call__(
        self,
        audio: NDArray[Any] | Sequence[NDArray[Any]],
        *,
        sampling_rate: int,
        text: str | Sequence[str] | None = None,
    ) -> BatchFeature:
        """Prepares one or several recordings.

        Args:
            audio: Samples, or a list of them; each (samples,) or (samples, channels).
            sampling_rate: Their rate in Hz; anything is resampled to 16 kHz mono.
            text: Their transcripts, for training.

        Returns:
            `waveforms` (batch, samples), `lengths` (batch,) and, with text, `labels`: a list of lists.
        """
        arrays = [audio] if isinstance(audio, np.ndarray) else list(audio)
        waveforms, lengths = pad_waveforms([to_mono_16k(array, sampling_rate) for array in arrays])
        data: dict[str, Any] = {"waveforms": waveforms, "lengths": lengths}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            units = TokenizerUnits(self.tokenizer)
            data["labels"] = [units.encode(item) for item in texts]
        return BatchFeature(data)

    def decode(self, labels: Sequence[int] | torch.Tensor, **kwargs: Any) -> str:  # noqa: ARG002
        """Labels to text, without special labels."""
        return str(self.tokenizer.decode(labels, skip_special_tokens=True)).strip()


AutoProcessor.register(SpeechLLMConfig, SpeechProcessor)
AutoProcessor.register(AcousticModelConfig, SpeechProcessor)
