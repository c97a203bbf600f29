import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import (
    BertConfig,
    CanaryConfig,
    CanaryForConditionalGeneration,
    CohereAsrConfig,
    CohereAsrForConditionalGeneration,
    Data2VecAudioConfig,
    HubertConfig,
    HubertForCTC,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    MoonshineStreamingConfig,
    MoonshineStreamingForConditionalGeneration,
    ParakeetCTCConfig,
    ParakeetEncoderConfig,
    ParakeetForCTC,
    PreTrainedConfig,
    SeamlessM4TFeatureExtractor,
    Speech2TextConfig,
    Speech2TextForConditionalGeneration,
    UniSpeechConfig,
    UniSpeechSatConfig,
    VoxtralConfig,
    VoxtralEncoderConfig,
    VoxtralForConditionalGeneration,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2ForCTC,
    WavLMConfig,
    WavLMForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.models.moonshine_streaming.configuration_moonshine_streaming import MoonshineStreamingEncoderConfig
from transformers.utils import logging as transformers_logging

from kikitori.errors import ModelError
from kikitori.model.encoder import SpeechEncoder, freeze
from tests.crossed import crossed

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WAVE = {**SIZES, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
LARGE = {**WAVE, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
MOONSHINE = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    **{f"{side}_num_{what}": size for side in ("encoder", "decoder") for what, size in
       (("hidden_layers", 2), ("attention_heads", 4))},
}  # fmt: skip
SPEECH_TO_TEXT = {
    "d_model": 32,
    "vocab_size": 40,
    "conv_channels": 32,
    "max_source_positions": 50,
    **{f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in
       (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))},
}  # fmt: skip
WHISPER_SECONDS = 2
OMNIASR = hasattr(transformers, "OmniASRAudioConfig")  # not in the oldest release that we support


def whisper_config() -> WhisperConfig:
    sizes = {f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in
             (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))}  # fmt: skip
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    return WhisperConfig(d_model=32, vocab_size=40, max_source_positions=50 * WHISPER_SECONDS, **sizes, **special)


TEXT = {**SIZES, "vocab_size": 40, "num_key_value_heads": 2}
SPECIAL = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "decoder_start")}
DECODER = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFIGS: dict[str, Any] = {
    "hubert": lambda: HubertConfig(**WAVE),
    "hubert-batch-norm": lambda: HubertConfig(**WAVE, conv_pos_batch_norm=True),
    "hubert-large": lambda: HubertConfig(**LARGE),
    "wav2vec2": lambda: Wav2Vec2Config(**WAVE),
    "wav2vec2-large": lambda: Wav2Vec2Config(**LARGE),
    "wavlm": lambda: WavLMConfig(**WAVE),
    "wavlm-large": lambda: WavLMConfig(**LARGE),
    "whisper": whisper_config,
    "parakeet": lambda: ParakeetEncoderConfig(**SIZES, subsampling_conv_channels=8),
    "data2vec": lambda: Data2VecAudioConfig(**WAVE | {"num_conv_pos_embeddings": 3}, conv_pos_kernel_size=5),
    "moonshine": lambda: MoonshineConfig(**MOONSHINE),
    "moonshine-streaming": lambda: MoonshineStreamingEncoderConfig(
        **SIZES, num_key_value_heads=4, sliding_windows=((4, 2), (3, 0))
    ),
    "speech-to-text": lambda: Speech2TextConfig(**SPEECH_TO_TEXT),
    "unispeech": lambda: UniSpeechConfig(**WAVE),
    "unispeech-sat": lambda: UniSpeechSatConfig(**LARGE),
    "voxtral": lambda: VoxtralEncoderConfig(**SIZES, num_mel_bins=128, max_source_positions=50 * WHISPER_SECONDS),
    "wav2vec2-bert": lambda: Wav2Vec2BertConfig(**SIZES, conv_depthwise_kernel_size=7),
    "conformer": lambda: Wav2Vec2ConformerConfig(**LARGE, conv_depthwise_kernel_size=7),
    "conformer-rotary": lambda: Wav2Vec2ConformerConfig(
        **LARGE, conv_depthwise_kernel_size=7, position_embeddings_type="rotary"
    ),
}
if OMNIASR:
    CONFIGS["omniasr"] = lambda: transformers.OmniASRAudioConfig(**WAVE)
