"""A start for the bridge: show the LLM what the CTC head hears.

A random bridge speaks no language, and on a few hours of speech it takes most of the training to learn one. Where the
encoder already has a CTC head over the LLM's label units, least squares finds the linear bridge that maps each frame to
the LLM's embeddings of the labels heard in it, weighted by their probability. The LLM then begins with a CTC transcript
in its own embeddings, which `denoising` has taught it to read. (Ours; neither paper does this.)
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from kikitori.data.speech import SpeechBatch
from kikitori.errors import ConfigError
from kikitori.model.bridge import StackBridge
from kikitori.model.features import mask_tail
from kikitori.model.speech_llm import SpeechLLM

RIDGE = 1e-3  # relative to the mean variance of the frames


@torch.inference_mode()
def fit_bridge_to_ctc(model: SpeechLLM, batches: Iterable[SpeechBatch]) -> float:
    """Sets a stack bridge by least squares over the speech of `batches`; gives the share of variance it explains.

    Raises:
        ConfigError: The bridge is of another kind, or there is no CTC head over the LLM's label units.
    """
    bridge, acoustic = model.bridge, model.acoustic
    table = model.llm.get_input_embeddings().weight.float()
    if not isinstance(bridge, StackBridge):
        raise ConfigError("start 'ctc' is for a stack bridge", where="bridge.start", remedy="use kind: stack")
    if not acoustic.config.ctc_layers or acoustic.config.num_units > len(table):
        raise ConfigError("no CTC head over the LLM's units", where="bridge.start", remedy="set ctc.weights")
    device, training = acoustic.device, model.training
    model.eval()  # type: ignore[no-untyped-call]
    size = bridge.linear.in_features + 1
    gram = torch.zeros(size, size, dtype=torch.float64, device=device)
    cross = torch.zeros(size, table.shape[1], dtype=torch.float64, device=device)
    power = torch.zeros((), dtype=torch.float64, device=device)
    for batch in batches:
        features = acoustic.encoder.features(batch.waveforms.to(device), batch.lengths.to(device))
        encoded = acoustic.encode(*features)
        log_probs, lengths = acoustic.log_probs(encoded)
        heard = mask_tail(log_probs[..., :-1].exp() @ table[: log_probs.shape[2] - 1], lengths)
        inputs, targets = _stacked(encoded.frames, bridge.stride), _stacked(heard, bridge.stride)
        valid = torch.arange(inputs.shape[1], device=device) < bridge.output_lengths(lengths)[:, None]
        rows = inputs[valid].double()
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
        wanted = targets[valid].unflatten(1, (bridge.stride, -1)).sum(dim=1).double()
        gram, cross, power = gram + rows.T @ rows, cross + rows.T @ wanted, power + wanted.square().sum()
    penalty = RIDGE * gram.diagonal()[:-1].mean() * torch.eye(size, dtype=torch.float64, device=device)
    solution = torch.linalg.solve(gram + penalty, cross)
    bridge.linear.weight.copy_(solution[:-1].T)
    bridge.linear.bias.copy_(solution[-1])
    model.train(training)
    residual = power - 2 * (solution * cross).sum() + (solution * (gram @ solution)).sum()
    return float(1.0 - residual / power)


def _stacked(frames: Tensor, stride: int) -> Tensor:
    """Groups of `stride` neighbouring frames side by side, the tail filled with zeros, as the bridge sees them."""
    padded = torch.nn.functional.pad(frames, (0, 0, 0, -frames.shape[1] % stride))
    return padded.reshape(frames.shape[0], -1, stride * frames.shape[2])
