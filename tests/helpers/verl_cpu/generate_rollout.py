"""transformers' `generate` as a rollout engine of verl 0.9: `actor_rollout_ref.rollout.name=generate`.

A server starts with zeros for weights, so that whatever it samples comes from the trainer's weight sync.
"""
# pyright: reportMissingImports=false

import os
from collections.abc import Iterable
from typing import Any

import ray
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

NAME = "generate"


class GenerateServer:
    """What verl's clients ask of a server, one request at a time."""

    def __init__(self, path: str, config: Any, seed: int) -> None:
        torch.manual_seed(seed)
        self.lm: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        with torch.no_grad():
            for weight in self.lm.parameters():
                weight.zero_()
        self.config, self.global_steps = config, None

    async def generate(self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **_: Any) -> TokenOutput:
        assert self.global_steps is not None, "no weights were sent before the first request"
        fields: dict[str, Any] = {"global_steps": self.global_steps}
        asked = torch.tensor([list(prompt_ids)])
        if count := sampling_params.get("prompt_logprobs"):
            return TokenOutput(token_ids=[], stop_reason="completed", extra_fields={**fields, **self._likeliest(asked, count)})
        room = self.config.prompt_length + self.config.response_length - len(prompt_ids)
        longest = min(sampling_params.get("max_tokens", self.config.response_length), self.config.response_length, room)
        temperature = sampling_params["temperature"]
        rule = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature > 0 else {}
        out = self.lm.generate(
            asked,
            attention_mask=torch.ones_like(asked),
            do_sample=temperature > 0,
            max_new_tokens=longest,
            eos_token_id=[self.lm.config.eos_token_id, *sampling_params.get("stop_token_ids", [])],
            return_dict_in_generate=True,
            output_logits=True,
            **rule,
        )
        new = out.sequences[0, asked.shape[1] :]
        logprobs = torch.stack(out.logits)[:, 0].log_softmax(-1)[torch.arange(len(new)), new]
        own = logprobs.tolist() if sampling_params.get("logprobs") else None
        return TokenOutput(token_ids=new.tolist(), log_probs=own, stop_reason="completed", extra_fields=fields)

    def _likeliest(self, asked: Tensor, count: int) -> dict[str, Any]:
        """As verl's vLLM server: of each token but the first the likeliest ones in its place, and a row of zeros at the end."""
        with torch.no_grad():
            likely = self.lm(asked).logits[0, :-1].log_softmax(-1).topk(count)
        return {
            "prompt_ids": [*likely.indices.tolist(), [0] * count],
            "prompt_logprobs": [*likely.values.tolist(), [0.0] * count],
        }

    async def load(self, weights: dict[str, Tensor], global_steps: int | None) -> None:
        missing, unknown = self.lm.load_state_dict(weights, strict=False)
        assert not unknown, unknown
        assert set(missing) <= {"lm_head.weight"}, missing  # tied to the embedding
        self.global_steps = global_steps

    async def nothing(self, *_: Any, **__: Any) -> None:
        """A server that shares no memory with the trainer has nothing to free or to stop."""

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = nothing


class GenerateReplica(RolloutReplica):
    """Starts the server of a rank."""

    async def launch_servers(self) -> None:
        name = _server_name(self.replica_rank)
        actor = ray.remote(GenerateServer).options(name=name, num_cpus=0, max_concurrency=64)
        self._server_handle = actor.remote(self.model_config.path, self.config, self.replica_rank)
        self.servers, self._server_address = [self._server_handle], name


class GenerateAdapter(base.BaseRollout):
    """In the trainer's process: hands the weights to the server of its rank."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self.replica_rank = int(os.environ["RANK"]) if replica_rank < 0 else replica_rank

    async def resume(self, tags: list[str]) -> None:
        pass

    async def release(self) -> None:
        pass

    async def update_weights(self, weights: Iterable[tuple[str, Tensor]], global_steps: int | None = None, **_: Any) -> None:
        sent = {name: weight.detach().clone() for name, weight in weights}
        await ray.get_actor(_server_name(self.replica_rank)).load.remote(sent, global_steps)


def _server_name(rank: int) -> str:
    return f"{NAME}_server_{rank}"


base._ROLLOUT_REGISTRY[NAME, "async"] = f"{__name__}.{GenerateAdapter.__name__}"
RolloutReplicaRegistry.register(NAME, lambda: GenerateReplica)
