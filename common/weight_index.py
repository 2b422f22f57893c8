"""Which files of a model folder hold its weights, for the learner and for vLLM alike."""

from pathlib import Path

from common.errors import InputError
from common.model_config import read_json_object

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_index(folder: Path) -> dict[str, str]:
    """File name by tensor; every file lies in ``folder`` itself.

    Raises:
        InputError: the index is missing, cannot be read, or names a file that is not there; vLLM
            refuses such a folder too, also where ``model.safetensors`` lies beside it.
    """
    path = folder / INDEX
    files = read_json_object(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(f"'{path}' lacks its table 'weight_map' of file names by tensor")
    for tensor, name in files.items():
        if not isinstance(name, str) or name in ("", "..") or name != Path(name).name:
            raise InputError(
                f"'{path}': tensor {tensor!r:.80} is to lie in {name!r:.80}, which is not the name "
                "of a file in the folder"
            )
    missing = sorted({name for name in files.values() if not (folder / name).is_file()})
    if missing:
        beside = f", or delete the index if {WEIGHTS} is whole" * (folder / WEIGHTS).exists()
        raise InputError(
            f"'{path}' names {len(missing)} files that are not in the folder, the first is "
            f"'{missing[0]}'; bring them{beside}"
        )
    return files


def weight_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that hold the weights, sorted.

    vLLM takes the files that the index names, or all ``*.safetensors`` where there is no index, or
    only ``consolidated*`` where there are such; the learner goes by index or ``model.safetensors``.
    A folder for which that is not the same is refused.

    Raises:
        InputError: there are none, or it is not clear which; names the files.
    """
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    others = [name for name in found if name.startswith("consolidated")]
    if (folder / INDEX).is_file():
        names = tuple(sorted(set(read_index(folder).values())))
    elif WEIGHTS in found:
        names = (WEIGHTS,)
        others = [name for name in found if name != WEIGHTS]
    else:
        listed = f", only {', '.join(found[:3])}" if found else ""
        raise InputError(
            f"model folder '{folder}' has neither {WEIGHTS} nor {INDEX}{listed}; save the model "
            "with safetensors"
        )
    if others:
        raise InputError(
            f"model folder '{folder}' holds {others[0]} beside {names[0]}, and vLLM would load it "
            "too, or instead; move it away"
        )
    return names
