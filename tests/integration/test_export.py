"""What is exported is what was trained, and a folder that cannot be used is told apart."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from common.config import Learner
from launch.cli import main
from launch.models.import_check import CheckResult, check_import
from learner.checkpoints.state import Progress
from learner.engine.mesh import training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import full_state_dict, shard
from tests.saved_checkpoint import save_checkpoint
from tests.tiny_policy import FAMILIES
from tests.tiny_text_model import make_text_model

PROBE = torch.tensor([[5, 250, 3, 3, 77, 120]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints that trained in float32 and exports bfloat16."""
    folder = tmp_path_factory.mktemp("trained")
    make_text_model(folder / "model")
    with training_processes() as rank:
        model = shard(load_model(folder / "model"), rank, compute_dtype=torch.float32)
        optimizer = PolicyOptimizer(model, Learner(learning_rate=0.01))
        for step in (1, 2):
            for parameter in model.parameters():
                parameter.grad = torch.sin(9 * parameter.detach())
            optimizer.step()
            save_checkpoint(
                folder / "run" / "checkpoints",
                Progress(step=step, weight_version=step, ledger=b""),
                model, optimizer, rank,
                model_source=folder / "model", export_dtype=torch.bfloat16, keep=2,
            )  # fmt: skip
            torch.save(full_state_dict(model), folder / f"weights-{step}.pt")
    return folder