FAMILIES = ["hubert", "wav2vec2", "wavlm", "whisper", "parakeet"]
RECOGNISERS: dict[str, Any] = {
    "hubert": HubertForCTC,
    "wav2vec2": Wav2Vec2ForCTC,
    "wavlm": WavLMForCTC,
    "whisper": WhisperForConditionalGeneration,
    "parakeet": ParakeetForCTC,
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.set_verbosity(verbosity)
    transformers_logging.enable_progress_bar()


def shake(model: nn.Module) -> None:
    """Weights and statistics that hide nothing: no zero bias, no unit norm."""
    generator = torch.Generator().manual_seed(3)
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if values.is_floating_point() and not name.endswith(("inv_freq", ".pe", ".weights")):
            change = 0.1 * torch.randn(values.shape, generator=generator)
            values.data += change.abs() if "running_var" in name else change


def make(family: str, **changes: Any) -> SpeechEncoder:
    torch.manual_seed(0)
    config = CONFIGS[family]()
    for name, value in changes.items():
        setattr(config, name, value)
    encoder = SpeechEncoder(config)
    shake(encoder)
    return encoder.eval()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2)) * 0.1


@pytest.mark.parametrize(("family", "attention"), crossed([*CONFIGS], ("sdpa", "eager")))
def test_an_utterance_has_the_same_frames_in_any_batch(family: str, attention: str) -> None:
    encoder = make(family)
    if not family.startswith(("wavlm", "speech-to-text")):
        encoder.model.set_attn_implementation(attention)
    lengths = torch.tensor([9000, 1, 399, 8000, 25000])
    waveforms = torch.full((5, 32000), float("nan"))
    for row, length in enumerate(lengths.tolist()):
        waveforms[row, :length] = noise(length) + 0.05
    with torch.no_grad():
        batch = encoder(waveforms, lengths, layers=[1, 2])
        assert batch.frames.isfinite().all()
        assert batch.lengths.tolist() == encoder.output_lengths(lengths).tolist()
        for row, length in enumerate(lengths.tolist()):
            alone = encoder(waveforms[row : row + 1, :length], lengths[row : row + 1], layers=[1, 2])
            size = int(batch.lengths[row])
            assert alone.frames.shape == (1, size, encoder.dim)
            pairs = zip((batch.frames, *batch.intermediate), (alone.frames, *alone.intermediate), strict=True)
            for together, single in pairs:
                torch.testing.assert_close(together[row, :size], single[0], atol=1e-5, rtol=0)
                assert together[row, size:].abs().sum() == 0
    assert batch.frames[0].std() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_lengths_are_exact(family: str) -> None:
    encoder = make(family, num_hidden_layers=1, encoder_layers=1)
    num_samples = torch.arange(2001)
    lengths = encoder.output_lengths(num_samples)
    assert lengths.dtype == torch.int64
    assert lengths.min() == 1
    assert (lengths.diff() >= 0).all()
    waveforms = noise(1, 32000)
    changes = (lengths.diff().nonzero().flatten() + 1).tolist()
    probes = [0, 1, 2, 399, 400, 2000, 16000, 31999, 32000, *changes, *(change - 1 for change in changes)]
    with torch.no_grad():
        for probe in probes:
            size = torch.tensor([probe])
            output = encoder(waveforms[:, :probe], size)
            assert output.frames.shape[1] == int(output.lengths) == int(encoder.output_lengths(size)), probe
    if not encoder.takes_waveform:
        return
    with torch.no_grad():  # transformers' own front end agrees
        for probe in [400, 719, 720, 1999, 2000, 31999]:
            frames = encoder.model.feature_extractor(waveforms[:, :probe]).shape[-1]
            assert frames == int(encoder.output_lengths(torch.tensor(probe)))


def test_lengths_of_long_recordings() -> None:
    hours = torch.tensor([16000 * 3600, 16000 * 7200 + 1])
    assert make("hubert").output_lengths(hours).tolist() == [179999, 359999]
    assert make("parakeet").output_lengths(hours).tolist() == [45000, 90000]


@pytest.mark.parametrize(
    ("family", "seconds", "first"), [("hubert", 0.02, 0.00247), ("whisper", 0.02, -0.01), ("parakeet", 0.08, -0.04)]
)
def test_properties(family: str, seconds: float, first: float) -> None:
    encoder = make(family)
    assert (encoder.dim, encoder.num_layers) == (32, 2)
    assert encoder.seconds_per_frame == pytest.approx(seconds)
    assert encoder.first_frame == pytest.approx(first, abs=1e-5)
    assert encoder.takes_waveform == (family == "hubert")


