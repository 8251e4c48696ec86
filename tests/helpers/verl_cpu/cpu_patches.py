"""What `cpu_platform` cannot tell verl 0.9 and torch: a patch of a line each, loaded after it."""
# pyright: reportMissingImports=false

import sys

import torch
import torch.distributed.fsdp._init_utils as fsdp1
from verl.utils import distributed, fsdp_utils

# timeout_second, backend: verl would ask for "cpu:gloo,cpu:gloo", which names one device twice
distributed.initialize_global_process_group_ray.__defaults__ = (None, "gloo")
torch.Tensor.pin_memory = lambda self, *_: self  # the reference's weights are offloaded to pinned memory
fsdp1._check_module_states_for_sync_module_states = lambda states: None  # torch's FSDP1 broadcasts from a GPU alone
fsdp_utils.load_fsdp_model_to_gpu = lambda model: None  # verl's would build the device "cpu:cpu"
sys.modules["trl"] = None  # type: ignore[assignment]  # verl 0.9.1 asks an installed TRL for a class that TRL 1.16 no longer has

if (
    "vllm" in sys.modules
):  # a worker of vLLM, which loads verl for its weights: weights that oneDNN packed cannot be loaded again
    import vllm._custom_ops

    vllm._custom_ops._supports_onednn = False
