"""A stand-in for vLLM: the part of its HTTP contract that kikitori uses, answered by a model of our own."""

import base64
import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch


class FakeVLLM:
    """Serves an LLM of transformers; `questions` holds what was asked.

    Attributes:
        fail: Called with each question before it is answered; gives an HTTP status and content, or None.
    """

    def __init__(self, llm, name="llm", max_model_len=None):
        self.llm, self.name, self.max_model_len = llm, name, max_model_len
        self.questions, self.keys, self.fail = [], [], lambda _: None
        self.lock = threading.Lock()

    def answer(self, question):
        """As of /v1/completions of vLLM 0.33, by its source."""
        if question["model"] != self.name:
            message = f"The model `{question['model']}` does not exist."
            return 404, {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}}
        embeds = torch.load(io.BytesIO(base64.b64decode(question["prompt_embeds"], validate=True)), weights_only=True)
        hidden = self.llm.config.hidden_size
        if embeds.ndim != 2 or embeds.shape[1] != hidden:
            message = f"`prompt_embeds` hidden_size {embeds.shape[1]} does not match the model's hidden_size {hidden}."
            return 400, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}
        if question["temperature"] == 0.0 and question["n"] > 1:
            return 400, {"error": {"message": "n must be 1 when using greedy sampling", "code": 400}}
        with torch.inference_mode(), self.lock:
            generator = torch.Generator().manual_seed(question.get("seed") or 0)
            choices = [self._choice(embeds[None], question, generator) for _ in range(question["n"])]
        return 200, {"object": "text_completion", "model": self.name, "choices": choices}

    def _choice(self, embeds, question, generator):
        labels, scores, ends = [], [], question["stop_token_ids"]
        while len(labels) < question["max_tokens"]:
            log_probs = self.llm(inputs_embeds=embeds).logits[0, -1].float().log_softmax(-1)
            allowed = log_probs.clone()
            if len(labels) < question["min_tokens"]:
                allowed[ends] = -torch.inf
            if question["temperature"] == 0.0:
                label = int(allowed.argmax())
            else:
                label = int(torch.multinomial((allowed / question["temperature"]).softmax(-1), 1, generator=generator))
            labels.append(label)
            scores.append(float(log_probs[label]))
            if label in ends:
                break
            embeds = torch.cat([embeds, self.llm.get_input_embeddings()(torch.tensor([[label]]))], dim=1)
        reason = "stop" if labels[-1] in ends else "length"
        logprobs = {"tokens": [f"token_id:{label}" for label in labels], "token_logprobs": scores}
        return {"index": 0, "text": "", "logprobs": logprobs, "finish_reason": reason}

    @property
    def models(self):
        return {"data": [{"id": self.name, "object": "model", "max_model_len": self.max_model_len}]}


@contextmanager
def serving(fake):
    """The URL of a server; it ends with the context."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            fake.keys.append(self.headers.get("Authorization"))
            self._send(200 if self.path == "/v1/models" else 404, json.dumps(fake.models).encode())

        def do_POST(self):
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.questions.append(question)
            status, content = fake.fail(question) or fake.answer(question)
            self._send(status, content if isinstance(content, bytes) else json.dumps(content).encode())

        def _send(self, status, content):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
