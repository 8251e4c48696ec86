"""An agent loop whose group is one thought and a beam of distinct SIDs behind it, as OpenOneRec makes its groups.

`BEAM=1` in the launch script; in a config of your own, under `actor_rollout_ref.rollout.agent`: `agent_loop_config_path`, the
file thought_beam.yaml beside this one, and `default_agent_loop=recast_thought_beam`.
"""
# pyright: reportMissingImports=false
# verl lives in an environment of its own (`make test-verl`)

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import uuid4

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput

from recast_sim.signal import SignalError
from recast_train.adapters.verl.anchors import AnchorTokens
from recast_train.adapters.verl.token_beam import Likely, widest_beam

_ANY_TOKEN = 0  # stands where the distribution is asked for
_SCORES = ("prompt_ids", "prompt_logprobs")  # of each token but the first


@dataclass(frozen=True)
class BeamGroup:
    """Token ids of a prompt and of its responses, the likeliest first, and what the server says of its weights."""

    prompt: list[int]
    responses: list[list[int]]
    fields: dict[str, Any]


class ThoughtBeamAgent(AgentLoopBase):
    """verl starts `n` sessions a prompt in one worker. The first makes the group, and each takes the beam of its number.

    The thought is sampled. Behind it stands what stands there in an anchor (`extra_info["recast"]`): the text before the SID,
    then the beam's codes, then the end. Codes are any tokens, as in OpenOneRec: a beam may be no item's SID. A thought that
    does not end in time is the response of all sessions. Where rollouts do not think, the beam follows the prompt.

    A beam asks verl's server for the likeliest next tokens by `prompt_logprobs`, which its vLLM server answers: up to `n`
    requests a level, each over the whole prefix.
    """

    _making: ClassVar[dict[str, tuple[asyncio.Task[BeamGroup], list[int]]]] = {}  # by uid: the group, sessions that have it

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """One session's rollout. Raises SignalError where the data set does not say how an answer is laid out."""
        width, uid, session = self.rollout_config.n, str(kwargs["uid"]), int(kwargs["session_id"])
        if uid not in self._making:
            self._making[uid] = asyncio.ensure_future(self._make(sampling_params, width, kwargs)), []
        making, sessions = self._making[uid]
        sessions.append(session)
        if len(sessions) == width:
            del self._making[uid]
        group = await making
        response = group.responses[session % len(group.responses)]
        return AgentLoopOutput(
            prompt_ids=group.prompt,
            response_ids=response,
            response_mask=[1] * len(response),
            num_turns=2,
            metrics=AgentLoopMetrics(),
            extra_fields={**group.fields, "turn_scores": [], "tool_rewards": []},
        )

    async def _make(self, sampling_params: dict[str, Any], width: int, asked: dict[str, Any]) -> BeamGroup:
        layout = AnchorTokens.of(asked.get("extra_info"))
        if not layout.answers or layout.codes is None:
            raise SignalError("extra_info: no anchor to lay answers out by; run recast-train export verl again")
        answer, (first, levels) = list(layout.answers[0]), layout.codes
        prompt = await self.ct_build_initial_tokens(list(asked["raw_prompt"]))
        start = answer[:first]
        if layout.thought_end is not None:
            room = self.rollout_config.response_length - len(answer)
            limits = {"max_tokens": room, "stop_token_ids": [layout.thought_end]}
            output = await self._ask(prompt, {**sampling_params, **limits})
            ended_S = layout.thought(torch.tensor(output.token_ids))
            if ended_S is None:
                return BeamGroup(prompt, [list(output.token_ids)], self._fields)
            start = [*ended_S.tolist(), *start]
        codes = await widest_beam(self._next_tokens, [*prompt, *start], width, levels)
        responses = [[*start, *own, *answer[first + levels :]] for own in codes]
        return BeamGroup(prompt, responses, self._fields)

    async def _next_tokens(self, prefix: list[int], count: int) -> Likely:
        asked = {"temperature": 1.0, "max_tokens": 1, "prompt_logprobs": count}
        said = (await self._ask([*prefix, _ANY_TOKEN], asked)).extra_fields
        ids, logprobs = (said[name][-2] for name in _SCORES)  # the last place is verl's filler
        return list(zip(ids, logprobs, strict=True))

    async def _ask(self, prompt: list[int], sampling_params: dict[str, Any]) -> Any:
        output = await self.server_manager.generate(request_id=uuid4().hex, prompt_ids=prompt, sampling_params=sampling_params)
        self._fields = {name: value for name, value in output.extra_fields.items() if name not in _SCORES}
        return output
