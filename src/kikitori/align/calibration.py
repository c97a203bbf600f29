"""How late a model writes its labels, and how its confidences relate to being right: `words.yaml` of a model folder.

Both are measured on transcribed speech (`kikitori calibrate`). A CTC head writes a label when it has heard enough,
later than it is said by much the same time everywhere. Its posteriors order words well and are too low or too high,
which Platt scaling mends (Platt 1999): a logistic curve over their log odds.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.errors import ConfigError
from kikitori.io.config import merge_yaml, validate
from kikitori.io.files import write_bytes
from kikitori.io.model_folder import WORDS, settings_file
from kikitori.scorers.options import STRICT
from kikitori.types import Word

SURE = 1e-4  # confidences are kept so far from 0 and 1, whose log odds are infinite
BINS = 10
STEPS, RIDGE = 50, 1e-3


@dataclass(frozen=True, config=STRICT)
class WordCalibration:
    """What is known of the words of a model.

    Attributes:
        delay: By how many seconds it writes labels later than they are said.
        slope: Of the log odds of a confidence, in the log odds of being right.
        offset: Added to these.
    """

    delay: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.0
    slope: Annotated[float, Field(ge=0.0, le=100.0)] = 1.0
    offset: Annotated[float, Field(ge=-100.0, le=100.0)] = 0.0

    def confidences(self, values: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of being right, from confidences between 0 and 1."""
        odds = self.slope * log_odds(values) + self.offset
        right: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-odds))
        return right

    def words(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """Words with calibrated confidences; those without one stay without."""
        if self == replace(AS_IS, delay=self.delay):
            return tuple(words)
        return tuple(
            word if word.confidence is None else replace(word, confidence=float(self.confidences(word.confidence)))
            for word in words
        )


AS_IS = WordCalibration()
"""Words as the model gives them."""


def load_calibration(folder: Path) -> WordCalibration:
    """What `words.yaml` of a model folder says; nothing is mended where there is none.

    Raises:
        ConfigError: It cannot be read.
        ModelError: The folder holds what is no plain file.
    """
    file = settings_file(folder, WORDS)
    return AS_IS if file is None else validate(WordCalibration, merge_yaml(file), str(file))


def save_calibration(file: Path, calibration: WordCalibration) -> None:
    """Writes `words.yaml`."""
    import yaml

    values = {name: round(value, 4) for name, value in asdict(calibration).items()}
    write_bytes(file, yaml.safe_dump(values, sort_keys=False).encode())


def fitted(confidences: ArrayLike, right: ArrayLike) -> tuple[float, float]:
    """Slope and offset of the logistic curve through words that are right or wrong, by maximum likelihood.

    Raises:
        ConfigError: All words are right, or all wrong: a curve would be a guess.
    """
    target = np.asarray(right, np.float64)
    if not 0.0 < target.sum() < len(target):
        raise ConfigError("confidences need right and wrong words to be calibrated", remedy="give more speech")
    rows = np.stack([log_odds(confidences), np.ones(len(target))], axis=1)
    weights = np.zeros(2)
    for _ in range(STEPS):  # Newton's method; the ridge bounds what is separable
        chances = 1.0 / (1.0 + np.exp(-(rows @ weights)))
        slope = rows.T @ (target - chances) - RIDGE * weights
        curvature = (rows * (chances * (1.0 - chances))[:, None]).T @ rows + RIDGE * np.eye(2)
        weights = weights + np.linalg.solve(curvature, slope)
    return max(float(weights[0]), 0.0), float(weights[1])


def calibration_error(confidences: ArrayLike, right: ArrayLike) -> float:
    """Expected calibration error (Guo et al. 2017): how far confidence and share of right words differ, in ten bins."""
    chances, target = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    bins = np.minimum((BINS * chances).astype(int), BINS - 1)
    gaps = np.bincount(bins, chances - target, minlength=BINS)
    return float(np.abs(gaps).sum() / max(len(target), 1))


def log_odds(values: ArrayLike) -> NDArray[np.float64]:
    """Of probabilities, kept off 0 and 1."""
    chances = np.clip(np.asarray(values, np.float64), SURE, 1.0 - SURE)
    odds: NDArray[np.float64] = np.log(chances / (1.0 - chances))
    return odds