@pytest.mark.parametrize("family", CONFIGS)
def test_a_single_full_length_utterance_equals_transformers(family: str) -> None:
    encoder = make(family)
    waveforms, lengths = noise(1, 32000), torch.tensor([32000])
    with torch.no_grad():
        inputs, _ = encoder.features(waveforms, lengths)
        output = encoder(waveforms, lengths, layers=[1])
        match family:
            case "whisper" | "voxtral":
                inputs = inputs.mT
            case "omniasr":
                inputs = inputs[:, None]
            case "wav2vec2-bert":  # pairs of frames, an odd one left out
                inputs = inputs[:, :198].reshape(1, 99, -1)
        # Without a mask transformers' layers for streams read the whole recording, with one their windows.
        mask = {"attention_mask": torch.ones_like(inputs)} if family == "moonshine-streaming" else {}
        expected = encoder.model(inputs, output_hidden_states=True, **mask)
    torch.testing.assert_close(output.frames, expected.last_hidden_state, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.intermediate[0], expected.hidden_states[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", CONFIGS)
def test_gradients_reach_every_weight(family: str) -> None:
    encoder = make(family).train()
    if encoder.takes_waveform or family == "wav2vec2-bert":
        encoder.config.layerdrop = 0.0
    encoder.model.layerdrop = 0.0
    output = encoder(noise(2, 16000), torch.tensor([16000, 9000]), layers=[1])
    (output.frames.square().sum() + output.intermediate[0].square().sum()).backward()
    without = {name for name, parameter in encoder.model.named_parameters() if parameter.grad is None}
    unused = (
        {name for name in without if name.startswith("encoder.pos_conv_embed.")} if "conformer" in family else set()
    )
    assert without - unused <= {"embed_positions.weight", "masked_spec_embed"}


@pytest.mark.parametrize("family", FAMILIES)
def test_intermediate_gradient_reaches_only_the_layers_below(family: str) -> None:
    encoder = make(family)
    encoder(noise(1, 8000), torch.tensor([8000]), layers=[1]).intermediate[0].sum().backward()
    first, second = encoder.layers
    assert any(parameter.grad is not None for parameter in first.parameters())
    assert all(parameter.grad is None for parameter in second.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_skipped_layers_pass_the_running_state_on(family: str) -> None:
    encoder = make(family, layerdrop=1.0, encoder_layerdrop=1.0).train()
    if encoder.takes_waveform:
        encoder.config.mask_time_prob = 0.0
    output = encoder(noise(1, 8000), torch.tensor([8000]), layers=[1, 2])
    assert output.intermediate[0].shape == output.frames.shape
    torch.testing.assert_close(output.intermediate[0], output.intermediate[1])


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM, computed again going backward
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_keeps_intermediate_gradients(family: str) -> None:
    encoder = make(family).train()
    model = encoder.model  # the method was renamed within the versions we support
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    freeze(encoder, "conv_front_end")
    for module in encoder.modules():
        if hasattr(module, "layerdrop"):
            module.layerdrop = 0.0  # a skipped layer has no gradient
    output = encoder(noise(1, 8000), torch.tensor([8000]), layers=[1])
    (output.intermediate[0].square().sum() + output.frames.square().sum()).backward()
    assert any(parameter.grad is not None for parameter in encoder.layers[0].parameters())


@pytest.mark.parametrize("layers", [[0], [3], [1, -1]])
def test_unknown_layers_are_refused(layers: list[int]) -> None:
    with pytest.raises(ModelError, match="has layers 1 to 2"):
        make("parakeet")(noise(1, 8000), torch.tensor([8000]), layers=layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_on_very_short_utterances_works(family: str) -> None:
    encoder = make(family).train()
    output = encoder(noise(2, 700), torch.tensor([700, 1]))
    output.frames.sum().backward()
    assert output.frames.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_freeze_plans(family: str) -> None:
    front_end = {"whisper": ("conv1.", "conv2."), "parakeet": ("subsampling.",)}.get(family, ("feature_extractor.",))
    encoder = make(family).train()
    waveforms, lengths = noise(1, 8000), torch.tensor([8000])
    freeze(encoder, "conv_front_end")
    frozen = {name for name, parameter in encoder.model.named_parameters() if not parameter.requires_grad}
    assert frozen - {"embed_positions.weight"} == {
        name for name, _ in encoder.model.named_parameters() if name.startswith(front_end)
    }
    module = encoder.model.get_submodule(front_end[0].rstrip("."))
    seen: list[bool] = []
    module.register_forward_hook(lambda _module, _args, output: seen.append(output.requires_grad))
    assert encoder(waveforms, lengths).frames.requires_grad
    assert seen == [False]

    freeze(encoder, "all")
    assert not encoder(waveforms, lengths).frames.requires_grad
    assert not encoder.train().model.training

    freeze(encoder, "none")
    assert encoder.train().model.training
    assert all(p.requires_grad for name, p in encoder.model.named_parameters() if name != "embed_positions.weight")
    assert encoder(waveforms, lengths).frames.requires_grad


def test_waveforms_are_normalised_where_the_checkpoint_says_so() -> None:
    waveforms, lengths = noise(2, 4000) + 0.3, torch.tensor([4000, 1000])
    inputs, _ = make("hubert-large").features(waveforms, lengths)
    for row, length in zip(inputs, lengths.tolist(), strict=True):
        assert abs(float(row[:length].mean())) < 1e-5
        assert float(row[:length].std(correction=0)) == pytest.approx(1.0, abs=1e-3)
        assert row[length:].abs().sum() == 0
    plain, _ = make("hubert").features(waveforms, lengths)
    assert torch.equal(plain[0], waveforms[0])
    forced, _ = make("hubert", do_normalize=True).features(waveforms, lengths)
    torch.testing.assert_close(forced, inputs)


def test_whisper_refuses_more_than_its_window() -> None:
    samples = 16000 * WHISPER_SECONDS + 1
    with pytest.raises(ModelError, match=f"longer than Whisper's {WHISPER_SECONDS} s"):
        make("whisper")(noise(1, samples), torch.tensor([samples]))


def test_augmented_features_can_be_encoded() -> None:
    encoder = make("parakeet")
    inputs, lengths = encoder.features(noise(2, 16000), torch.tensor([16000, 8000]))
    assert inputs.shape == (2, 100, 80)
    inputs[:, :, 10:20] = 0
    output = encoder.encode(inputs, lengths)
    assert output.lengths.tolist() == [13, 7]


@pytest.mark.parametrize("family", CONFIGS)
def test_from_pretrained_reads_what_save_pretrained_wrote(family: str, tmp_path: Path) -> None:
    encoder = make(family)
    encoder.model.save_pretrained(tmp_path)
    loaded = SpeechEncoder.from_pretrained(tmp_path)
    waveforms, lengths = noise(2, 9000), torch.tensor([9000, 5000])
    with torch.no_grad():
        assert torch.equal(loaded.eval()(waveforms, lengths).frames, encoder(waveforms, lengths).frames)


def test_features_of_wav2vec2_bert() -> None:
    encoder = make("wav2vec2-bert")
    waveforms, lengths = noise(2, 16000), torch.tensor([15000, 7777])
    found, sizes = encoder.features(waveforms, lengths)
    assert sizes.tolist() == [92, 47]
    for row, waveform, length, size in zip(found, waveforms, lengths.tolist(), sizes.tolist(), strict=True):
        expected = SeamlessM4TFeatureExtractor()(waveform[:length].numpy(), sampling_rate=16000, return_tensors="pt")
        pairs = row[: size // 2 * 2].reshape(1, size // 2, -1)
        torch.testing.assert_close(pairs, expected.input_features[:, : size // 2], atol=1e-3, rtol=0)
    assert found[1, 47:].abs().sum() == 0
    assert encoder.output_lengths(torch.tensor([0, 559, 560, 15000, 16000])).tolist() == [1, 1, 1, 46, 49]
    assert encoder.seconds_per_frame == pytest.approx(0.02)


WRAPPED: dict[str, tuple[str, Any, Any]] = {
    "canary": (
        "parakeet",
        CanaryForConditionalGeneration,
        lambda own: CanaryConfig(encoder_config=own, decoder_config=DECODER, vocab_size=40, **SPECIAL),
    ),
    "cohere": (  # stored under NeMo's names
        "parakeet",
        CohereAsrForConditionalGeneration,
        lambda own: CohereAsrConfig(encoder_config=own, **DECODER, **SPECIAL),
    ),
    "conformer": ("conformer", Wav2Vec2ConformerForCTC, lambda own: Wav2Vec2ConformerConfig(**own)),
    "moonshine": ("moonshine", MoonshineForConditionalGeneration, lambda own: MoonshineConfig(**own)),
    "moonshine-streaming": (
        "moonshine-streaming",
        MoonshineStreamingForConditionalGeneration,
        lambda own: MoonshineStreamingConfig(
            encoder_config=own, vocab_size=40, num_key_value_heads=4, **(SIZES | {"hidden_size": 24})
        ),
    ),
    "speech-to-text": (
        "speech-to-text",
        Speech2TextForConditionalGeneration,
        lambda own: Speech2TextConfig(**own),
    ),
    "voxtral": (
        "voxtral",
        VoxtralForConditionalGeneration,
        lambda own: VoxtralConfig(audio_config=own, text_config={**TEXT, "model_type": "llama"}, audio_token_id=3),
    ),
    "wav2vec2-bert": ("wav2vec2-bert", Wav2Vec2BertForCTC, lambda own: Wav2Vec2BertConfig(**own)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_from_pretrained_takes_the_encoder_of_other_recognisers(name: str, tmp_path: Path) -> None:
    family, model_class, wrapped = WRAPPED[name]
    model = model_class(wrapped({**CONFIGS[family]().to_dict(), "vocab_size": 40})).eval()
    shake(model)
    model.save_pretrained(tmp_path)
    loaded = SpeechEncoder.from_pretrained(tmp_path)
    (inner,) = [each for each in model.modules() if type(each) is type(loaded.model)]
    found, expected = loaded.model.state_dict(), inner.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_from_pretrained_takes_the_encoder_of_a_recogniser(family: str, tmp_path: Path) -> None:
    config: PreTrainedConfig = CONFIGS[family]()
    config.vocab_size = 40
    if family == "parakeet":
        config = ParakeetCTCConfig(vocab_size=40, encoder_config=config.to_dict())
    model = RECOGNISERS[family](config)
    shake(model)
    model.save_pretrained(tmp_path)
    loaded = SpeechEncoder.from_pretrained(str(tmp_path))
    own = {"whisper": "model.encoder.", "parakeet": "encoder."}.get(family, f"{family}.")
    expected = {name.removeprefix(own): value for name, value in model.state_dict().items() if name.startswith(own)}
    found = loaded.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert SpeechEncoder(config).dim == 32


def test_do_normalize_comes_from_the_feature_extractor_and_stays(tmp_path: Path) -> None:
    make("hubert").model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16000}))
    loaded = SpeechEncoder.from_pretrained(tmp_path)
    assert loaded.config.do_normalize is True
    loaded.model.save_pretrained(tmp_path / "again")
    assert SpeechEncoder.from_pretrained(tmp_path / "again").config.do_normalize is True


def test_other_features_are_refused(tmp_path: Path) -> None:
    make("parakeet").model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"hop_length": 200}))
    with pytest.raises(ModelError, match="hop_length = 200"):
        SpeechEncoder.from_pretrained(tmp_path)


def test_unsupported_families_are_refused(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=10)
    with pytest.raises(ModelError, match=r"'bert' is no supported.*hubert, wav2vec2, wavlm, whisper, parakeet_encoder"):
        SpeechEncoder(config)
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="'bert'"):
        SpeechEncoder.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="adapter"):
        SpeechEncoder(Wav2Vec2Config(**WAVE, add_adapter=True))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    CONFIGS["hubert"]().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        SpeechEncoder.from_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle, which can run code"):
        SpeechEncoder.from_pretrained(tmp_path)


def broken(path: Path, *, config: str | None = None, weights: bytes | None = None) -> Path:
    make("hubert").model.save_pretrained(path)
    if config is not None:
        (path / "config.json").write_text(config)
    if weights is not None:
        (path / "model.safetensors").write_bytes(weights)
    return path


def test_broken_directories_give_one_line(tmp_path: Path) -> None:
    remote = json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "code.MyConfig"}})
    larger = CONFIGS["hubert"]()
    larger.hidden_size = 64
    more_layers = CONFIGS["hubert"]()
    more_layers.num_hidden_layers = 3
    (tmp_path / "no-config").mkdir()
    cases = [
        (tmp_path / "absent", "no such model folder"),
        ("./absent", "no such model folder"),
        (tmp_path / "no-config", "config.json is missing"),
        (broken(tmp_path / "json", config="{"), "config.json is not JSON"),
        (broken(tmp_path / "remote", config=remote), "cannot be loaded"),
        (broken(tmp_path / "cut", weights=b"\x10"), "cannot be loaded"),
        (broken(tmp_path / "empty", weights=b""), "cannot be loaded"),
        (broken(tmp_path / "larger", config=larger.to_json_string()), "cannot be loaded"),
        (broken(tmp_path / "layers", config=more_layers.to_json_string()), "weights are missing"),
    ]
    for path, what in cases:
        with pytest.raises(ModelError, match=what) as caught:
            SpeechEncoder.from_pretrained(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert len(message) < 500
