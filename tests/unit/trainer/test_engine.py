from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ratchet.data.example import Example, Message
from ratchet.inference.chat_template import chat_template
from ratchet.inference.model_folder import check_folder, weights_digest
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from trainer.config import create_default_config
from trainer.core import TrainerEngine, TrainingResult
from trainer.monitoring import TrainingStatusWriter
from trainer.segment import ErrorKind
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.examples import sums, write_examples

Train = Callable[..., TrainingResult]


def test_the_documented_snippet_trains_and_names_its_checkpoint(tmp_path: Path) -> None:
    data = write_examples(tmp_path / "sums.jsonl", sums(40))
    engine = TrainerEngine(TrainingStatusWriter(tmp_path / "status.json"))

    result = engine.run_job(create_default_config(data, tmp_path / "run"))

    assert result.success, result.error_message
    assert result.finished
    assert result.final_loss > 0
    assert result.last_checkpoint_path == str(tmp_path / "run" / "final_model")
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["step"], status["examples_done"]) == ("finished", result.global_step, 40)


def test_training_lowers_the_loss_and_answers_end(train: Train, tmp_path: Path) -> None:
    question = "3+4="
    rows = [Example.ask(question, "3+4=7")] * 320
    result = train(
        write_examples(tmp_path / "one.jsonl", rows), hyperparams__schedule="constant", hyperparams__learning_rate=3e-3
    )

    curve = [loss for _, loss in result.summary["loss_curve"]]
    assert curve[-1] < 0.1 < curve[0]
    tokenizer = AutoTokenizer.from_pretrained(result.last_checkpoint_path)
    model = AutoModelForCausalLM.from_pretrained(result.last_checkpoint_path)
    prompt = torch.tensor(chat_template(tokenizer).prompt_ids([[Message(role="user", content=question)]]))
    answer = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20)[0, prompt.shape[1] :]
    assert tokenizer.decode(answer) == "3+4=7<|im_end|>"


def test_the_checkpoint_is_a_folder_that_transformers_can_load(train: Train, sum_file: Path) -> None:
    result = train(sum_file)
    folder = Path(str(result.last_checkpoint_path))

    check_folder(folder)
    assert {"model.safetensors", "config.json", "generation_config.json", "chat_template.jinja"} <= {
        file.name for file in folder.iterdir()
    }
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o644 for file in folder.iterdir())
    assert weights_digest(folder) == result.summary["weights"]
    config = json.loads((folder / "config.json").read_text())
    assert config["use_cache"] is True
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>")


def test_fewer_rows_than_a_batch_train(train: Train, tmp_path: Path) -> None:
    result = train(write_examples(tmp_path / "few.jsonl", sums(3)), hyperparams__batch_size=32)
    assert (result.success, result.finished, result.global_step) == (True, True, 1)


def test_accumulation_takes_the_same_step_as_one_large_batch(train: Train, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "sums.jsonl", sums(30, longest=6))
    whole = train(data, "whole", hyperparams__batch_size=16)
    split = train(data, "split", hyperparams__batch_size=4, hyperparams__gradient_accumulation=4)
    weights = [
        AutoModelForCausalLM.from_pretrained(result.last_checkpoint_path).state_dict() for result in (whole, split)
    ]
    assert whole.global_step == split.global_step == 2
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=2e-5)


def test_a_run_repeats_bit_by_bit(train: Train, sum_file: Path) -> None:
    first, second = train(sum_file, "first"), train(sum_file, "second")
    assert first.summary["weights"] == second.summary["weights"]
    assert train(sum_file, "third", data__seed=7).summary["weights"] != first.summary["weights"]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_learns_and_its_weights_are_saved_in_the_precision_of_the_base(
    train: Train, sum_file: Path, precision: str, dtype: torch.dtype
) -> None:
    seen: Counter[torch.dtype] = Counter()

    def note(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Linear) and module.training:
            seen.update([output.dtype])

    told = {"monitoring__logging_steps": 1, "monitoring__preview_backend": "none"}
    hook = register_module_forward_hook(note)
    result = train(sum_file, **told, hyperparams__fp_precision=precision)
    hook.remove()
    assert result.success, result.error_message
    assert set(seen) == {dtype}, "computed in 16 bits"
    assert result.summary["loss_curve"][-1][1] < result.summary["loss_curve"][0][1]
    model = AutoModelForCausalLM.from_pretrained(result.last_checkpoint_path, dtype="auto")
    assert model.dtype == torch.float32
    assert not (Path(str(result.state_path)) / "master.safetensors").exists(), "the checkpoint has all bits"


def test_every_token_is_counted_once(train: Train, sum_file: Path) -> None:
    one = train(sum_file, "one")
    many = train(sum_file, "many", hyperparams__batch_size=3)
    assert one.summary["tokens"] == many.summary["tokens"]
    assert one.summary["trained_tokens"] == many.summary["trained_tokens"]


