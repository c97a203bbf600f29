"""All searches by name."""

from collections.abc import Mapping
from typing import get_args

from kikitori.search.options.autoregressive import BeamSearch, GreedySearch, JointSearch, SamplingSearch, VLLMSearch
from kikitori.search.options.frames import (
    CTCBeamSearch,
    CTCGreedySearch,
    DelayedFusionSearch,
    JointTimeSyncSearch,
    LexiconSearch,
    ShallowFusionSearch,
)
from kikitori.search.options.two_pass import CascadeSearch, DraftSearch, RescoringSearch, SpeculativeSearch

Decoding = (
    GreedySearch
    | SamplingSearch
    | BeamSearch
    | JointSearch
    | JointTimeSyncSearch
    | CTCGreedySearch
    | CTCBeamSearch
    | ShallowFusionSearch
    | DelayedFusionSearch
    | LexiconSearch
    | RescoringSearch
    | SpeculativeSearch
    | CascadeSearch
    | VLLMSearch
)
SEARCHES: Mapping[str, type[Decoding]] = {search().search: search for search in get_args(Decoding)}


def as_draft_search(options: Decoding) -> DraftSearch | None:
    """The search, if it may make drafts."""
    match options:
        case CTCGreedySearch() | CTCBeamSearch() | LexiconSearch():
            return options
    return None
