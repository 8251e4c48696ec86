"""grpo, dr_grpo and rloo give the advantages that TRL's own trainers compute from the same rewards in a real step on CPU."""

import pytest
import torch

from recast_sim.signal import SignalConfig, construct

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers on its own options

P, G = 12, 4


def rewards():
    """Every hit count of binary groups, then graded and negative rewards."""
    binary = (torch.arange(G) < torch.arange(G + 1)[:, None]).float()
    graded = torch.randn(P - len(binary), G, generator=torch.Generator().manual_seed(0))
    return torch.cat([binary, graded])


@pytest.fixture(scope="module")
def trl_advantages(tmp_path_factory):
    """Function from a trainer's name and options to the (P, G) advantages of one training step with scripted rewards."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("trl")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0, "<eos>": 1, "a": 2, "b": 3}, unk_token="a"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
    shape = transformers.Qwen3Config(vocab_size=4, num_hidden_layers=1, max_position_embeddings=16, **size)

    def recorder(base):
        class Recorder(base):
            def _generate_and_score_completions(self, inputs):
                output = super()._generate_and_score_completions(inputs)
                self.recorded = output["advantages"].clone().reshape(P, G)  # before _prepare_inputs shuffles the rows
                return output

        return Recorder

    def step(method, **options):
        trainer = recorder(getattr(trl, f"{method}Trainer"))(
            model=transformers.Qwen3ForCausalLM(shape),
            processing_class=transformers.PreTrainedTokenizerFast.from_pretrained(folder),
            reward_funcs=lambda completions, **_: rewards().flatten().tolist(),
            train_dataset=datasets.Dataset.from_dict({"prompt": ["a b"] * P}),
            args=getattr(trl, f"{method}Config")(
                output_dir=str(folder / "run"),
                use_cpu=True,
                bf16=False,
                per_device_train_batch_size=P * G,
                num_generations=G,
                max_completion_length=2,
                max_steps=1,
                beta=0.0,
                **options,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            ),
        )
        trainer.train()
        return trainer.recorded

    return step


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [("grpo", "GRPO", {"scale_rewards": "group"}), ("dr_grpo", "GRPO", {"scale_rewards": "none"}), ("rloo", "RLOO", {})],
)
def test_advantages_are_trls_own(trl_advantages, name, method, options):
    ours = construct(name, rewards(), config=SignalConfig(std_eps=1e-4, std_ddof=1)).advantages_PG
    theirs = trl_advantages(method, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert (theirs.abs() > 0.1).any(1).sum() == P - 2  # all groups but the two without variance carry a signal
