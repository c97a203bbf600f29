import json
import subprocess
import sys

import pytest

import kikitori

HEAVY = ("torch", "numba", "transformers", "numpy", "soundfile", "pydantic", "omegaconf", "peft", "kikitori.model")


def test_importing_the_package_is_cheap():
    code = "import json, sys, kikitori; dir(kikitori); kikitori.AudioError; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(json.loads(done.stdout))
    assert done.stderr == ""


def test_exported_names():
    assert kikitori.__all__ == [
        "AudioError",
        "BeamSearch",
        "CTCBeamSearch",
        "CTCGreedySearch",
        "CascadeSearch",
        "ConfigError",
        "DataError",
        "Decoding",
        "DelayedFusionSearch",
        "GreedySearch",
        "Guards",
        "Hypothesis",
        "JointSearch",
        "JointTimeSyncSearch",
        "KikitoriError",
        "KikitoriWarning",
        "LMOptions",
        "LexiconSearch",
        "ModelError",
        "Recognizer",
        "RecognizerPipeline",
        "RescoringSearch",
        "SamplingSearch",
        "Segment",
        "ShallowFusionSearch",
        "SpeculativeSearch",
        "TrainingError",
        "Transcript",
        "Utterance",
        "VLLMSearch",
        "Word",
        "__version__",
        "load",
        "with_decoder",
    ]
    for name in kikitori.__all__:
        assert getattr(kikitori, name) is not None
        assert name in dir(kikitori)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = kikitori.lode
    assert not hasattr(kikitori, "torch")


def test_errors_are_one_family():
    for name in ("AudioError", "ConfigError", "DataError", "ModelError", "TrainingError"):
        error = getattr(kikitori, name)
        assert issubclass(error, kikitori.KikitoriError)
        assert error.code == name.removesuffix("Error").lower()
