"""The speech encoder: one interface over the public encoder families.

In: right-padded 16 kHz waveforms (batch, samples) with lengths. Out: frames (batch, frames, dim) with exact lengths,
zero behind each utterance. In evaluation mode an utterance gives the same frames whatever it is batched with.

- `speech_encoder`: `SpeechEncoder` over any family; `layers`: which of them learn; `pretrained`: checkpoints and their
  configuration.
- `rows`: a batch a few rows at a time.
- `family`: what a family has to say; `families`: `waveform`: HuBERT, wav2vec 2.0 and their kin; `omniasr`, `moonshine`,
  `moonshine_streaming`, `wav2vec2_bert`, `speech_to_text`; `whisper`, also in Voxtral; `fastconformer`: Parakeet,
  Canary.
"""

from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.encoder.layers import FreezePlan, equal_encoders, freeze, freeze_below, share_layers
from kikitori.model.encoder.pretrained import MODEL_CLASSES
from kikitori.model.encoder.speech_encoder import EncoderOutput, SpeechEncoder

__all__ = [
    "MODEL_CLASSES",
    "SAMPLE_RATE",
    "EncoderOutput",
    "FreezePlan",
    "SpeechEncoder",
    "equal_encoders",
    "freeze",
    "freeze_below",
    "share_layers",
]
