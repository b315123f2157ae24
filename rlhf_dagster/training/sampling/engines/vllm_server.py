"""A vLLM server as an engine: its API of completions, and its routes for reinforcement learning.

One is started by `vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}' --logprobs-mode processed_logprobs`,
with VLLM_SERVER_DEV_MODE=1 in its environment. Where VLLM_API_KEY is set, as for a server that wants one, requests have
it.
"""

import os
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.sampling.engines.engine import EngineFacts, EngineResponse
from rlhf_dagster.training.texts.tokens import TokenIds

_CONNECT_SECONDS = 20.0
_ANSWER_SECONDS = 3600.0
"""How long an answer may take, such as that of one of many responses that wait for each other."""
_MOST_AT_ONCE = 1024
_DETAIL = 300
"""Characters of the server's own words that a sentence repeats."""


class VllmServer:
    """The server at ``url``, such as http://127.0.0.1:8000."""

    def __init__(self, url: str) -> None:
        self.url, key = url.rstrip("/"), os.environ.get("VLLM_API_KEY", "").strip()
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=_MOST_AT_ONCE, max_keepalive_connections=_MOST_AT_ONCE),
            trust_env=urlsplit(self.url).hostname not in ("127.0.0.1", "localhost", "::1"),
        )
        self._model = ""

    def facts(self) -> EngineFacts:
        config = self._json("GET", "/server_info", params={"config_format": "json"})["vllm_config"]
        (model, *_) = self._json("GET", "/v1/models")["data"]
        self._model = model["id"]
        return EngineFacts(
            transfer=(config.get("weight_transfer_config") or {}).get("backend", ""),
            workers=self._json("GET", "/get_world_size")["world_size"],
            log_probs=config["model_config"]["logprobs_mode"],
            longest=model["max_model_len"],
        )

    def pause(self) -> None:
        self._json("POST", "/pause", params={"mode": "wait"})

    def resume(self) -> None:
        self._json("POST", "/resume")

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._json("POST", "/init_weight_transfer_engine", json={"init_info": init_info})

    def start_weight_update(self) -> None:
        self._json("POST", "/start_weight_update")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self._json("POST", "/update_weights", json={"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        version = None if weight_version is None else {"weight_version": weight_version}
        self._json("POST", "/finish_weight_update", json=version)

    def shutdown_weight_transfer_engine(self) -> None:
        self._json("POST", "/shutdown_weight_transfer_engine")

    def draw(self, prompt: TokenIds, parameters: dict[str, Any]) -> EngineResponse:
        asked = {"model": self._model, "prompt": prompt, "return_token_ids": True, "logprobs": 0} | parameters
        (choice,) = self._json("POST", "/v1/completions", json=asked)["choices"]
        return EngineResponse(choice["token_ids"], choice["logprobs"]["token_logprobs"])

    def close(self) -> None:
        self._http.close()

    def _json(self, method: str, path: str, **request: Any) -> Any:
        try:
            response = self._http.request(method, path, **request)
            if response.status_code == HTTPStatus.NOT_FOUND:
                raise UserError(
                    f"{self.url} has no {path}: start vLLM 0.32 or later, with VLLM_SERVER_DEV_MODE=1 in its "
                    "environment."
                )
            if response.is_error:
                raise UserError(f"{self.url}{path} failed ({response.status_code}): {response.text[:_DETAIL].strip()}")
            return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise UserError(
                f"{self.url}: the vLLM server of `compute.rollout_server` gave no answer ({first_line(error)}); start "
                "it, or set `compute.rollout_backend: native`."
            ) from None
