"""Omnilingual ASR's encoder, a wav2vec 2.0 in the newer layout of transformers, which masks its padding itself."""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from kikitori.model.encoder.families.waveform import WaveformFamily, normalise
from kikitori.model.encoder.family import min_features
from kikitori.model.features import mask_tail, valid_mask

VARIANCE_FLOOR = 1e-5


class OmniASRFamily(WaveformFamily):
    """The family of Omnilingual ASR; the extra entry `do_normalize` is that of its feature extractor."""

    front_end = ("subsampling",)
    final_norm = ("layer_norm",)

    def prepare(self, model: Any) -> None:
        """The published models read normalised waveforms."""
        if not hasattr(model.config, "do_normalize"):
            model.config.do_normalize = True

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The Transformer's."""
        return cast(Sequence[nn.Module], model.layers)

    def features(self, config: Any, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The waveforms, each with zero mean and unit variance if the checkpoint wants it."""
        waveforms = mask_tail(waveforms.float(), lengths)
        return (normalise(waveforms, lengths, VARIANCE_FLOOR) if config.do_normalize else waveforms), lengths

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Front end and Transformer."""
        sizes = lengths.clamp(min=min_features(self.convolutions(model.config)))
        longest = int(sizes.max())
        inputs = mask_tail(nn.functional.pad(inputs, (0, max(0, longest - inputs.shape[1])))[:, :longest], lengths)
        mask = valid_mask(sizes, longest)
        return cast(Tensor, model(inputs[:, None], padding_mask=mask).last_hidden_state)
