"""The presets that are shipped, and the page about them: docs/recipes.md."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.child_process import SOURCE_ROOT
from common.config import Config
from common.config_file import load_config
from common.model_config import CONFIG
from launch.sizing.fit import gpus_needed, shares_gpu
from launch.sizing.server import PROCESS_BYTES, ServerMemory, server_memory
from launch.sizing.step_time import H100, Hardware, Workload, step_time
from learner.engine.memory import GIB, NEARLY, MemoryEstimate, estimate_memory
from learner.engine.model_shape import shape_of

COMMAND = "lzero config --recipes > docs/recipes.md"
"""What writes the page."""

PRESET_FOLDER = SOURCE_ROOT / "launch" / "presets"
_SHAPES = PRESET_FOLDER / "recipes" / "models.json"
_PAGE = Path(__file__).with_name("recipes.md")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A preset, below the folder of presets.

    Attributes:
        file: its name.
        mark: what is known of it; only what was really run says so.
        published: for which model and on how many GPUs its settings were published, if they were.
        model: which one it is, where its folder has another name.
    """

    file: str
    mark: Literal["run here", "measured on a GPU", "computed"] = "computed"
    published: str = ""
    model: str = ""

    @property
    def path(self) -> Path:
        """Of the file."""
        return PRESET_FOLDER / self.file


PRESETS = (
    Preset(file="quickstart.toml", mark="run here"),
    Preset(file="real.toml", mark="run here", model="SmolLM2-135M-Instruct"),
    Preset(file="recipes/qwen2.5-0.5b.toml"),
    Preset(file="recipes/qwen3-0.6b.toml", published="this model, 1 GPU"),
    Preset(file="recipes/qwen2.5-1.5b.toml"),
    Preset(file="recipes/qwen3-1.7b.toml"),
    Preset(file="recipes/qwen2.5-3b.toml"),
    Preset(file="recipes/qwen3-4b.toml", published="this model, 8 GPUs"),
    Preset(file="recipes/qwen2.5-7b.toml", published="this model, 16 GPUs"),
    Preset(file="recipes/qwen3-8b.toml"),
    Preset(file="recipes/qwen3-14b.toml"),
    Preset(file="recipes/qwen3-32b.toml", published="Qwen2.5-32B-Instruct, 64 GPUs"),
)


def description_of(config: Config, model: str = "") -> dict[str, Any]:
    """config.json of a preset's model: of the shipped folder, else its sizes as we know them.

    Args:
        config: of the preset.
        model: its name, if that of the folder is another.

    Raises:
        KeyError: the model is neither shipped nor known.
    """
    shipped = SOURCE_ROOT / config.model.path / CONFIG
    if config.model.path.startswith("launch/") and shipped.is_file():
        return dict(json.loads(shipped.read_text(encoding="utf-8")))
    known = json.loads(_SHAPES.read_text(encoding="utf-8"))
    return dict(known[model or Path(config.model.path).name])


def page() -> str:
    """docs/recipes.md."""
    rows = "".join(f"| {' | '.join(_row(preset, H100, Workload()))} |\n" for preset in PRESETS)
    return (
        _PAGE.read_text(encoding="utf-8")
        .replace("{command}", COMMAND)
        .replace("{table}", rows.rstrip("\n"))
        .replace("{assumed}", _assumed(H100, Workload()))
    )


def _row(preset: Preset, hardware: Hardware, work: Workload) -> tuple[str, ...]:
    config = load_config(preset.path)
    description = description_of(config, preset.model)
    on_gpu = config.model.path.startswith("models/")
    need = estimate_memory(description, config, on_gpu=on_gpu)
    server = server_memory(description, config, gpu=hardware.memory if on_gpu else None)
    size = shape_of(description).parameters
    return (
        f"[{Path(preset.file).stem}](../launch/presets/{preset.file})",
        f"{size / 1e9:.2f} B" if size >= 1e8 else f"{size / 1e6:.1f} M",
        _gpus(config) if on_gpu else "none",
        *(_on_gpus(config, server, need, hardware) if on_gpu else _on_cpu(config, server, need)),
        _seconds(description, config, hardware, work) if on_gpu else "",
        preset.published,
        preset.mark,
    )


def _gpus(config: Config) -> str:
    servers = config.policy_server
    server = "" if servers.count == 1 else f"{servers.count} x "
    server += str(servers.tensor_parallel)
    ranks = config.learner.ranks
    if shares_gpu(config):
        return f"{gpus_needed(config)}, shared"
    return f"{gpus_needed(config)}: {server} + {ranks}"


def _on_gpus(
    config: Config, server: ServerMemory, need: MemoryEstimate, hardware: Hardware
) -> tuple[str, str, str, str]:
    learner = sum(need.device.values())
    share = 1 - config.policy_server.gpu_memory_fraction if shares_gpu(config) else 1.0
    close = " (close)" if learner > NEARLY * share * hardware.memory else ""
    return (
        f"{(server.weights + server.working) / GIB:.0f} + {server.cache / GIB:.0f}",
        f"{server.contexts}",
        f"{learner / GIB:.0f}{close}",
        f"{config.learner.ranks * sum(need.host.values()) / GIB:.0f}",
    )


def _on_cpu(
    config: Config, server: ServerMemory, need: MemoryEstimate
) -> tuple[str, str, str, str]:
    learner = sum(need.device.values()) + sum(need.host.values())
    servers = config.policy_server.count * (server.weights + server.working + server.cache)
    total = servers + PROCESS_BYTES + learner
    return "", f"{server.contexts}", "", f"{total / GIB:.1f}"


def _seconds(
    description: dict[str, Any], config: Config, hardware: Hardware, work: Workload
) -> str:
    time = step_time(description, config, hardware, work)
    how = "+" if time.shared else "/"
    return f"{_round(time.total)} ({_round(time.learner)} {how} {_round(time.server)})"


def _round(seconds: float) -> str:
    """Two digits; the assumptions are worth no more."""
    return f"{float(f'{seconds:.2g}'):.0f}"


def _assumed(hardware: Hardware, work: Workload) -> str:
    return (
        f"GPUs {hardware.name}: {hardware.memory / GIB:.0f} GiB usable, "
        f"{hardware.flops / 1e12:.0f} TFLOP/s dense bfloat16 and {hardware.bandwidth / 1e12:.2f} "
        f"TB/s by their data sheet, of which {work.flops_share:.0%} are taken to be reached in "
        f"matrix products and {work.bandwidth_share:.0%} in decoding; "
        f"{hardware.copies / 1e9:.0f} GB/s to and from CPU memory, which does "
        f"{hardware.host_bandwidth / 1e9:.0f} GB/s; trajectories of {work.tokens} tokens, "
        f"{work.sampled} of them sampled"
    )
