"""Networks: encoder, CTC heads, bridge, LLM, and the two recognisers made of them.

Importing this package registers both recognisers with transformers' Auto classes.
"""

from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.processor import SpeechProcessor
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig

__all__ = ["AcousticModel", "AcousticModelConfig", "SpeechLLM", "SpeechLLMConfig", "SpeechProcessor"]
