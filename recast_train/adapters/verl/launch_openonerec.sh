#!/usr/bin/env bash
# An OpenOneRec-like RL run in verl >= 0.9 with recast's sampler: Qwen3, one node of 8 GPUs, vLLM. Its settings: recast/openonerec.yaml.
#
#   recast-train export verl data/openonerec --tokenizer MODEL --out data/verl --thought --before $'\n\n'
#   MODEL=checkpoints/qwen3-sid DATA=data/verl bash launch_openonerec.sh [--dry-run] [verl overrides]
#
# CONSTRUCTOR is any constructor that the sampler takes; grpo is the baseline. GPUS, NODES: cards of a node, nodes. TP: cards of one
# vLLM engine. With BEAM=1 a group is one thought and a beam of SIDs behind it, as OpenOneRec makes them; else rollouts are independent.
# --dry-run prints verl's command and what it would take, and starts nothing; CARD_GIB and TOKENS_PER_SECOND are for its estimates.
set -euo pipefail

: "${MODEL:?a local Qwen3 checkpoint whose tokenizer has the SID tokens}"
: "${DATA:?the folder that recast-train export verl wrote}"
PYTHON=${PYTHON:-python3}

dry=0
if [[ ${1:-} == --dry-run ]]; then
  dry=1
  shift
fi

arguments=(
  "hydra.searchpath=[pkg://recast_train.adapters.verl]"
  +recast=openonerec
  trainer.v1.sampler.sampler_kwargs.constructor="${CONSTRUCTOR:-recast}"
  actor_rollout_ref.model.path="$MODEL"
  data.train_files="$DATA/train.parquet"
  data.val_files="$DATA/validation.parquet"
  trainer.n_gpus_per_node="${GPUS:-8}"
  trainer.nnodes="${NODES:-1}"
  actor_rollout_ref.rollout.tensor_model_parallel_size="${TP:-1}"
)
if [[ ${BEAM:-0} == 1 ]]; then
  arguments+=(
    actor_rollout_ref.rollout.agent.agent_loop_config_path="$(cd "$(dirname "$0")" && pwd)/thought_beam.yaml"
    actor_rollout_ref.rollout.agent.default_agent_loop=recast_thought_beam
    +actor_rollout_ref.rollout.engine_kwargs.vllm.max_logprobs=32 # as wide as the beam
  )
fi

command=("$PYTHON" -m verl.trainer.main_ppo "${arguments[@]}" "$@")
if [[ $dry == 1 ]]; then
  printf '%q ' "${command[@]}"
  echo
  exec "$PYTHON" -m recast_train.adapters.verl.launch_forecast "${arguments[@]}" "$@"
fi
exec "${command[@]}"
