"""A server with the interface of vLLM's that PPO uses, and a sampler of this package behind it: for tests and
benchmarks on machines without vLLM.

    python -m benchmarks.stand_in_engine FOLDER_OF_A_MODEL --threads 1

Requests that arrive together are sampled together. It writes its address to the standard output when it listens.
"""

import json
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import torch
import typer
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.sampling.native import draw_uniforms, generate
from rlhf_dagster.training.texts.tokens import pad

TOGETHER = 0.02
"""Seconds to wait for further requests before sampling begins."""
LONGEST = 4096
GIVEN = {"model", "prompt", "return_token_ids", "logprobs", "max_tokens", "temperature", "seed", "stop_token_ids"}
PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0}
PLAIN |= {"frequency_penalty": 0.0, "ignore_eos": True}
"""Parameters that change nothing; any others are refused."""


@dataclass
class _Request:
    asked: dict[str, Any]
    done: threading.Event = field(default_factory=threading.Event)
    answer: dict[str, Any] = field(default_factory=dict)


class StandInEngine:
    """The model, its weights as they come, and what is to be sampled from it."""

    def __init__(self, folder: Path, transfer: str = "rlhf_files", log_probs: str = "processed_logprobs") -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.transfer, self.log_probs = transfer, log_probs
        self.calls: list[str] = []
        self.paused = self.updating = False
        self._loaded: set[str] = set()
        self._waiting: queue.Queue[_Request] = queue.Queue()
        threading.Thread(target=self._sample, daemon=True).start()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the server answers; raises ValueError for what vLLM would refuse."""
        if path == "/v1/completions":
            return self._complete(body)
        self.calls.append(path)
        plain = {
            "/server_info": {
                "vllm_config": {
                    "weight_transfer_config": {"backend": self.transfer},
                    "model_config": {"logprobs_mode": self.log_probs},
                }
            },
            "/v1/models": {"data": [{"id": "policy", "max_model_len": LONGEST}]},
            "/get_world_size": {"world_size": 1},
        }
        return plain[path] if path in plain else self._control(path, body)

    def _control(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path in ("/pause", "/resume"):
            self.paused = path == "/pause"
        elif path == "/start_weight_update":
            _require(self.paused and not self.updating, "start_weight_update while requests may come")
            self.updating, self._loaded = True, set()
        elif path == "/update_weights":
            _require(self.updating, "start_weight_update must be called before update_weights")
            self._load(load_file(body["update_info"]["path"]))
        elif path == "/finish_weight_update":
            missing = {name for name, _ in self.model.named_parameters()} - self._loaded
            _require(self.updating and not missing, f"weights are missing: {missing}")
            self.updating = False
        else:
            _require(path in ("/init_weight_transfer_engine", "/shutdown_weight_transfer_engine"), f"no {path}")
        return {}

    def _load(self, weights: dict[str, Tensor]) -> None:
        unknown = self.model.load_state_dict(weights, strict=False).unexpected_keys
        _require(not unknown, f"unknown weights: {unknown}")
        self._loaded |= weights.keys()

    def _complete(self, asked: dict[str, Any]) -> dict[str, Any]:
        biases = asked.get("logit_bias", {}).values()
        _require(all(bias == -100 for bias in biases), "a bias other than that against what is never drawn")
        others = {name: value for name, value in asked.items() if name not in GIVEN and name != "logit_bias"}
        _require(others == PLAIN, f"parameters {others}")
        _require(not self.paused and not self.updating, "a request while weights change")
        request = _Request(asked)
        self._waiting.put(request)
        request.done.wait()
        return request.answer

    def _sample(self) -> None:
        while True:
            requests = [self._waiting.get(), *self._more()]
            for group in _alike(requests):
                self._answer(group)

    def _more(self) -> Iterator[_Request]:
        while True:
            try:
                yield self._waiting.get(timeout=TOGETHER)
            except queue.Empty:
                return

    def _answer(self, requests: list[_Request]) -> None:
        """What ``requests`` draw, which differ in prompts and seeds alone."""
        asked, most = requests[0].asked, requests[0].asked["max_tokens"]
        never, ends = tuple(map(int, asked["logit_bias"])), tuple(asked["stop_token_ids"])
        decoding = Decoding(
            asked["temperature"] or 1.0, most, not ends, 0, ends[0] if ends else -1, never, other_ends=ends[1:]
        )
        seeds = [torch.Generator().manual_seed(request.asked["seed"]) for request in requests]
        uniforms = torch.cat([draw_uniforms(1, most, seed) for seed in seeds]) if asked["temperature"] else None
        drawn = generate(self.model, pad([r.asked["prompt"] for r in requests], 0, "left"), uniforms, decoding)
        lengths = drawn.mask.sum(dim=1).tolist()
        for request, length, tokens, numbers in zip(
            requests, lengths, drawn.tokens.tolist(), drawn.log_probs.tolist(), strict=True
        ):
            choice = {"token_ids": tokens[:length], "logprobs": {"token_logprobs": numbers[:length]}}
            request.answer = {"choices": [choice]}
            request.done.set()


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _alike(requests: list[_Request]) -> Iterator[list[_Request]]:
    groups: dict[str, list[_Request]] = {}
    for request in requests:
        rest = {name: value for name, value in request.asked.items() if name not in ("prompt", "seed")}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(request)
    yield from groups.values()


class StandInServer(ThreadingHTTPServer):
    """An engine behind HTTP, on a free port of loopback; `url` is its address."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, engine: StandInEngine) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.engine, self.url = engine, f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandInServer

    def do_GET(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        self._reply()

    def _reply(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            answer = self.server.engine.answer(self.command, urlsplit(self.path).path, json.loads(sent or b"{}"))
            status = 200
        except ValueError as error:
            status, answer = 400, {"error": {"message": str(error)}}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


def main(folder: Path, threads: Annotated[int, typer.Option()] = 1) -> None:
    """Serve the model in FOLDER until the process is ended, or the one that started it."""
    torch.set_num_threads(threads)
    server = StandInServer(StandInEngine(folder))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    print(server.url, flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        threading.Event().wait(0.5)


if __name__ == "__main__":
    typer.run(main)
