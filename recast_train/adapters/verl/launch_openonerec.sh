#!/usr/bin/env bash
# An OpenOneRec-like RL run in verl >= 0.9 with recast's sampler: Qwen3, one node of 8 GPUs, vLLM.
#
#   recast-train export verl data/openonerec --tokenizer MODEL --out data/verl --thought --before $'\n\n'
#   MODEL=checkpoints/qwen3-sid DATA=data/verl bash launch_openonerec.sh [verl overrides]
#
# CONSTRUCTOR is any constructor that the sampler takes; grpo is the baseline. [C] is a value of the baseline's code, [S] of
# its launch script, as recast_train/recipes/openonerec.toml has them; the others are ours. Rollouts are independent, each with
# its own thought; with BEAM=1 a group is one thought and a beam of SIDs behind it [C]. docs/verl.md says what that costs.
set -euo pipefail

: "${MODEL:?a local Qwen3 checkpoint whose tokenizer has the SID tokens}"
: "${DATA:?the folder that recast-train export verl wrote}"
CONSTRUCTOR=${CONSTRUCTOR:-recast}
GPUS=${GPUS:-8}
PYTHON=${PYTHON:-python3}

ESTIMATOR=recast_$CONSTRUCTOR
if [[ $CONSTRUCTOR == recast ]]; then ESTIMATOR=recast; fi

selection=(
  algorithm.adv_estimator="$ESTIMATOR"
  algorithm.use_kl_in_reward=false
  trainer.v1.sampler.custom_sampler.path=pkg://recast_train.adapters.verl.sampler
  trainer.v1.sampler.custom_sampler.name=RecastReplayBuffer
  +trainer.v1.sampler.sampler_kwargs.constructor="$CONSTRUCTOR"
  reward.custom_reward_function.path=pkg://recast_train.adapters.verl.reward
  # an anchor was not sampled: it has no rollout log-probability, and none may be asked for
  actor_rollout_ref.rollout.calculate_log_probs=false
)

data=(
  data.train_files="$DATA/train.parquet"
  data.val_files="$DATA/validation.parquet"
  data.train_batch_size="$GPUS" # [C] one prompt a GPU
  data.max_prompt_length=10240  # [S]
  data.max_response_length=1040 # a thought of 1024 tokens [S], then the SID
  data.filter_overlong_prompts=true
)

actor=(
  actor_rollout_ref.model.path="$MODEL"
  actor_rollout_ref.model.enable_gradient_checkpointing=true # [S]
  actor_rollout_ref.actor.optim.lr=2e-6                      # [C]
  actor_rollout_ref.actor.optim.lr_warmup_steps=10           # [C]
  actor_rollout_ref.actor.optim.weight_decay=0.1             # [C]
  # prompts; verl multiplies by the group's 32. The smallest mini-batch that verl knows: [C] has one row a GPU
  actor_rollout_ref.actor.ppo_mini_batch_size=1
  actor_rollout_ref.actor.use_dynamic_bsz=true
  actor_rollout_ref.actor.clip_ratio_low=0.2    # [C]
  actor_rollout_ref.actor.clip_ratio_high=0.28  # [C]
  actor_rollout_ref.actor.use_kl_loss=true      # [C]
  actor_rollout_ref.actor.kl_loss_coef=0.001    # [C]
  actor_rollout_ref.actor.kl_loss_type=low_var_kl # [C]
  actor_rollout_ref.actor.loss_agg_mode=token-mean # the mean over the tokens of the rows that are left
)

rollout=(
  actor_rollout_ref.rollout.name=vllm
  actor_rollout_ref.rollout.n=32          # [C]
  actor_rollout_ref.rollout.temperature=1 # [C]
  actor_rollout_ref.rollout.tensor_model_parallel_size=1
  actor_rollout_ref.rollout.max_num_batched_tokens=16384
  actor_rollout_ref.rollout.val_kwargs.n=32
  actor_rollout_ref.rollout.val_kwargs.do_sample=true
  actor_rollout_ref.rollout.val_kwargs.temperature=1
)
if [[ ${BEAM:-0} == 1 ]]; then
  rollout+=(
    actor_rollout_ref.rollout.agent.agent_loop_config_path="$(cd "$(dirname "$0")" && pwd)/thought_beam.yaml"
    actor_rollout_ref.rollout.agent.default_agent_loop=recast_thought_beam
    +actor_rollout_ref.rollout.engine_kwargs.vllm.max_logprobs=32 # as wide as the beam
  )
fi

trainer=(
  trainer.project_name=recast
  trainer.experiment_name="openonerec-$CONSTRUCTOR"
  trainer.nnodes=1
  trainer.n_gpus_per_node="$GPUS"
  trainer.total_epochs=20 # [S]
  trainer.save_freq=50    # [S]
  trainer.test_freq=50    # [S]
  "trainer.logger=[console]"
)

exec "$PYTHON" -m verl.trainer.main_ppo "${selection[@]}" "${data[@]}" "${actor[@]}" "${rollout[@]}" "${trainer[@]}" "$@"
