"""What phone heads learn: the phones of transcripts by CTC and, if they are aligned, the phone state of every frame.

CTC leaves open when a phone is spoken, and from little speech learns slowly where to look. Forced alignments say it:
each output of a phone head has a target then, as in the hybrid systems before CTC (Bourlard and Morgan 1994), and CTC
goes on from there (Sak et al. 2015). The classifiers of states serve training alone. In the end the last head may learn
by MMI: its CTC loss and `mmi` times what all phone sequences together have of the probability.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from kikitori.align.hmm.corpus import Alignments, segments
from kikitori.align.hmm.graph import SILENCE
from kikitori.align.hmm.mfcc import FRAMES_PER_SECOND
from kikitori.data.speech import SpeechBatch
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.acoustic import AcousticNetwork
from kikitori.model.encoder import EncoderOutput
from kikitori.model.heads import ctc_loss
from kikitori.text.lexicon import Lexicon
from kikitori.text.units import TokenizerUnits
from kikitori.train.losses.mmi import log_denominator, phone_trigrams, sentence_log_prob
from kikitori.train.recipe.components import Phones


class PhoneLosses(nn.Module):
    """Losses of the phone heads of an acoustic model.

    The lexicon's words have the text form of the label units. MMI takes from the texts of the training speech how
    likely phones are beforehand; alignments say when which phone state is spoken in it.
    """

    def __init__(
        self,
        settings: Phones,
        model: AcousticNetwork,
        units: TokenizerUnits,
        lexicon: Lexicon,
        texts: Iterable[str],
        alignments: Alignments | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.units, self.lexicon, self.alignments = settings, units, lexicon, alignments
        self._acoustic = [model]  # in a list, lest its parameters count as those of the losses
        states = len(alignments.labels) if alignments is not None else 0
        self.classifiers = nn.ModuleDict(
            {
                str(layer): nn.Linear(model.encoder.dim, settings.upsample * states)
                for layer in settings.weights
                if states
            }
        )
        self._aligned: dict[str, list[int]] = {}
        self.trigrams: Tensor | None = None
        if settings.mmi:
            self.trigrams = phone_trigrams(filter(None, map(self.phones, texts)), len(model.config.phones))

    @property
    def acoustic(self) -> AcousticNetwork:
        """The acoustic model."""
        return self._acoustic[0]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Output of a phone head for each phone."""
        return {phone: number for number, phone in enumerate(self.acoustic.config.phones)}

    def losses(self, encoded: EncoderOutput, batch: SpeechBatch) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and value of each loss; per phone, and per output of a head."""
        said = [self.spoken(*row) for row in zip(batch.utt_ids, batch.texts, strict=True)]
        known = [row for row, phones in enumerate(said) if phones is not None]
        for layer, weight in self.settings.weights.items() if known else ():
            log_probs, lengths = (each[known] for each in self.acoustic.phone_log_probs(encoded, layer))
            right = [said[row] or [] for row in known]
            result = ctc_loss(log_probs, lengths, right)
            yield f"phones{layer}", weight, result.total / max(result.num_labels, 1)
            if self.trigrams is not None and layer == max(self.settings.weights):
                feasible = [row for row in range(len(known)) if row not in result.infeasible]
                total = _mmi_denominator(
                    log_probs[feasible], lengths[feasible], [right[row] for row in feasible], self.trigrams
                )
                yield f"mmi_denominator{layer}", weight * self.settings.mmi, total / max(result.num_labels, 1)
        targets = self.frame_targets(encoded.lengths, batch)
        for name, classifier in self.classifiers.items() if (targets >= 0).any() else ():
            layer = int(name)
            logits = classifier(self.acoustic.frames(encoded, layer)).unflatten(2, (self.settings.upsample, -1))
            loss = nn.functional.cross_entropy(logits.flatten(0, 2).float(), targets.flatten(), ignore_index=-1)
            yield f"states{layer}", self.settings.weights[layer], loss

    def phones(self, text: str) -> list[int] | None:
        """The usual phones of a transcript, as outputs of a phone head; None if the lexicon lacks a word."""
        said = self.lexicon.pronounce(self.units.normalize(text))
        return None if said is None else [self.numbers[phone] for phone in said]

    def spoken(self, utt_id: str, text: str) -> list[int] | None:
        """The same of an utterance of training: those that it was aligned with, where several are possible."""
        if self.alignments is None or utt_id not in self.alignments.states:
            return self.phones(text)
        if utt_id not in self._aligned:
            cut = segments(self.alignments.states[utt_id], self.alignments.labels)
            self._aligned[utt_id] = [self.numbers[phone] for phone, _, _ in cut if phone != SILENCE]
        return self._aligned[utt_id]

    def frame_targets(self, lengths: Tensor, batch: SpeechBatch) -> Tensor:
        """State at the middle of each output, (batch, outputs); -1 where it is not known.

        An utterance that was made faster or slower has its alignment stretched with it.
        """
        upsample, rate = self.settings.upsample, self.acoustic.encoder.seconds_per_frame
        targets = torch.full((len(batch.utt_ids), int(lengths.max()) * upsample), -1, device=lengths.device)
        for row, (utt_id, frames, samples) in enumerate(
            zip(batch.utt_ids, lengths.tolist(), batch.lengths.tolist(), strict=True)
        ):
            states = None if self.alignments is None else self.alignments.states.get(utt_id)
            if states is None or not len(states):
                continue
            seconds = (torch.arange(frames * upsample) + 0.5) * rate / upsample
            stretch = len(states) / FRAMES_PER_SECOND * SAMPLE_RATE / samples
            places = (seconds * stretch * FRAMES_PER_SECOND).long().clamp(max=len(states) - 1)
            targets[row, : len(places)] = torch.from_numpy(states)[places].to(targets)
        return targets

    def unknown(self, texts: dict[str, str]) -> set[str]:
        """Names of utterances with words that the lexicon lacks."""
        return {name for name, text in texts.items() if self.lexicon.missing(self.units.normalize(text))}


def _mmi_denominator(log_probs: Tensor, lengths: Tensor, said: Sequence[Sequence[int]], trigrams: Tensor) -> Tensor:
    """What MMI adds to the CTC loss: log-denominator minus log-prior of the transcripts, summed over utterances."""
    if not said:
        return log_probs.sum() * 0.0
    return log_denominator(log_probs, lengths, trigrams).sum() - sum(sentence_log_prob(trigrams, row) for row in said)
