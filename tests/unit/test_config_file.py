"""Every mistake in a configuration becomes one line that names file, key and what was expected."""

from pathlib import Path

import pytest

from actors.agent.prompt import load_template
from actors.rewards.scorer import Scorer
from common.config import Agent, Config, Rewards
from common.config_file import load_config, load_earlier_config, save_config
from common.errors import ConfigError

PRESETS = Path(__file__).resolve().parents[2] / "launch" / "presets"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == Config()


def test_overrides_win_over_the_file_and_keep_their_type(tmp_path: Path) -> None:
    path = write(tmp_path, "[learner]\ngroups = 4\n")

    config = load_config(path, ["learner.groups=6", "run.name=trial", "learner.learning_rate=1"])

    assert config.learner.groups == 6
    assert config.run.name == "trial"
    assert config.learner.learning_rate == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[learner]\ngroup = 4", r"unknown key 'learner.group'; did you mean 'learner.groups'\?"),
        ("[lerner]\ngroups = 4", r"unknown key 'lerner'; did you mean 'learner'\?"),
        ("[zzz]\na = 4", r"unknown key 'zzz'; known keys: actors, agent"),
        ("[learner]\ngroups = 'many'", r"learner.groups must be a whole number, got 'many'"),
        ("[learner]\ngroups = true", r"learner.groups must be a whole number, got true"),
        ("[learner]\ngroups = 0", r"learner.groups must be at least 1, got 0"),
        ("[model]\ndtype = 'int8'", r"model.dtype must be one of 'auto', 'float32', 'bfloat16'"),
        ("[objective.gspo]\nclip = [0.9]", r"objective.gspo.clip must be a list of 2 values"),
        ("[learner]\nlearner_rate = 1", r"'learner.learner_rate'; did you mean 'learner.learning_"),
        ("[model]\nchckpoints_kept = 1", r"'model.chckpoints_kept'; did you mean 'learner.check"),
        ("[[evaluation.suites]]\nname = 'a'", r"evaluation.suites\[0\].tasks is missing"),
        ("[[evaluation.suites]]\nnam = 'a'", r"did you mean 'evaluation.suites\[0\].name'"),
        ("[tools.mcp.a]\nurls = 'a'", r"'tools.mcp.a.urls'; did you mean 'tools.mcp.a.url'"),
        ("[tools.search]\nservice = 'x'", r"tools.search.service is 'x', but there is no \[serv"),
        ("[run]\nname = 7", r'run.name must be a string, got 7 \(a text stands in quotes: "7"\)'),
        ("learner = 3", r"learner must be a table, got 3"),
        ("[model]\nmax_context = 9999", r"learner.pack_tokens \(4096\) must be at least"),
        ("[rewards.terms]\nf1 = 'much'", r"rewards.terms.f1 must be a number, got 'much'"),
        ("[rewards]\nterms = 3", r"rewards.terms must be a table, got 3"),
        ("[rewards]\npreset = 'l0'", r"rewards.preset must be one of 'default', 'l0_v1', 'none'"),
        ("[rewards]\nlength_tokens = 0", r"rewards.length_tokens must be at least 1, got 0"),
        ("[run\n", r"cannot be parsed"),
        ("[run]\nseed = 1\nseed = 2", r"parsed: key 'seed' occurs twice, line 3$"),
        ("[agent]\ntools = []\n\ntools = [\n'a',\n]\n# x", r"key 'tools' occurs twice, line 4$"),
        ("[run]\nseed = 1\n[model]\n[run]\n", r"table 'run' occurs twice, line 4$"),
        ("run.seed = 1\nrun.seed = 2", r"key 'run.seed' occurs twice, line 2$"),
        ("run = {seed = 1, seed = 2}", r"Duplicate inline table key 'seed' \(at line 1"),
    ],
)
def test_a_mistake_names_the_key_and_what_was_expected(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path, text)

    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_may_name_a_key_of_a_table_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "[rewards.terms]\nf1 = 0.1\n")

    config = load_config(path, ['rewards.terms."my_agents.rewards:brevity"=-0.5'])

    assert config.rewards.terms == {"f1": 0.1, "my_agents.rewards:brevity": -0.5}


@pytest.mark.parametrize(
    "preset",
    sorted([*PRESETS.glob("*.toml"), *PRESETS.glob("recipes/*.toml")]),
    ids=lambda path: path.stem,
)
def test_a_shipped_preset_names_only_what_exists(preset: Path) -> None:
    config = load_config(preset)

    Scorer(config.rewards)
    load_template(config.agent.system_prompt)


