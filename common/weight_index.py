"""Which file of a model folder holds each tensor, as its index says."""

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
        if not isinstance(name, str) or not name or name != Path(name).name:
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
