"""How to decode: a search and its options, from a name, a YAML file or a model folder's `decoding.yaml`.

Each search has a dataclass of its own, which the key `search` chooses. Beside its options a search says what it `needs`
of a model, whether its labels are written by the decoder (`autoregressive`), and by which power of the number of labels
it divides its scores (`length_exponent`). Logs are natural.
"""

from kikitori.search.options.autoregressive import (
    BeamSearch,
    GreedySearch,
    JointSearch,
    LabelBeam,
    SamplingSearch,
    VLLMSearch,
)
from kikitori.search.options.base import Need, Scored
from kikitori.search.options.frames import (
    CTCBeamSearch,
    CTCGreedySearch,
    DelayedFusionSearch,
    FrameBeam,
    JointTimeSyncSearch,
    LexiconSearch,
    ShallowFusionSearch,
)
from kikitori.search.options.read import asked_decoder, decoding_yaml, load_decoding, with_overrides
from kikitori.search.options.searches import SEARCHES, Decoding, as_draft_search
from kikitori.search.options.two_pass import CascadeSearch, DraftSearch, RescoringSearch, SpeculativeSearch

__all__ = [
    "SEARCHES",
    "BeamSearch",
    "CTCBeamSearch",
    "CTCGreedySearch",
    "CascadeSearch",
    "Decoding",
    "DelayedFusionSearch",
    "DraftSearch",
    "FrameBeam",
    "GreedySearch",
    "JointSearch",
    "JointTimeSyncSearch",
    "LabelBeam",
    "LexiconSearch",
    "Need",
    "RescoringSearch",
    "SamplingSearch",
    "Scored",
    "ShallowFusionSearch",
    "SpeculativeSearch",
    "VLLMSearch",
    "as_draft_search",
    "asked_decoder",
    "decoding_yaml",
    "load_decoding",
    "with_overrides",
]
