"""From a recipe to an LLM, and to a speech LLM around it, each part with its start and policy."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from kikitori.errors import ConfigError
from kikitori.model.adapters.lora import Lora, attach_lora
from kikitori.model.decoder.probe import check_decoding, check_scoring
from kikitori.model.decoder.vocabulary import embedding_layers, swap_vocabulary
from kikitori.model.folder import load_config, load_llm, load_model
from kikitori.model.safety.config import quiet_transformers
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig
from kikitori.text.prompt import PRESETS, PromptTemplate, compile_prompt
from kikitori.text.units import WORD_MARK, TokenizerUnits, equal_units, load_units
from kikitori.train.build.acoustic import build_acoustic_model, refusals, transformers_config
from kikitori.train.recipe.components import LLM, Prompt
from kikitori.train.recipe.speech import SpeechLLMRecipe


def build_llm(settings: LLM, units: TokenizerUnits, num_phones: int = 0) -> PreTrainedModel:
    """The LLM, from scratch or from where the recipe says, with the units' vocabulary; its policy comes later.

    Phones get embeddings behind those of the label units, one for each output of the phone head.
    """
    special = {"bos_token_id": units.bos_id, "eos_token_id": units.eos_id, "pad_token_id": None}
    if settings.config is not None:
        values = {"vocab_size": units.size, **special, **settings.config}
        llm = _random_llm(transformers_config(values, "llm.config"), "llm.config")
    elif settings.random:
        shape: Any = load_config(str(settings.init))
        shape = shape.llm_config if isinstance(shape, SpeechLLMConfig) else shape
        if has_new_vocabulary(settings, units):
            for name, value in {"vocab_size": units.size, **special}.items():
                setattr(shape, name, value)
        llm = _random_llm(shape, "llm.init")
    else:
        llm = load_llm(str(settings.init))
        if has_new_vocabulary(settings, units):
            swap_vocabulary(llm, units, own_units(settings))
    embeddings: Any = llm.get_input_embeddings()
    if num_phones and embeddings.num_embeddings < units.size + num_phones:
        with quiet_transformers():
            embeddings = llm.resize_token_embeddings(units.size + num_phones, mean_resizing=False)
    vocabulary = int(embeddings.num_embeddings)
    if vocabulary < units.size:
        raise ConfigError(
            f"the LLM knows {vocabulary} labels, the units are {units.size}",
            where="units",
            remedy="leave out llm.config.vocab_size, or mend the tokenizer of llm.init",
        )
    check_scoring(llm)
    return llm


def own_units(settings: LLM) -> TokenizerUnits | None:
    """The units that the LLM was trained with, if it was and they are still there."""
    if settings.init is None:
        return None
    folder = Path(settings.init)
    lost = folder.is_dir() and not any(folder.glob("tokenizer*"))
    return None if lost else load_units(settings.init)


def has_new_vocabulary(settings: LLM, units: TokenizerUnits) -> bool:
    """Whether the LLM starts from a model with other units than those it shall write."""
    own = own_units(settings)
    return settings.init is not None and (own is None or not equal_units(own, units))


def with_policy(llm: PreTrainedModel, settings: LLM, units: TokenizerUnits) -> PreTrainedModel:
    """The LLM as its policy wants it: as it is, frozen, or frozen within adapters; matrices for new units learn."""
    is_new = has_new_vocabulary(settings, units)
    if settings.freeze_embeddings:
        if is_new:
            raise ConfigError(
                "the embeddings are new and have to learn", where="llm.freeze_embeddings", remedy="leave it out"
            )
        llm.get_input_embeddings().requires_grad_(False)
    if settings.policy == "frozen":
        llm.requires_grad_(False)
    if settings.policy == "lora":
        llm = attach_lora(llm, settings.lora or Lora())
    if is_new:
        for layer in embedding_layers(llm):
            layer.requires_grad_(True)
    return llm


def build_speech_llm(
    recipe: SpeechLLMRecipe,
    units: TokenizerUnits,
    phones: Sequence[str] = (),
    ctc_units: TokenizerUnits | None = None,
) -> SpeechLLM:
    """Acoustic model, bridge, interface and LLM joined, each with its start and policy.

    Args:
        recipe: What the parts are.
        units: Labels that the LLM writes.
        phones: What the phone heads write.
        ctc_units: Labels that the CTC heads write, where they are others (`own_ctc_units`).
    """
    bridge, prompt = recipe.bridge, compile_prompt(_template(recipe.prompt), units.verbatim)
    acoustic = build_acoustic_model(recipe.encoder, recipe.ctc, ctc_units or units, phones)
    llm = build_llm(recipe.llm, units, acoustic.config.num_phone_outputs if bridge.show_phones else 0)
    check_decoding(llm)
    if recipe.llm.auxiliary_layer >= (num_layers := int(llm.config.num_hidden_layers)):
        raise ConfigError(
            f"the last of the LLM's {num_layers} layers has its loss already",
            where="llm.auxiliary_layer",
            remedy="name an earlier layer",
        )
    config = SpeechLLMConfig(
        acoustic_config=acoustic.config,
        llm_config=llm.config,
        bridge=bridge.kind,
        bridge_stride=bridge.stride,
        bridge_blanks=bridge.blanks,
        bridge_repeats=bridge.repeats,
        show_ctc=bridge.show_ctc,
        shown_labels=spelled_labels(ctc_units, units) if bridge.show_ctc and ctc_units is not None else (),
        show_phones=bridge.show_phones,
        show_draft=prompt.draft,
        draft_room=prompt.draft_room,
        interface=recipe.interface,
        prompt_before=prompt.before,
        prompt_after=prompt.after if prompt.bos is None else (*prompt.after, prompt.bos),
        eos_id=prompt.eos,
    )
    model = SpeechLLM(config, acoustic=acoustic, llm=llm)
    if recipe.llm.config is not None or recipe.llm.random:
        model.interface.open()
    # Afterwards, for transformers looks for tied weights by their plain names.
    model.llm = with_policy(llm, recipe.llm, units)
    if bridge.init is not None:
        trained = load_model(bridge.init).model.speech_llm
        if trained is None:
            raise ConfigError("it is no speech LLM", where="bridge.init", remedy="name a speech_llm run")
        try:
            model.bridge.load_state_dict(trained.bridge.state_dict())
            if trained.config.interface == recipe.interface:
                model.interface.load_state_dict(trained.interface.state_dict())
        except RuntimeError:
            raise ConfigError(
                "its bridge or interface has another shape", where="bridge.init", remedy="same kind and sizes"
            ) from None
    if bridge.policy == "frozen":
        model.bridge.requires_grad_(False)
        model.interface.requires_grad_(False)
    return model


def spelled_labels(ctc_units: TokenizerUnits, units: TokenizerUnits, where: str = "bridge.show_ctc") -> list[int]:
    """Labels of the LLM that spell those of a CTC head: letters, and a space for the mark between words.

    Raises:
        ConfigError: One of them is no single label of the LLM; `where` in the recipe it names.
    """
    spelled = []
    silent = {*ctc_units.tokenizer.all_special_ids}
    for label, text in enumerate(ctc_units.tokenizer.convert_ids_to_tokens([*range(ctc_units.size)])):
        if label in silent:
            spelled.append(units.eos_id)  # which CTC never writes
            continue
        item = units.special_id(text)  # of a SentencePiece model too, which would encode the letter as a word
        labels = units.verbatim.encode(text.replace(WORD_MARK, " ")) if item is None else [item]
        if len(labels) != 1 or labels[0] == units.tokenizer.unk_token_id:
            what = f"label {label} of the CTC head, {text!r}, is no single item of the LLM's vocabulary"
            raise ConfigError(what, where=where, remedy="take heads over characters")
        spelled.extend(labels)
    return spelled


def _random_llm(config: PreTrainedConfig, where: str) -> PreTrainedModel:
    with refusals(where):
        llm: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return llm


def _template(settings: Prompt) -> PromptTemplate:
    texts: dict[str, Any] = {name: getattr(settings, name) for name in ("before", "after", "bos", "eos")}
    given = {name: text for name, text in texts.items() if text is not None}
    return replace(PRESETS[settings.preset], draft=settings.draft is not None, draft_room=settings.draft_room, **given)
