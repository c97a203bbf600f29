"""An encoder in training whose frozen part runs once for each utterance (and augmented copy of it).

With policy `frozen` that part is the whole encoder, with `top` all below the last layers, which go on from its states.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kikitori.data.speech import SpeechBatch, SpeechLoader
from kikitori.errors import DataError
from kikitori.model.encoder import EncoderOutput, SpeechEncoder
from kikitori.model.features import mask_tail
from kikitori.train.recipe.data import Augment
from kikitori.train.tasks.encoder_cache import EncoderCache, row_name
from kikitori.train.tasks.speech_batches import training_inputs


class CachedEncoder:
    """Encodes batches of training and dev speech.

    Args:
        encoder: The speech encoder.
        layers: 1-based layers whose states are wanted beside the frames.
        frozen_layers: Layers that do not learn, of an encoder that runs in two parts; None if nothing of it learns.
        cache: Where outputs are kept.
        augment: Augmentation of the training speech.
        copies: Augmented copies of each utterance; epochs take turns.
        seed: Seed of the augmentation.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        layers: Sequence[int],
        frozen_layers: int | None,
        cache: EncoderCache,
        augment: Augment,
        copies: int,
        seed: int,
    ) -> None:
        self.encoder, self.layers, self.frozen_layers = encoder, layers, frozen_layers
        self.cache, self.augment, self.copies, self.seed = cache, augment, copies, seed

    def load(self, speech: SpeechLoader, indices: list[int], epoch: int) -> SpeechBatch | None:
        """A training batch; without its waveforms where the outputs of all of it are known."""
        utterances, copy = [speech.utterances[i] for i in indices], epoch % self.copies
        samples = [self.cache.samples(row_name(each, copy)) for each in utterances]
        known = [each for each in samples if each is not None]
        if len(known) < len(indices):
            return speech.batch(indices, epoch=copy)
        return SpeechBatch(
            utt_ids=tuple(each.utt_id for each in utterances),
            waveforms=torch.zeros(len(indices), 0),
            lengths=torch.tensor(known),
            texts=tuple(each.text or "" for each in utterances),
            indices=tuple(indices),
        )

    def encode(self, batch: SpeechBatch, speech: SpeechLoader, epoch: int | None) -> EncoderOutput:
        """The encoder's output for a batch of `speech`, augmented if an epoch is given.

        Raises:
            DataError: A file can no longer be read.
        """
        copy = None if epoch is None else epoch % self.copies
        rows = [self._states(batch, row, speech, copy) for row in range(len(batch.texts))]
        device = next(self.encoder.parameters()).device
        states = pad_sequence([each for each, _ in rows], batch_first=True).to(device)
        samples = torch.tensor([each for _, each in rows], device=device)
        if self.frozen_layers is not None:
            lengths = self.encoder.family.num_features(self.encoder.config, samples).clamp(min=1)
            return self.encoder.encode_upper(states, lengths, self.frozen_layers, layers=self.layers)
        lengths = self.encoder.output_lengths(samples)
        frames, *intermediate = (mask_tail(each, lengths) for each in states.split(self.encoder.dim, dim=2))
        return EncoderOutput(frames, lengths, tuple(intermediate))

    def _states(self, batch: SpeechBatch, row: int, speech: SpeechLoader, copy: int | None) -> tuple[Tensor, int]:
        """Outputs of the frozen part for an utterance, (frames, size), and its samples."""
        index = batch.indices[row]
        name = row_name(speech.utterances[index], copy)
        if (known := self.cache.read(name)) is not None:
            return known, int(batch.lengths[row])
        one = SpeechBatch((batch.utt_ids[row],), batch.waveforms[row : row + 1], batch.lengths[row : row + 1], ("",))
        if not batch.waveforms.shape[1]:  # what was kept is damaged
            again = speech.batch([index], epoch=copy)
            if again is None:
                raise DataError("can no longer be read", where=speech.utterances[index].audio_filepath)
            one = again
        samples = int(one.lengths[0])
        one = SpeechBatch(one.utt_ids, one.waveforms[:, :samples], one.lengths, one.texts)
        return self.cache.write(name, self._compute(one, index, copy), samples), samples

    @torch.no_grad()
    def _compute(self, one: SpeechBatch, index: int, copy: int | None) -> Tensor:
        encoder, device = self.encoder, next(self.encoder.parameters()).device
        if copy is None:
            inputs, lengths = encoder.features(one.waveforms.to(device), one.lengths.to(device))
        else:
            generator = np.random.default_rng([self.seed, copy, index])
            inputs, lengths = training_inputs(encoder, one, self.augment, 1.0, generator)
        if self.frozen_layers is not None:
            return encoder.encode_lower(inputs, lengths, self.frozen_layers)[0]
        encoded = encoder.encode(inputs, lengths, layers=self.layers)
        return torch.cat([encoded.frames, *encoded.intermediate], dim=2)[0]
