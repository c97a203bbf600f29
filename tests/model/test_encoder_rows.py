import pytest
import torch

from kikitori.data.speech import pad_waveforms
from kikitori.model.encoder.rows import IN_TURN_S, encode_rows, rows_in_turn
from tests.tiny import ENCODERS, tiny_acoustic_model, tiny_waveforms

WAVEFORMS = tiny_waveforms(5)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_in_turn_give_what_the_batch_gives(encoder, rows):
    model = tiny_acoustic_model(encoder, ctc_layers=(1, 2))
    waveforms, num_samples = pad_waveforms(WAVEFORMS)
    with torch.no_grad():
        whole = model.encode(waveforms, num_samples)
        parts = encode_rows(model.encode, waveforms, num_samples, rows)
    assert parts.lengths.tolist() == whole.lengths.tolist()
    torch.testing.assert_close(parts.frames, whole.frames, atol=1e-5, rtol=1e-4)
    assert len(parts.intermediate) == len(whole.intermediate)
    for ours, theirs in zip(parts.intermediate, whole.intermediate, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert (parts.window is None) == (whole.window is None)
    if parts.window is not None:
        assert parts.window_lengths.tolist() == whole.window_lengths.tolist()
        for ours, theirs, length in zip(parts.window, whole.window, whole.window_lengths.tolist(), strict=True):
            torch.testing.assert_close(ours[:length], theirs[:length], atol=1e-5, rtol=1e-4)


def test_a_cpu_encodes_a_minute_at_a_time():
    whisper, hubert = (tiny_acoustic_model(family).encoder for family in ("whisper", "hubert"))
    assert rows_in_turn(whisper, torch.zeros(8, 16000)) == IN_TURN_S * 16000 // whisper.max_samples
    assert rows_in_turn(hubert, torch.zeros(8, 160_000)) == 6
    assert rows_in_turn(hubert, torch.zeros(8, 2_000_000)) == 1
    assert rows_in_turn(hubert, torch.zeros(8, 160_000, device="meta")) == 8
