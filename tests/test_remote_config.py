"""A role on a server in files, flags and the catalogue; no server is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from remote_support import rsd

from rsd_local import RemoteRole, RoleConfig, Trio, read_trio
from rsd_local.bench.results import describe_trio
from rsd_local.catalogue import Catalogue, user_models_file
from rsd_local.errors import ConfigError
from rsd_local.segments import Segmenter

ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
DRAFT = f'draft.path = "{(ABACUS / "abacus-draft.gguf").as_posix()}"\nreward_kind = "confidence"\n'


def read(folder: Path, text: str) -> Trio:
    file = folder / "trio.toml"
    file.write_text(DRAFT + text)
    return read_trio(file)


def test_a_role_with_a_url_is_one_on_a_server(tmp_path: Path) -> None:
    trio = read(
        tmp_path,
        'on_failure = "draft"\n[target]\nurl = "http://desk:8080/v1/"\nmodel = "big"\napi_key_file = "key"\n'
        'connect_timeout = 2\nread_timeout = 30\nparameters = 72.7\napi = "llama-server"\n',
    )
    assert trio.target == RemoteRole("http://desk:8080", "big", "llama-server", "", tmp_path / "key", 2.0, 30.0, 72.7)
    assert trio.on_failure == "draft" and trio.files == (ABACUS / "abacus-draft.gguf",)
    assert trio.with_models(lambda role: RoleConfig(role.path, ctx_size=7)).target == trio.target


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('url = "http://desk"\npath = "x.gguf"', "path beside a url"),
        ('url = "http://desk"\nctx_size = 5', "ctx_size beside a url"),
        ('url = "http://desk"\nkey = "x"', "unknown key 'key'"),
        ('url = "http://desk"\napi = "grpc"', "api"),
        ('url = "http://desk"\nread_timeout = 0', "read_timeout 0.0 is outside"),
        ('url = "http://desk"\napi_key_env = "A"\napi_key_file = "b"', "api_key_env beside api_key_file"),
        ('url = "http://desk"\napi_key_env = "sk-abc"', "api_key_env is no name of a variable"),
        ('url = "desk"', "is no address of a server"),
        ("url = 5", "is not of the right kind"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        read(tmp_path, f"[target]\n{text}\n")
    assert "sk-abc" not in f"{caught.value} {caught.value.hint}"


def test_a_reward_model_may_be_on_a_server_too(tmp_path: Path) -> None:
    (tmp_path / "trio.toml").write_text(DRAFT.replace("confidence", "judge") + '[target]\npath = "x.gguf"\n[reward]\nurl = "http://desk"\n')
    trio = read_trio(tmp_path / "trio.toml")
    assert trio.reward == RemoteRole("http://desk") and trio.files == (ABACUS / "abacus-draft.gguf", tmp_path / "x.gguf")
    assert describe_trio(Trio(trio.draft, trio.draft, trio.reward, "judge"))["reward"] == {"url": "http://desk", "model": ""}


def test_flags_take_a_url_and_refuse_what_only_a_model_here_has(tmp_path: Path) -> None:
    def call(*words: str) -> tuple[int, str]:
        result = rsd("config", "--json", *words)
        return result.returncode, result.stdout or result.stderr

    code, text = call("--trio", "abacus", "-m", "http://desk:8080")
    found = {row["name"]: row["value"] for row in json.loads(text)}
    assert code == 0 and found["target.url"] == "http://desk:8080" and "target.path" not in found
    draft = str(ABACUS / "abacus-draft.gguf")
    assert call("-md", draft, "-m", "https://desk/", "--reward-kind", "confidence")[0] == 0
    for words, told in (
        (("-c", "target=512"), "the target is on a server"),
        (("--lora", "x.gguf"), "that model is on a server"),
        (("-m", "http://me:secret@desk"), "a url with a name or password"),
    ):
        code, text = call("--trio", "abacus", "-m", "http://desk:8080", *words)
        assert code == 2 and told in text and "secret" not in text.replace("--lora", "")


def test_a_bench_is_of_the_address_and_the_model_there(tmp_path: Path) -> None:
    made = describe_trio(read(tmp_path, '[target]\nurl = "http://desk"\nmodel = "big"\napi_key_env = "DESK_KEY"\n'))
    assert made["target"] == {"url": "http://desk", "model": "big"} and json.dumps(made)
    assert "on_failure" not in describe_trio(
        Trio(RoleConfig(ABACUS / "abacus-draft.gguf"), RoleConfig(ABACUS / "abacus-draft.gguf"), reward_kind="confidence")
    )


def test_a_users_own_target_on_a_server_takes_the_place_of_the_catalogues(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    user_models_file().parent.mkdir(parents=True, exist_ok=True)
    name = next(name for name, table in Catalogue.of_the_package().trios.items() if "model" in table["target"] and "reward" in table)
    user_models_file().write_text(f'[trio."{name}".target]\nurl = "http://desk"\nmodel = "big"\n')
    catalogue = Catalogue.read()
    trio = catalogue.trio(name)
    assert trio.target == RemoteRole("http://desk", "big") and "target" not in catalogue.models_of(name)
    assert catalogue.state(name)


def test_a_rewards_server_in_the_catalogue_names_a_model_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    user_models_file().parent.mkdir(parents=True, exist_ok=True)
    roles = "".join(f'{role}.path = "{(ABACUS / f"abacus-{role}.gguf").as_posix()}"\n' for role in ("draft", "target"))
    user_models_file().write_text(f'[trio.mine]\n{roles}[[trio.mine.reward]]\nkind = "judge"\nurl = "http://desk"\nmodel = "big"\n')
    catalogue = Catalogue.read()
    assert catalogue.trio("mine").stages[0].model == RemoteRole("http://desk", "big") and not catalogue.models_of("mine")
    assert catalogue.state("mine")


@pytest.mark.parametrize(
    ("delimiter", "text", "ends"),
    [
        ("paragraph", b"", ("\n\n", "\n\r\n")),
        ("line", b"a", ("\n", "\n\n", "\n\r\n", "```\n", "~~~\n")),
        ("paragraph", b"```python\n", ("```\n", "~~~\n")),
        ("paragraph", b"\\[ x\n", ("$$", "\\]")),
        ("text:STEP\\n", b"", ("STEP\n",)),
        ("tokens:5", b"", ()),
        ("re:a+", b"", None),
        ("sentence", b"", None),
    ],
)
def test_a_server_is_told_texts_that_stand_at_the_ends_of_steps(delimiter: str, text: bytes, ends: tuple[str, ...] | None) -> None:
    scan = Segmenter(delimiter).start()
    scan.feed(text) if text else None
    assert scan.ends == ends


def test_stop_strings_and_the_end_of_a_thought_are_among_them() -> None:
    scan = Segmenter("paragraph", ("STOP",), ("<think>", "</think>")).start()
    assert scan.ends == ("STOP", "</think>", "\n\n", "\n\r\n")
    counted = Segmenter("tokens:5").start()
    counted.feed(b"a")
    assert counted.tokens_left == 4 and scan.tokens_left is None
