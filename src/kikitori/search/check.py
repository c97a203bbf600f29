"""Whether a network has what a search takes."""

from typing import TYPE_CHECKING

from kikitori.errors import ModelError
from kikitori.scorers.options import INTERNAL_LM, PHONES, SPEECH_LLM
from kikitori.search.options import CascadeSearch, Decoding, JointTimeSyncSearch, RescoringSearch, VLLMSearch
from kikitori.search.rescore import check_rescoring

if TYPE_CHECKING:
    from kikitori.model.folder import Recogniser


def check_search(options: Decoding, model: "Recogniser", name: str, *, own_ctc_units: bool = False) -> None:
    """Refuses a search for which a network has not what it takes.

    Args:
        options: The search.
        model: The network.
        name: Of the network, for errors.
        own_ctc_units: Whether its CTC head writes other labels than its decoder.

    Raises:
        ModelError: It has no decoder or another one than is asked for, no CTC head or no phone head; `name` says which
            network.
        ConfigError: Scales do not fit.
    """
    heads, needs = model.acoustic.config, options.needs
    if options.autoregressive and model.autoregressive is None:
        raise ModelError(f"an acoustic model has no LLM for '{options.search}'", where=name, remedy="use ctc_greedy")
    if options.decoder not in (None, model.decoder_name):
        what = f"the search asks for {options.decoder}, and {model.decoder_name} was loaded"
        raise ModelError(what, where=name, remedy=f"load it with the decoder {options.decoder}")
    if "phones" in needs and not heads.phone_layers:
        raise ModelError("the model has no phone head", where=name, remedy="train one with ctc.phones, or use ctc_beam")
    if "ctc" in needs and not heads.ctc_layers:
        raise ModelError("the model has no CTC head", where=name, remedy="use greedy")
    match options:
        case VLLMSearch() | RescoringSearch(first=VLLMSearch()) if not _is_served(model):
            what = "vLLM serves LLMs that read the speech as part of their input"
            raise ModelError(what, where=name, remedy="train a speech LLM with interface: prefix, or use greedy")
    match options:
        case JointTimeSyncSearch() if own_ctc_units:
            what = "the CTC head has other label units than the decoder"
            raise ModelError(what, where=name, remedy="use joint, which scores the decoder's tokens by their letters")
        case CascadeSearch():
            check_search(options.second, model, name, own_ctc_units=own_ctc_units)
        case RescoringSearch():
            check_search(options.first, model, name, own_ctc_units=own_ctc_units)
            known = (
                (SPEECH_LLM, model.autoregressive),
                (INTERNAL_LM, model.autoregressive),
                (PHONES, heads.phone_layers),
            )
            check_rescoring(options, [scorer for scorer, there in known if there])


def _is_served(model: "Recogniser") -> bool:
    return model.speech_llm is not None and model.speech_llm.config.interface == "prefix"
