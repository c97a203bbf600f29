import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kikitori.errors import DataError, ModelError
from kikitori.scorers.prior import LOWEST, count_prior, load_prior, save_prior, softmax_prior
from kikitori.text.units import vocabulary_fingerprint, with_text_form
from tests.tiny import tiny_units


def test_the_mean_of_ctc_outputs_without_blank():
    log_probs = (3 * torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    lengths = torch.tensor([9, 2, 0, 5])
    frames = torch.cat([row[:length] for row, length in zip(log_probs, lengths.tolist(), strict=True)]).exp()
    mean = frames.mean(0)[:-1]
    found = softmax_prior([(log_probs, lengths)])
    assert found.exp().tolist() == pytest.approx((mean / mean.sum()).tolist(), rel=1e-5)
    assert float(found.exp().sum()) == pytest.approx(1.0)
    log_probs[1, 2:] = torch.nan  # padding is not read
    parts = [(log_probs[rows], lengths[rows]) for rows in ([3, 1], [0, 2])]
    assert softmax_prior(parts).tolist() == pytest.approx(found.tolist(), abs=1e-6)


def test_labels_never_heard_stay_finite():
    log_probs = torch.tensor([[[0.0, -torch.inf, -1000.0, -3.0]]])
    found = softmax_prior([(log_probs, torch.tensor([1]))])
    assert found.tolist() == [0.0, LOWEST, LOWEST]


def test_counts_mixed_with_the_uniform_distribution():
    found = count_prior([[0, 1, 1], [], [3]], 4)
    assert found.exp().tolist() == pytest.approx([0.25, 0.475, 0.025, 0.25])
    assert count_prior([[0, 1, 1], [3]], 4, uniform=1.0).exp().tolist() == pytest.approx([0.25] * 4)


def test_nothing_to_estimate_from():
    blanks = torch.full((1, 3, 4), -torch.inf)
    blanks[..., -1] = 0.0
    for outputs in ([], [(blanks, torch.tensor([3]))], [(blanks, torch.tensor([0]))]):
        with pytest.raises(DataError, match="no speech"):
            softmax_prior(outputs)
    with pytest.raises(DataError, match="no transcript"):
        count_prior([[], []], 4)


def test_a_file_and_back(tmp_path):
    prior = count_prior([[0, 1]], 5)
    save_prior(tmp_path / "prior.safetensors", prior)
    assert load_prior(tmp_path / "prior.safetensors", 5).equal(prior)
    with pytest.raises(ModelError, match=r"a prior of 5 labels, the model has 6"):
        load_prior(tmp_path / "prior.safetensors", 6)
    with pytest.raises(DataError, match="cannot be written"):
        save_prior(tmp_path / "prior.safetensors" / "a_file_is_no_folder", prior)


def test_a_file_tells_the_labels_that_it_counts(tmp_path):
    ours, others = (vocabulary_fingerprint(units) for units in (tiny_units(), tiny_units("pieces")))
    assert vocabulary_fingerprint(tiny_units()) == ours != others
    assert vocabulary_fingerprint(with_text_form(tiny_units(), "lower")) == ours
    file, prior = tmp_path / "prior.safetensors", count_prior([[0, 1]], 5)
    save_prior(file, prior, vocabulary=ours)
    assert load_prior(file, 5, vocabulary=ours).equal(prior)
    assert load_prior(file, 5).equal(prior)
    with pytest.raises(ModelError, match=r"prior\.safetensors: a prior of other labels, though as many"):
        load_prior(file, 5, vocabulary=others)
    save_prior(file, prior)  # as it was written before there were fingerprints
    assert load_prior(file, 5, vocabulary=ours).equal(prior)


@pytest.mark.parametrize(
    "tensors",
    [
        {"log_probs": torch.tensor([0.0, -torch.inf])},
        {"log_probs": torch.tensor([0.0, torch.nan])},
        {"log_probs": torch.zeros(2, dtype=torch.int64)},
        {"log_probs": torch.zeros(2, 1)},
        {"log_probs": torch.zeros(())},
        {"weights": torch.zeros(2)},
        {"log_probs": torch.zeros(2), "more": torch.zeros(2)},
        {},
    ],
)
def test_a_file_of_something_else(tensors, tmp_path):
    file = tmp_path / "prior.safetensors"
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"prior\.safetensors"):
        load_prior(file, 2)


@pytest.mark.parametrize("content", [None, b"", b"nothing", b"\x80\x04."])
def test_a_file_that_is_damaged_or_missing(content, tmp_path):
    file = tmp_path / "prior.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match="no such file" if content is None else "cannot be loaded"):
        load_prior(file, 2)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ModelError, match="no such file"):
        load_prior(tmp_path / "folder.safetensors", 2)


def test_half_precision(tmp_path):
    save_file({"log_probs": torch.from_numpy(np.log([0.5, 0.5])).half()}, tmp_path / "p.safetensors")
    assert load_prior(tmp_path / "p.safetensors", 2).dtype == torch.float32
