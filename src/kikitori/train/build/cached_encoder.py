"""From a recipe to an encoder whose frozen part is computed once."""

import dataclasses
import os
from pathlib import Path

from kikitori.errors import ConfigError
from kikitori.model.acoustic import AcousticNetwork
from kikitori.model.weights import tensors_digest
from kikitori.train.recipe.speech import AcousticModelRecipe, SpeechLLMRecipe
from kikitori.train.tasks.cached_encoder import CachedEncoder
from kikitori.train.tasks.encoder_cache import EncoderCache
from kikitori.train.tasks.speech import loss_layers


def build_cached_encoder(recipe: AcousticModelRecipe | SpeechLLMRecipe, model: AcousticNetwork) -> CachedEncoder | None:
    """The encoder with its cache; None if the recipe asks for none.

    Raises:
        ConfigError: The encoder runs as a whole, a loss reads what is not there, or the folder is another encoder's.
    """
    settings, encoder, layers = recipe.encoder, model.encoder, loss_layers(model, recipe.ctc)
    if settings.cache is None:
        return None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("one process writes to it", where="encoder.cache", remedy="train with one process")
    frozen_layers = None
    if settings.policy == "top":
        frozen_layers = encoder.num_layers - settings.top_layers
        if encoder.family.split is None:
            what = f"an encoder of type '{encoder.config.model_type}' cannot go on from kept states"
            raise ConfigError(what, where="encoder.cache", remedy="leave it out, or use policy 'frozen' or Whisper")
        if min(layers, default=encoder.num_layers) < max(frozen_layers, 1):
            what = f"a loss reads layer {min(layers)}, below the last {settings.top_layers}"
            raise ConfigError(what, where="ctc", remedy="train more top_layers, or leave encoder.cache out")
    width = encoder.dim * (1 if frozen_layers is not None else 1 + len(layers))
    frozen = {name: weight for name, weight in encoder.named_parameters() if not weight.requires_grad}
    key = {
        "encoder": tensors_digest(frozen),
        "config": encoder.config.model_type,
        "window": settings.window,
        "layers": layers if frozen_layers is None else frozen_layers,
        "augment": dataclasses.asdict(recipe.augment),
        "seed": recipe.seed,
    }
    cache = EncoderCache(Path(settings.cache), width, key)
    return CachedEncoder(encoder, layers, frozen_layers, cache, recipe.augment, settings.cache_copies, recipe.seed)
