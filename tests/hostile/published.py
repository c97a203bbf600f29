"""Attacks in the layout of the published model of paper A, which kikitori reads with code of its own."""

import struct
from pathlib import Path

from tests.hostile import places, settings, weights
from tests.hostile.attack import Build, add, attack, config, first_tensor, move_out, spoil_header, void

ALSO: list[Build] = [
    weights.pickle_alone,
    weights.pickle_as_shard,
    weights.header_of_2_to_63_bytes,
    weights.header_of_a_million_tensors,
    weights.overlapping_offsets,
    weights.duplicate_tensors,
    weights.missing_tensors,
    places.shard_in_the_parent_folder,
    places.shard_that_is_a_link_out,
    places.weights_that_are_a_link_out,
    settings.config_of_4_megabytes_of_lists,
    settings.config_with_duplicate_keys,
]
for _spoil in ALSO:
    add(f"published_{_spoil.__name__}", _spoil, "published")

SIZES = {
    "published_ten_million_layers": ("llm_config", {"num_hidden_layers": 10**7}),
    "published_nine_hundred_layers": ("llm_config", {"num_hidden_layers": 900}),
    "published_fifteen_million_words": ("llm_config", {"vocab_size": 15 * 10**6}),
    "published_kernel": ("audio_encoder_config", {"_attn_implementation": "owner/kernel"}),
    "published_quantised": ("llm_config", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
}
for _name, (_keys, _changes) in SIZES.items():
    add(_name, lambda model, keys=_keys, changes=_changes: config(model, keys, **changes), "published")

add("published_link_out_as_vocabulary", lambda model: void(move_out(model / "spiece.model")), "published")
add("published_pipe_as_vocabulary", lambda model: places.fifo(model, "spiece.model"), "published")
add(
    "published_vocabulary_of_noise",
    lambda model: void((model / "spiece.model").write_bytes(bytes(range(256)) * 4000)),
    "published",
)
add(
    "published_vocabulary_of_empty_pieces",
    lambda model: void((model / "spiece.model").write_bytes(b"\n\0" * (16 << 20))),
    "published",
)


@attack("published")
def published_weights_of_nan(model: Path) -> None:
    header, data = weights.weights(model)
    weights.write_weights(model, header, struct.pack("<e", float("nan")) * (len(data) // 2))


@attack("published")
def published_weights_of_another_type(model: Path) -> None:
    def retype(header):
        tensor = first_tensor(header)
        tensor.update(dtype="U8", shape=[*tensor["shape"][:-1], 2 * tensor["shape"][-1]])

    spoil_header(model, retype)
