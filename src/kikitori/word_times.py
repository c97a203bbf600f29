"""Times of words for what any search finds in a batch: forced alignment of the final text by the CTC head.

A Whisper without CTC heads has them from its cross-attention, and from the pauses of the sound.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.utils.rnn import pad_sequence

from kikitori.align.attention import attention_words
from kikitori.align.calibration import WordCalibration
from kikitori.align.pauses import beside_pauses, pauses
from kikitori.align.words import align_words, estimated_words
from kikitori.errors import AudioError
from kikitori.search.batch import EncodedBatch, Result
from kikitori.text.units import TokenizerUnits
from kikitori.types import Hypothesis, Word


def with_words(
    batch: EncodedBatch, results: Sequence[Result], timed: Sequence[bool], calibration: WordCalibration
) -> list[Result]:
    """The same with the words of the best hypothesis of each `timed` recording; nothing new where none have times.

    Where the text does not fit into the frames of the CTC head, or the positions of the decoder, times are estimated.
    """
    found, best = [*results], {}
    for row, result in enumerate(results):
        if timed[row] and not isinstance(result, AudioError) and result[0].text:
            best[row] = result[0]
    if not best:
        return found
    if batch.acoustic.config.ctc_layers:
        words = _by_ctc(batch, best, calibration.delay)
    elif batch.model.autoregressive is not None and batch.model.autoregressive.follows_speech:
        words = _by_attention(batch, best, calibration.delay)
    else:
        return found
    for row, hypothesis in best.items():
        known = words.get(row)
        if known is None:
            known = estimated_words(hypothesis.text, _language(batch, hypothesis), seconds=batch.seconds[row])
        found[row] = (replace(hypothesis, words=calibration.words(known)), *results[row][1:])  # type: ignore[index]
    return found


def _by_ctc(batch: EncodedBatch, best: dict[int, Hypothesis], delay: float) -> dict[int, tuple[Word, ...] | None]:
    logits, lengths = batch.ctc_logits
    encoder = batch.acoustic.encoder
    found = {}
    for row, hypothesis in best.items():
        log_probs = logits[row, : int(lengths[row])].float().log_softmax(dim=-1).cpu().numpy()
        found[row] = align_words(
            log_probs,
            hypothesis.text,
            batch.ctc_units,
            _language(batch, hypothesis),
            seconds=batch.seconds[row],
            seconds_per_frame=encoder.seconds_per_frame,
            first_frame=encoder.first_frame - delay,
        )
    return found


def _by_attention(batch: EncodedBatch, best: dict[int, Hypothesis], delay: float) -> dict[int, tuple[Word, ...] | None]:
    """The words of texts that the decoder has positions for."""
    part = batch.rows([*best])
    decoder = part.decoder()
    room = (decoder.max_positions or 0) - int(decoder.prefix_lengths.max())
    spelled = [_spelled(batch.units, hypothesis) for hypothesis in best.values()]
    spelled = [pairs if len(pairs) <= room else [] for pairs in spelled]
    rows = [torch.tensor([label for label, _ in pairs], dtype=torch.int64) for pairs in spelled]
    counts = torch.tensor([len(row) for row in rows], device=decoder.device)
    attention = decoder.attention(pad_sequence(rows, batch_first=True).to(decoder.device), counts)
    found: dict[int, tuple[Word, ...] | None] = {}
    for place, (row, pairs) in enumerate(zip(best, spelled, strict=True)):
        if not pairs:
            continue
        spoken = attention_words(
            attention.weights[place, :, : len(pairs) + 1, : int(part.encoded.lengths[place])],
            attention.log_probs[place, : len(pairs)].tolist(),
            [at for _, at in pairs],
            best[row].text,
            _language(batch, best[row]),
            median_width=attention.median_width,
            seconds=batch.seconds[row],
            seconds_per_frame=batch.acoustic.encoder.seconds_per_frame,
            first_frame=-delay,
        )
        found[row] = beside_pauses(spoken, pauses(batch.waveforms[row]), seconds=batch.seconds[row])
    return found


def _spelled(units: TokenizerUnits, hypothesis: Hypothesis) -> list[tuple[int, int]]:
    """The labels of a text as they were written, with or without a space before it, and their places in it."""
    text = hypothesis.text
    behind_space = [(label, max(place - 1, 0)) for label, place in units.encode_with_places(f" {text}")]
    plain = units.encode_with_places(text)
    return plain if tuple(label for label, _ in plain) == hypothesis.labels else behind_space


def _language(batch: EncodedBatch, hypothesis: Hypothesis) -> str | None:
    return hypothesis.language or batch.trained_on.language
