"""Tiny random models of every decoder-only family of transformers, for `sweep.py`.

A default configuration is of the size of the model it was made for; here every size in it becomes small, and windows
smaller than a test text, so that they count.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

VOCABULARY = 96
LARGEST = 10_000_000
"""Parameters of a model that counts as tiny."""
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "global_head_dim"), 8),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "dff"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size"), 32),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "top_k", "moe_k", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 16),
    **dict.fromkeys(("mamba_n_heads", "n_mamba_heads", "linear_num_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("linear_num_key_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("linear_head_dim", "linear_key_head_dim", "linear_value_head_dim", "swa_head_dim"), 8),
    **dict.fromkeys(("mamba_d_state", "mamba_chunk_size", "chunk_size", "state_size", "ssm_state_size"), 8),
    **dict.fromkeys(("hidden_size_per_layer_input", "d_rel", "adapter_rank", "laurel_rank"), 8),
    **dict.fromkeys(("swa_num_attention_heads",), 4),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "window_size", "attention_chunk_size"), 8),
    **dict.fromkeys(("index_n_heads", "indexer_n_heads"), 4),
    "index_topk": 48,  # beyond it they are refused
    **dict.fromkeys(("index_head_dim", "indexer_head_dim"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len"), 64),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "n_token"), VOCABULARY),
}


def families() -> list[str]:
    """Model types of which transformers makes causal language models."""
    return sorted(NAMES)


def tiny(family: str, changes: Mapping[str, Any] | None = None) -> PreTrainedModel:
    """A random model; the same at every call. Weights are large, so that what is wrong shows."""
    if family in UNBUILT:
        raise ValueError(UNBUILT[family])
    torch.manual_seed(0)
    config = _small(_config_class(family), changes or {})
    with torch.device("meta"):
        meta = AutoModelForCausalLM.from_config(config)
    if (size := sum(each.numel() for each in meta.parameters())) > LARGEST:
        largest = max(meta.named_parameters(), key=lambda item: item[1].numel())
        raise ValueError(f"{size} parameters ({largest[0]}: {tuple(largest[1].shape)})")
    llm: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in llm.parameters():
        if parameter.is_floating_point():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.data.copy_(0.2 * noise)
            else:
                parameter.data.add_(0.1 * noise)
    return llm


def _config_class(family: str) -> type[PreTrainedConfig]:
    found: type[PreTrainedConfig] = CONFIG_MAPPING["gpt2" if family == "gpt-sw3" else family]
    return found


def _small(config_class: type[PreTrainedConfig], changes: Mapping[str, Any]) -> PreTrainedConfig:
    values: dict[str, Any] = {}
    changes = {**EXTRA.get(config_class.model_type, {}), **changes}
    default = config_class()
    names = {name for name in vars(default) if not name.startswith("_")}
    names |= set(default.attribute_map) | set(default.attribute_map.values())
    for name in names:
        try:
            value = getattr(default, name, None)
        except RuntimeError:  # differs by layer
            continue
        if isinstance(value, PreTrainedConfig):
            values[name] = _small(type(value), {})
        elif name in SIZES and isinstance(value, int | float) and not isinstance(value, bool):
            values[name] = SIZES[name]
        elif name.endswith(("_id", "_index", "_ids")) and isinstance(value, int) and value > 2:
            values[name] = VOCABULARY - 1
        elif name == "max_window_layers":
            values[name] = 2
    values = {name: value for name, value in values.items() if default.attribute_map.get(name, name) == name}
    values.update(changes)
    return config_class(**values)


WINDOWED = ["sliding_attention", "full_attention"] * 2
LATENT = (
    "axk1",
    "axk2",
    "deepseek_v3",
    "deepseek_v32",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "minicpm3",
    "sarvam_mla",
    "youtu",
)
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
HYBRID = ["linear_attention", "full_attention"] * 2
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2}
WORDS = {"shape_embed_dim": 8, "shape_vocab_size": 96, "pronunciation_embed_dim": 8, "pronunciation_vocab_size": 96}
GEMMA4 = {"head_dim": 8, "global_head_dim": 8, "num_key_value_heads": 2, "layer_types": WINDOWED}
EXTRA: dict[str, dict[str, Any]] = {
    **{name: {"num_key_value_heads": 4} for name in LATENT},
    **{name: {"rotary_dim": 8} for name in ("codegen", "gptj")},
    **{name: {"head_dim": 8} for name in ("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral")},
    "bailing_hybrid": {"layer_types": HYBRID, "num_key_value_heads": 4, "n_group": 1, "topk_group": 1},
    "blt": {"encoder_hash_byte_group_vocab": 96},
    "bamba": {**MAMBA, "attn_layer_indices": [1, 3]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "cpmant": {"dim_ff": 64, "dim_head": 8},
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2, "n_routed_experts": 4},
    "dory": {"n_input_layers": 1, "n_output_layers": 1, "num_hidden_layers": 4},
    "dots3_note_text": {
        "num_key_value_heads": 4,
        "shared_experts_intermediate_size": 32,
        "head_dim": 16,
        **{f"swa_{name}": 4 for name in ("num_attention_heads", "num_key_value_heads")},
        **{f"swa_{name}": 16 for name in ("q_lora_rank", "kv_lora_rank", "head_dim")},
        **{f"swa_{name}": 8 for name in ("qk_nope_head_dim", "v_head_dim")},
    },
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "max_window_layers": 2},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": WINDOWED},
    "gemma4_text": GEMMA4,
    "gemma4_unified_text": GEMMA4,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {**MAMBA, "layer_types": HYBRID},
    "inkling2_loop_text": {"unpadded_vocab_size": VOCABULARY},
    "inkling2_text": {"unpadded_vocab_size": VOCABULARY},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"linear_num_heads": 4, "linear_head_dim": 8, "num_key_value_heads": 4, "layer_types": HYBRID},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"expert_ffn_hidden_size": 32, "zero_expert_num": 2, "num_key_value_heads": 4},
    "mamba2": {"num_heads": 4, "head_dim": 16, "expand": 2, "state_size": 8, "n_groups": 1},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 48,
        "indexer_compress_ratio": 4,
    },
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "roc_bert": WORDS,
    "xlm": {"emb_dim": 32},
    "xlstm": {"chunk_size": 64},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attn_layer_period": 2, "attn_layer_offset": 0, "n_mamba_heads": 2},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2, "n_mamba_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}
"""What the sizes above do not settle."""
UNBUILT = {
    "dbrx": "transformers itself builds no model from its default configuration",
    "dots3_note": "measured as dots3_note_text, its language model",
    "gemma3n": "measured as gemma3n_text, its language model (its vision part needs timm)",
    "gemma4_assistant": "writes drafts for another LLM from that one's keys and values",
    "gemma4_unified_assistant": "writes drafts for another LLM from that one's keys and values",
    "musicgen": "a language model of audio codes",
    "musicgen_melody": "a language model of audio codes",
}
"""What is no language model of text by itself, and why."""
ALL_FULL = {"layer_types": ["full_attention"] * 4}
VARIANTS: dict[tuple[str, str], dict[str, Any]] = {
    ("bert", "is_decoder"): {"is_decoder": True},
    ("falcon", "ALiBi"): {"alibi": True},
    ("gpt_neo", "global attention"): {"attention_types": [[["global"], 4]]},
    ("granite", "published factors"): {
        "logits_scaling": 8.0,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
    },
    ("granitemoe", "published factors"): {"logits_scaling": 6.0, "embedding_multiplier": 12.0},
    ("hyperclovax", "factor"): {"logits_scaling": 0.5},
    ("gemma2", "full attention"): ALL_FULL,
    ("gemma4_text", "no embeddings per layer"): {"hidden_size_per_layer_input": 0},
    ("llama", "llama3 rope"): {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
    ("llama", "yarn"): {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}},
    ("phi3", "window"): {"sliding_window": 8},
    ("phi3", "longrope"): {
        "original_max_position_embeddings": 32,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 32,
        },
    },
    ("qwen2", "window"): {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    ("starcoder2", "window"): {"sliding_window": 8},
}
"""Settings that published models have and the class defaults have not."""