def test_a_failure_is_a_result_with_its_kind(train: Train, sum_file: Path, tmp_path: Path) -> None:
    cases = {
        ErrorKind.DATA: {"data__dataset_path": tmp_path / "absent.jsonl"},
        ErrorKind.SETTINGS: {"profile__name": "unheard_of"},
        ErrorKind.MODEL: {"model__path": str(tmp_path)},
        ErrorKind.RESUME: {"output__resume_from": tmp_path},
    }
    for kind, settings in cases.items():
        result = train(sum_file, kind.value, **settings)
        assert (result.success, result.error_kind) == (False, kind), result.error_message
        assert json.loads((tmp_path / f"{kind.value}.status.json").read_text())["state"] == "failed"


def test_a_step_whose_gradients_do_not_fit_in_fp16_is_skipped_and_is_no_divergence(
    train: Train, sum_file: Path
) -> None:
    """The scale is too large at first: gradients are infinite, and it is halved until they are not.

    Steps, rows and learning rate advance meanwhile: a run that is stopped after that ends with the same bits.
    """
    settings = {"hyperparams__fp_precision": "fp16", "monitoring__logging_steps": 1}
    begun = train(sum_file, "begun", **settings, stop_after=1)
    assert begun.summary["steps_skipped"] == 0
    state = Path(str(begun.state_path)) / "state.json"
    scaler = torch.amp.GradScaler("cpu").state_dict() | {"scale": 2.0**20}
    state.write_text(json.dumps(json.loads(state.read_text()) | {"scaler": scaler}))

    straight = train(sum_file, "straight", **settings, after=begun)
    first = train(sum_file, "first", **settings, after=begun, stop_after=8)
    second = train(sum_file, "second", **settings, after=first)
    assert straight.success, straight.error_message
    skipped = straight.summary["steps_skipped"]
    assert 0 < skipped == first.summary["steps_skipped"] < 8
    assert (straight.global_step, straight.summary["offset"], straight.finished) == (13, 100, True)
    assert json.loads((Path(str(first.state_path)) / "state.json").read_text())["scaler"]["scale"] == 2.0 ** (
        20 - skipped
    )
    curve = dict(straight.summary["loss_curve"])
    assert curve[13] < curve[2]
    assert second.summary["weights"] == straight.summary["weights"]


def test_rows_longer_than_the_limit_are_left_out_and_named(train: Train, tmp_path: Path) -> None:
    rows = sums(20)
    rows[4] = Example.ask("1+1=", "2" * 200)
    result = train(write_examples(tmp_path / "long.jsonl", rows), hyperparams__max_length=100)
    assert result.finished
    assert (result.summary["rows"], result.summary["lines_too_long"]) == (19, [5])


def test_a_limit_beyond_the_models_context_is_refused(train: Train, sum_file: Path) -> None:
    result = train(sum_file, hyperparams__max_length=8192)
    assert result.error_kind is ErrorKind.SETTINGS
    assert "context length of 1024" in str(result.error_message)


def test_gradient_clipping_follows_the_setting(train: Train, sum_file: Path) -> None:
    """Below AdamW's epsilon a gradient moves hardly anything."""
    told = {"hyperparams__max_steps": 4, "hyperparams__schedule": "constant", "monitoring__logging_steps": 1}
    usual, stifled = (
        train(sum_file, name, **told, hyperparams__max_grad_norm=norm) for name, norm in (("usual", 1.0), ("no", 1e-12))
    )
    falls = [run.summary["loss_curve"][0][1] - run.summary["loss_curve"][-1][1] for run in (usual, stifled)]
    assert usual.summary["weights"] != stifled.summary["weights"]
    assert falls[0] > falls[1]


def test_output_folder_and_logging_follow_the_settings(train: Train, sum_file: Path, tmp_path: Path) -> None:
    told = {"hyperparams__max_steps": 4, "output__output_dir": tmp_path / "there", "monitoring__logging_steps": 2}
    result = train(sum_file, **told)
    assert Path(str(result.last_checkpoint_path)).is_relative_to(tmp_path / "there")
    assert [step for step, _ in result.summary["loss_curve"]] == [2, 4]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_gradient_checkpointing_follows_the_setting(train: Train, sum_file: Path) -> None:
    def passes(gradient_checkpointing: bool) -> int:
        seen: Counter[str] = Counter()
        hook = register_module_forward_pre_hook(
            lambda module, _: seen.update([type(module).__name__] * module.training)
        )
        told = {"model__gradient_checkpointing": gradient_checkpointing, "monitoring__preview_backend": "none"}
        assert train(sum_file, f"run-{gradient_checkpointing}", **told, hyperparams__max_steps=1).success
        hook.remove()
        return seen["Qwen3Attention"]

    assert passes(True) == 2 * passes(False)
