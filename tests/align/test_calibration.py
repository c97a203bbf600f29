import numpy as np
import pytest

from kikitori.align.calibration import (
    AS_IS,
    WordCalibration,
    calibration_error,
    fitted,
    load_calibration,
    save_calibration,
)
from kikitori.errors import ConfigError
from kikitori.types import Word


def drawn(slope, offset, count=20_000):
    """Confidences and whether the words are right, with the probability that the calibration gives."""
    random = np.random.default_rng(0)
    confidences = random.uniform(0.02, 0.98, count)
    return confidences, random.uniform(size=count) < WordCalibration(0.0, slope, offset).confidences(confidences)


def test_the_curve_behind_right_and_wrong_words_is_found():
    confidences, right = drawn(0.4, 1.5)
    slope, offset = fitted(confidences, right)
    assert (slope, offset) == pytest.approx((0.4, 1.5), abs=0.08)
    assert calibration_error(confidences, right) > 0.2
    assert calibration_error(WordCalibration(0.0, slope, offset).confidences(confidences), right) < 0.02


def test_confidences_that_say_nothing_are_the_share_of_right_words():
    slope, offset = fitted([0.9, 0.1, 0.9, 0.1, 0.9, 0.1], [1, 1, 0, 1, 0, 1])  # the surer, the worse
    assert slope == 0.0
    assert np.isfinite(offset)
    with pytest.raises(ConfigError, match="right and wrong"):
        fitted([0.5, 0.6], [1, 1])


def test_calibration_error_is_that_of_its_definition():
    assert calibration_error([0.95, 0.92, 0.15, 1.0], [1, 0, 0, 1]) == pytest.approx((abs(2.87 - 2) + 0.15) / 4)
    assert calibration_error([], []) == 0.0


def test_words_keep_their_order_and_missing_confidences():
    words = (Word("a", 0.0, 1.0, 0.0), Word("b", 1.0, 2.0), Word("c", 2.0, 3.0, 0.7), Word("d", 3.0, 4.0, 1.0))
    assert WordCalibration(delay=0.2).words(words) == words
    a, b, c, d = (word.confidence for word in WordCalibration(slope=0.5, offset=1.0).words(words))
    assert b is None
    assert 0.0 < a < c < d < 1.0
    assert c == pytest.approx(1 / (1 + np.exp(-0.5 * np.log(0.7 / 0.3) - 1.0)))


def test_files(tmp_path):
    assert load_calibration(tmp_path) == AS_IS
    save_calibration(tmp_path / "words.yaml", WordCalibration(0.07, 0.4, 1.5))
    assert load_calibration(tmp_path) == WordCalibration(0.07, 0.4, 1.5)
    for text in ("delay: 7.0", "slope: -1.0", "offset: .nan", "later: 0.1", "delay: soon"):
        (tmp_path / "words.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"words\.yaml"):
            load_calibration(tmp_path)
