"""Times of words for what any search finds in a batch: forced alignment of the final text by the CTC head."""

from collections.abc import Sequence
from dataclasses import replace

from kikitori.align.words import align_words, estimated_words
from kikitori.errors import AudioError
from kikitori.search.batch import EncodedBatch
from kikitori.search.run import Result


def with_words(batch: EncodedBatch, results: Sequence[Result], timed: Sequence[bool]) -> list[Result]:
    """The same with the words of the best hypothesis of each `timed` recording; nothing new without a CTC head.

    Where the text does not fit into the frames of the CTC head, times are estimated.
    """
    wanted = [
        row
        for row, result in enumerate(results)
        if timed[row] and not isinstance(result, AudioError) and result[0].text
    ]
    found = [*results]
    if not wanted or not batch.acoustic.config.ctc_layers:
        return found
    logits, lengths = batch.ctc_logits
    for row in wanted:
        nbest, seconds = results[row], batch.seconds[row]
        if isinstance(nbest, AudioError):
            continue
        log_probs = logits[row, : int(lengths[row])].float().log_softmax(dim=-1).cpu().numpy()
        words = align_words(
            log_probs,
            nbest[0].text,
            batch.ctc_units,
            batch.trained_on.language,
            seconds=seconds,
            seconds_per_frame=batch.acoustic.encoder.seconds_per_frame,
        )
        if words is None:
            words = estimated_words(nbest[0].text, batch.trained_on.language, seconds=seconds)
        found[row] = (replace(nbest[0], words=words), *nbest[1:])
    return found