@pytest.fixture
def checkpoints(trained: Path, tmp_path: Path) -> Path:
    """The checkpoints of a copy of that run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run" / "checkpoints"


def logits_of_trained(tmp_path: Path, step: int) -> Tensor:
    """The stock model with the weights as they were in memory at that step."""
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    state = torch.load(tmp_path / f"weights-{step}.pt")
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"]
    assert not unexpected
    return logits(model)


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(PROBE).logits
    return result


@pytest.mark.parametrize("source", ["run", "run/checkpoints", "run/checkpoints/step-000002"])
def test_an_export_gives_the_logits_of_the_weights_in_memory_bit_for_bit(
    checkpoints: Path, tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / source), "--out", str(tmp_path / "out")]) == 0

    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert exported.dtype == torch.float32
    assert torch.equal(logits(exported), logits_of_trained(tmp_path, 2))
    assert "step-000002 (step 2)" in capsys.readouterr().out
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
        tmp_path / "model" / "tokenizer.json"
    ).read_bytes()


def test_an_earlier_checkpoint_another_type_and_several_files_can_be_asked_for(
    checkpoints: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    options = ["--dtype", "bfloat16", "--max-file-gb", "0.00001"]
    assert main(["export", str(checkpoints / "step-000001"), "--out", out, *options]) == 0

    exported = AutoModelForCausalLM.from_pretrained(out).state_dict()
    expected = torch.load(tmp_path / "weights-1.pt")
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    assert all(torch.equal(exported[n], tensor.bfloat16()) for n, tensor in expected.items())
    kept = load_file(checkpoints / "step-000001" / "hf" / "model.safetensors")
    assert all(torch.equal(kept[n], tensor.bfloat16()) for n, tensor in expected.items())


def test_of_a_run_whose_newest_checkpoint_is_damaged_the_one_before_is_exported(
    checkpoints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip(checkpoints / "step-000002" / "state" / "rank-00000.safetensors")

    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0

    assert "step-000002' is damaged: state/rank-00000.safetensors has checksum" in caplog.text
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits(exported), logits_of_trained(tmp_path, 1))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)


def spoil_all(checkpoints: Path) -> Path:
    for path in checkpoints.glob("*/ledger.bin"):
        path.unlink()
    return checkpoints


def spoil_one(checkpoints: Path) -> Path:
    flip(checkpoints / "step-000001" / "hf" / "config.json")
    return checkpoints / "step-000001"


def make_old(checkpoints: Path) -> Path:
    (checkpoints / "step-000002" / "checkpoint.json").write_text('{"format_version": 1}')
    return checkpoints


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (spoil_all, "none of the 2 checkpoints of"),
        (spoil_one, "step-000001' is damaged: hf/config.json has checksum"),
        (make_old, "has format version 1, but this program reads version 2"),
        (lambda folder: folder / "nowhere", "is no folder; expected a run or a checkpoint"),
        (lambda folder: folder.parent, "holds no finished checkpoint"),
        (lambda folder: folder.parents[1] / "model", "is a Hugging Face folder already"),
    ],
    ids=["all damaged", "this one damaged", "old format", "missing", "empty run", "model folder"],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    checkpoints: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], Path],
    said: str,
) -> None:
    source = change(checkpoints)
    if "holds no finished" in said:
        shutil.rmtree(checkpoints)

    assert main(["export", str(source), "--out", str(tmp_path / "out")]) == 2

    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not list(tmp_path.glob("out*"))


def test_an_export_never_overwrites(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("kept")

    assert main(["export", str(checkpoints), "--out", str(tmp_path / "out")]) == 2

    assert "exists and is not empty; name another folder with --out" in capsys.readouterr().err
    assert (tmp_path / "out" / "thesis.tex").read_text() == "kept"


# ---- import-check ----------------------------------------------------------------------------


def findings(folder: Path) -> dict[str, CheckResult]:
    return {finding.name: finding for finding in check_import(folder, with_vllm=False)}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_sound_folder_of_every_family_passes_all_checks(
    tmp_path: Path, family: str, tied: bool
) -> None:
    found = findings(make_text_model(tmp_path / "model", family, tied=tied))

    assert list(found) == ["config", "tensors", "tied weights", "tokenizer", "logits", "round trip"]
    assert all(finding.ok for finding in found.values()), found
    assert "with chat template" in found["tokenizer"].detail
    assert "264 embeddings" in found["tokenizer"].detail
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_command_prints_a_line_per_check_and_ends_with_1_if_one_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(make_text_model(tmp_path / "model"))
    assert main(["import-check", folder, "--no-vllm"]) == 0
    assert "ok   logits: largest difference" in capsys.readouterr().out

    edit(tmp_path / "model", lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    assert main(["import-check", folder, "--no-vllm", "--json"]) == 1
    rows = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert not rows["tensors"]["ok"]
    assert rows["tensors"]["detail"] == "model.layers.1.mlp.up_proj.weight is missing"


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def add_stranger(weights: dict[str, Tensor]) -> None:
    weights["model.stranger"] = torch.ones(1)


def misshape(weights: dict[str, Tensor]) -> None:
    weights["model.norm.weight"] = torch.ones(31)


def own_output(weights: dict[str, Tensor]) -> None:
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        (add_stranger, "tensors", "model.stranger is not of this model"),
        (misshape, "tensors", "model.norm.weight is [31], the config asks for [32]"),
        (own_output, "tied weights", "config says tied, but lm_head.weight differs"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], check: str, said: str
) -> None:
    folder = make_text_model(tmp_path / "model")
    edit(folder, change)

    finding = findings(folder)[check]

    assert not finding.ok
    assert finding.detail.startswith(said)


def test_a_tokenizer_that_transformers_reads_differently_is_found(tmp_path: Path) -> None:
    folder = make_text_model(tmp_path / "model")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"extra_special_tokens": ["question"]}))

    finding = findings(folder)["tokenizer"]

    assert not finding.ok
    assert "tokenizer.json and transformers encode 'The first question" in finding.detail


def test_a_folder_without_tokenizer_cannot_be_trained(tmp_path: Path) -> None:
    folder = make_text_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()

    assert findings(folder)["tokenizer"].detail.startswith("tokenizer.json is missing")


def test_numbers_that_are_none_are_no_agreement(tmp_path: Path) -> None:
    folder = make_text_model(tmp_path / "model")
    edit(folder, lambda weights: weights["model.norm.weight"].fill_(float("nan")))

    logits = findings(folder)["logits"]

    assert not logits.ok
    assert "not finite; nor are values of model.norm.weight" in logits.detail


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_text_model(tmp_path / "model")
    configure(folder, vocab_size=100)

    assert main(["import-check", str(folder)]) == 2

    assert "the tokenizer belongs to another model" in capsys.readouterr().err


def test_a_folder_of_another_family_or_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_text_model(tmp_path / "model")
    configure(folder, model_type="gpt2")

    assert main(["import-check", str(folder)]) == 2
    assert main(["import-check", str(tmp_path / "nowhere")]) == 2

    lines = capsys.readouterr().err.splitlines()
    first, second = [line for line in lines if line.startswith("lzero: ")]
    assert "is of family 'gpt2'; supported are" in first
    assert "nowhere' is not a folder" in second


@pytest.mark.vllm
@pytest.mark.nightly
def test_vllms_own_loader_takes_a_sound_folder_and_refuses_another(tmp_path: Path) -> None:
    folder = make_text_model(tmp_path / "model", tied=False)
    sound = {finding.name: finding for finding in check_import(folder, with_vllm=True)}
    assert sound["vllm"].ok, sound["vllm"].detail

    from launch.models.import_check import check_vllm

    edit(folder, add_stranger)
    refused = check_vllm(folder)

    assert not refused.ok
    assert "stranger" in refused.detail

    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}})
    )
    stale = check_vllm(folder)

    assert not stale.ok
    assert "model-00001-of-00002.safetensors" in stale.detail


def test_a_quantised_model_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_text_model(tmp_path / "model")
    configure(folder, quantization_config={"quant_method": "awq", "bits": 4})

    assert main(["import-check", str(folder)]) == 2

    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("lzero: ")]
    assert "the model is quantised (quantization_config)" in line


def test_a_file_that_only_transformers_reads_is_a_finding_and_no_traceback(tmp_path: Path) -> None:
    folder = make_text_model(tmp_path / "model")
    (folder / "tokenizer_config.json").write_bytes(b"\xef\xbb\xbf[")

    found = findings(folder)

    assert not found["tokenizer"].ok
    assert found["tokenizer"].detail.startswith("transformers cannot use the folder")
    assert found["round trip"].ok


def test_tables_that_nobody_reads_are_told_of_and_no_fault(tmp_path: Path) -> None:
    folder = make_text_model(tmp_path / "model", "llama")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit(folder, lambda weights: weights.update({name: torch.ones(4)}))

    found = findings(folder)

    assert all(finding.ok for finding in found.values()), found
    assert f"1 that nobody reads, such as {name}" in found["tensors"].detail