@pytest.mark.parametrize(
    "override",
    ["groups=4", "learner.groups", "learner=4", ".groups=4", "learner..groups=4", "a b.c=4", "=4"],
)
def test_an_override_without_section_key_and_value_is_refused(
    tmp_path: Path, override: str
) -> None:
    with pytest.raises(ConfigError, match=r"must look like section.key=value"):
        load_config(write(tmp_path, ""), [override])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml does not exist"):
        load_config(tmp_path / "nowhere.toml")


def test_a_folder_is_not_called_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a file"):
        load_config(tmp_path)


def test_a_file_in_another_encoding_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[run]\nname = "é"\n', encoding="latin-1")

    with pytest.raises(ConfigError, match=r"run.toml, line 2 is not UTF-8: .*; save it as UTF-8"):
        load_config(tmp_path / "run.toml")


def test_a_file_is_laid_over_given_defaults_table_by_table(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[agent]\nmax_steps = 7\n\n[rewards.terms]\nf1 = 1.0\n")
    defaults = Config(
        agent=Agent(max_steps=9, max_observation_characters=77),
        rewards=Rewards(terms={"code": 2.0}),
    )

    config = load_config(tmp_path / "c.toml", defaults=defaults)

    assert (config.agent.max_steps, config.agent.max_observation_characters) == (7, 77)
    assert config.rewards.terms == {"code": 2.0, "f1": 1.0}


def test_a_key_that_occurs_twice_in_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"run": {"seed": 1, "seed": 2}}')

    with pytest.raises(ConfigError, match=r"run.json cannot be parsed: .*'seed' occurs twice"):
        load_config(tmp_path / "run.json")


def test_a_run_of_an_earlier_version_keeps_what_still_has_a_meaning() -> None:
    file = Path(__file__).resolve().parents[1] / "data" / "earlier_config.json"
    with pytest.raises(ConfigError, match=r"is no key any more|is now"):
        load_config(file)

    config = load_earlier_config(file)

    assert config.run.name == "quickstart"
    assert config.model.path == "/l-zero/launch/presets/warmstart"
    assert config.agent.max_steps == 5, "under its own name"
    assert config.tools.search.results == 7, "under its new name"
    assert config.tools.search.title_weight == 1.0, "as it was searched before there was the key"
    assert config.kernel.minimum_level != "unsafe"
    assert config.transport.listen == "", "a port of the loopback opens nothing to others"


def test_what_no_version_said_is_refused_in_an_earlier_configuration_too(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"agent": {"max_stepz": 5}}')

    with pytest.raises(ConfigError, match="max_stepz"):
        load_earlier_config(file)


def test_a_run_of_this_version_is_read_as_it_was_saved(tmp_path: Path) -> None:
    save_config(Config(), tmp_path / "config.json")
    assert load_earlier_config(tmp_path / "config.json") == Config()


def test_a_file_says_only_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", "[learner]\ngroups = 4\ngroup_size = 2\n[run]\nseed = 1")
    middle = tmp_path / "middle.toml"
    middle.write_text('extends = "below/run.toml"\n[learner]\ngroups = 5\n[agent]\ntools = ["a"]')
    path = write(tmp_path, 'extends = "middle.toml"\n[agent]\ntools = ["submit_final_answer"]')

    config = load_config(path, ["run.seed=7"])

    assert (config.learner.groups, config.learner.group_size) == (5, 2)
    assert config.agent.tools == ("submit_final_answer",)
    assert config.run.seed == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "run.toml"', r"run.toml: extends = 'run.toml' goes in a circle"),
        ('extends = "other.toml"', r"other.toml: extends = './run.toml' goes in a circle"),
        ('extends = "missing.toml"', r"missing.toml"),
        ("extends = 7", r"run.toml: extends must be the path of a file, got 7"),
        ("extends = []", r"run.toml: extends must be the path of a file, got \[\]"),
        ('extends = ""', r"run.toml: extends must be the path of a file"),
        ("extend = 'a'", r"unknown key 'extend'; known keys"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "other.toml").write_text('extends = "./run.toml"')

    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_a_key_of_an_extended_file_is_checked_as_well(tmp_path: Path) -> None:
    (tmp_path / "below.toml").write_text("[learner]\ngroup = 4")

    with pytest.raises(ConfigError, match=r"did you mean 'learner.groups'"):
        load_config(write(tmp_path, 'extends = "below.toml"'))


def test_a_key_that_may_be_one_of_the_command_line_is_not_put_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"with --set: unknown key 'learner\.stepps'"):
        load_config(write(tmp_path, ""), ["learner.stepps=3"])
