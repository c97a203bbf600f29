"""kikitori (聞き取り): speech recognition with pre-trained speech encoders and large language models.

    import kikitori
    recognizer = kikitori.load()
    print(recognizer.transcribe("talk.flac").text)

Importing the package is cheap; torch, and transformers where it is needed, are loaded by the first use.
"""

from typing import TYPE_CHECKING, Any

from kikitori.errors import (
    AudioError,
    ConfigError,
    DataError,
    KikitoriError,
    KikitoriWarning,
    ModelError,
    TrainingError,
)
from kikitori.types import Hypothesis, Segment, Transcript, Utterance, Word

if TYPE_CHECKING:
    from kikitori.loading import load, with_decoder
    from kikitori.pipeline import RecognizerPipeline
    from kikitori.recognizer import Recognizer
    from kikitori.scorers.options import LMOptions
    from kikitori.search.guards import Guards
    from kikitori.search.options import (
        BeamSearch,
        CascadeSearch,
        CTCBeamSearch,
        CTCGreedySearch,
        Decoding,
        DelayedFusionSearch,
        GreedySearch,
        JointSearch,
        JointTimeSyncSearch,
        LexiconSearch,
        RescoringSearch,
        SamplingSearch,
        ShallowFusionSearch,
        SpeculativeSearch,
        VLLMSearch,
    )

__version__ = "0.1.0"

__all__ = [
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

_HEAVY = {
    **dict.fromkeys(("load", "with_decoder"), "kikitori.loading"),
    "Recognizer": "kikitori.recognizer",
    "RecognizerPipeline": "kikitori.pipeline",
    "Guards": "kikitori.search.guards",
    "LMOptions": "kikitori.scorers.options",
    **dict.fromkeys(
        (
            *("Decoding", "GreedySearch", "SamplingSearch", "CTCGreedySearch"),
            *("CTCBeamSearch", "ShallowFusionSearch", "DelayedFusionSearch", "RescoringSearch", "CascadeSearch"),
            *("SpeculativeSearch", "BeamSearch", "JointSearch", "JointTimeSyncSearch", "LexiconSearch", "VLLMSearch"),
        ),
        "kikitori.search.options",
    ),
}


def __getattr__(name: str) -> Any:
    if name in _HEAVY:
        import importlib

        return getattr(importlib.import_module(_HEAVY[name]), name)
    raise AttributeError(f"module 'kikitori' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
