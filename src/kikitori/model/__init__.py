"""Networks: encoder, CTC heads, bridge, LLM, and the two recognisers made of them.

Asking this package for one of its classes registers both recognisers with transformers' Auto classes; what needs no
transformers imports the modules below it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
    from kikitori.model.processor import SpeechProcessor
    from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig

__all__ = ["AcousticModel", "AcousticModelConfig", "SpeechLLM", "SpeechLLMConfig", "SpeechProcessor"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from kikitori.model import acoustic_model, processor, speech_llm

        return next(vars(module)[name] for module in (acoustic_model, speech_llm, processor) if name in vars(module))
    raise AttributeError(f"module 'kikitori.model' has no attribute '{name}'")
