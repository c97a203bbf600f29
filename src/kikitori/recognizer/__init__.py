"""The recogniser in use: audio in, transcripts out (`recordings`), over waveforms in, hypotheses out (`batches`)."""

from kikitori.pieces import Audio as Audio
from kikitori.recognizer.batches import CAREFUL as CAREFUL
from kikitori.recognizer.batches import MIN_SAMPLES as MIN_SAMPLES
from kikitori.recognizer.batches import PLAIN as PLAIN
from kikitori.recognizer.batches import Precision as Precision
from kikitori.recognizer.recordings import Recognizer as Recognizer
