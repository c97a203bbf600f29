"""`kikitori prior`: a label prior of a recogniser, from speech or from transcripts."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from kikitori.data.speech import read_utterance
from kikitori.decoding.prior import count_prior, softmax_prior
from kikitori.recognizer import Recognizer
from kikitori.types import Utterance

Progress = Callable[[int], None]


def speech_prior(
    recognizer: Recognizer, utterances: Sequence[Utterance], *, batch_size: int = 8, progress: Progress = lambda _: None
) -> Tensor:
    """The mean of what the recogniser's CTC head gives over the frames of some speech, (labels,) log-probabilities.

    Raises:
        AudioError: An utterance cannot be read.
        DataError: There is no speech.
        ModelError: The recogniser has no CTC head.
    """

    def outputs() -> Iterator[tuple[Tensor, Tensor]]:
        order = sorted(utterances, key=lambda utterance: utterance.duration)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            yield recognizer.ctc_log_probs([read_utterance(utterance) for utterance in batch])
            progress(len(batch))

    return softmax_prior(outputs())


def text_prior(recognizer: Recognizer, utterances: Sequence[Utterance]) -> Tensor:
    """Smoothed relative counts of the labels of some transcripts, (labels,) log-probabilities.

    Raises:
        DataError: There is no transcript.
    """
    units = recognizer.loaded.units
    return count_prior((units.encode(row.text) for row in utterances if row.text), units.size)
