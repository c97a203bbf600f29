"""The speech LLM's labels as a vLLM server writes them: prompt embeddings go out, labels and log-probabilities come.

Encoder, bridge and prompt are computed here; the server runs the LLM, from the folder of `kikitori convert llm`.
It speaks OpenAI's `/v1/completions` with vLLM's `prompt_embeds`, which has no beam search: further hypotheses of an
n-best list are drawn. Only the `prefix` interface can be served so, since there the speech is part of the LLM's input.
"""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from kikitori.errors import ConfigError
from kikitori.io.json_api import ServerError, ask
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.scorers.options import SPEECH_LLM
from kikitori.search.length import Limits
from kikitori.search.options import VLLMSearch
from kikitori.types import Hypothesis, NBest

TIMEOUT_S = 600.0
AT_ONCE = 64
"""Most requests on their way; vLLM makes batches of them as it likes."""
KEY = "VLLM_API_KEY"
"""Environment variable with the key that the server asks for."""
TOKEN = "token_id:"  # noqa: S105


@dataclass(frozen=True)
class Served:
    """An LLM on a server: the URL of its API, its name there, and most positions of prefix and labels together."""

    url: str
    model: str
    max_positions: int | None


def served(options: VLLMSearch) -> Served:
    """The LLM that the options name.

    Raises:
        ConfigError: They name no server.
        ServerError: It cannot be reached, or has no such LLM.
    """
    if not options.server:
        raise ConfigError("no server is named", where="decoding.server", remedy="add decoding.server=http://HOST:8000")
    url = options.server.rstrip("/").removesuffix("/v1") + "/v1"
    answer = _ask(f"{url}/models", None)
    try:
        models = {str(each["id"]): each.get("max_model_len") for each in answer["data"]}
        name = options.model or next(iter(models))
        most = models[name]
        return Served(url, name, None if most is None else int(most) - 1)  # EOS is a label there
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        what = f"it serves no '{options.model}'" if options.model else "it serves no LLM"
        raise ServerError(what, where=f"{url}/models", remedy="name one of those with decoding.model") from None


def vllm(
    prefix: AssembledInput, eos_id: int, num_labels: int, seeds: Sequence[int], limits: Limits, options: VLLMSearch
) -> list[NBest]:
    """The most probable labels of each utterance, one after the other, and further hypotheses that were drawn.

    Args:
        prefix: What the LLM reads of each utterance before the first label; all of it is in its embeddings.
        eos_id: The label that ends a transcript.
        num_labels: Labels that there are.
        seeds: Of what is drawn, for each utterance.
        limits: Most and fewest labels.
        options: The server, and how many hypotheses.

    Raises:
        ConfigError: No server is named.
        ServerError: The server fails, or answers with what is no transcript.
    """
    llm = served(options)
    shared = {
        "model": llm.model,
        "stop_token_ids": [eos_id],
        "ignore_eos": True,  # of the tokenizer: the label above alone ends
        "logprobs": 0,
        "return_tokens_as_token_ids": True,
        # What the folder's generation_config.json or the server's defaults may say otherwise.
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }

    def written(row: int) -> NBest:
        most = limits.max_labels[row]
        about = {**shared, "prompt_embeds": _encoded(prefix.embeds[row, : int(prefix.lengths[row])])}
        about |= {"max_tokens": most + 1, "min_tokens": min(limits.min_labels, most + 1)}
        questions: list[Mapping[str, Any]] = [{**about, "temperature": 0.0, "n": 1}]
        if options.nbest > 1:
            drawn = {"temperature": options.temperature, "n": options.nbest - 1, "seed": seeds[row]}
            questions.append({**about, **drawn})
        found: dict[tuple[int, ...], Hypothesis] = {}
        for question in questions:
            answer = _ask(f"{llm.url}/completions", question)
            for hypothesis in _hypotheses(answer, eos_id, num_labels, most, llm.url):
                found.setdefault(hypothesis.labels, hypothesis)
        return tuple(sorted(found.values(), key=lambda hypothesis: -hypothesis.score))

    with ThreadPoolExecutor(max(1, min(AT_ONCE, len(limits.max_labels)))) as threads:
        return [*threads.map(written, range(len(limits.max_labels)))]


def _encoded(embeds: Tensor) -> str:
    """Embeddings (positions, dim) as vLLM takes them: what `torch.save` writes, in base64."""
    content = io.BytesIO()
    torch.save(embeds.detach().float().cpu().clone(), content)  # a clone: of a slice all of it would be saved
    return base64.b64encode(content.getvalue()).decode("ascii")


def _ask(url: str, question: Mapping[str, Any] | None) -> dict[str, Any]:
    return ask(url, question, timeout_s=TIMEOUT_S, key=os.environ.get(KEY))


def _hypotheses(answer: Mapping[str, Any], eos_id: int, num_labels: int, most: int, url: str) -> list[Hypothesis]:
    """What an answer of the server holds.

    Raises:
        ServerError: It is no answer to what was asked.
    """
    try:
        choices = [(each["logprobs"]["tokens"], each["logprobs"]["token_logprobs"]) for each in answer["choices"]]
        rows = [
            ([int(token.removeprefix(TOKEN)) for token in tokens], [*map(float, scores)]) for tokens, scores in choices
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        what = "the answer holds no labels with their log-probabilities"
        raise ServerError(what, where=url, remedy="is it vLLM, 0.11 or newer?") from None
    if not rows:
        raise ServerError("the answer holds no hypothesis", where=url, remedy="see its log")
    return [_hypothesis(*row, eos_id, num_labels, most, url) for row in rows]


def _hypothesis(
    labels: Sequence[int], scores: Sequence[float], eos_id: int, num_labels: int, most: int, url: str
) -> Hypothesis:
    complete = labels[-1:] == [eos_id]
    written = labels[:-1] if complete else labels[:most]
    if len(labels) != len(scores) or not all(map(isfinite, scores)):
        raise ServerError("the answer's log-probabilities are no numbers", where=url, remedy="see its log")
    if strange := [label for label in written if not 0 <= label < num_labels or label == eos_id]:
        what = f"the server's LLM writes label {strange[0]}, which the recogniser does not have"
        raise ServerError(what, where=url, remedy="serve the folder of kikitori convert llm")
    score = sum(scores[: len(written) + complete])
    return Hypothesis(
        tuple(written), score=score, llm_passes=len(written), complete=complete, scores={SPEECH_LLM: score}
    )
