"""tools/average.py: the mean of runs."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kikitori.errors import ModelError
from kikitori.model.folder import load_model
from tests.tiny import save_tiny, shake, tiny_acoustic_model, tiny_units

TOOL = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "tools" / "average.py")))


def test_every_weight_is_the_mean_of_those_of_the_runs(tmp_path):
    models = []
    for seed in range(3):
        model = shaken(seed)
        save_tiny(tmp_path / str(seed) / "model", model)
        models.append(model.state_dict())
    TOOL.average([tmp_path / str(seed) for seed in range(3)], tmp_path / "mean")
    found = load_model(tmp_path / "mean" / "model").model.state_dict()
    assert found.keys() == models[0].keys()
    for name, tensor in found.items():
        expected = sum(model[name].double() for model in models) / 3
        torch.testing.assert_close(tensor.double(), expected, atol=1e-6, rtol=1e-5)


def test_models_of_other_shapes_have_no_mean(tmp_path):
    save_tiny(tmp_path / "a", shaken(0))
    save_tiny(tmp_path / "b", tiny_acoustic_model("hubert", ctc_layers=(1, 2), num_units=tiny_units().size))
    with pytest.raises(ModelError, match="b: it has another shape"):
        TOOL.average([tmp_path / "a", tmp_path / "b"], tmp_path / "mean")


def shaken(seed):
    model = tiny_acoustic_model("hubert", ctc_layers=(2,), num_units=tiny_units().size)
    shake(model, seed, 0.1)
    return model
