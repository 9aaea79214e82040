"""A process reward model that answers vLLM's ``/pooling``, against a stand-in of its published forms (``pooling_support``)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pooling_support import MODEL, TAG, Pooling, rewards
from remote_support import rsd
from test_rewards import said, scores_of

from rsd_local import Limits, Params, Reasoner, RemoteRole, RoleConfig, Trio, read_trio
from rsd_local.catalogue import find_trio
from rsd_local.config import SYSTEM_PROMPT
from rsd_local.errors import BadAnswer, ConfigError, ContextFull, RemoteRefused, RSDError, Unreachable
from rsd_local.prompt import Prompt
from rsd_local.remote import PoolingEngine

STEPS = ("One and one.\n\n", "It is 2.\n\n", "So 3.")
ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"


@pytest.fixture
def server() -> Iterator[Pooling]:
    with Pooling() as found:
        yield found


def trio(url: str, **settings: Any) -> Trio:
    chosen = find_trio("abacus").with_models(lambda role: dataclasses.replace(role, threads=1))
    role = RemoteRole(url, connect_timeout=1, read_timeout=10, parameters=7.07)
    return dataclasses.replace(chosen, reward=role, reward_kind="prm", **settings)


def wanted(question: str, *steps: str) -> list[float]:
    """The rewards of some steps, by the text of Qwen2.5-Math-PRM's card."""
    answer = "".join(step.strip() + TAG for step in steps)
    said = (("system", SYSTEM_PROMPT), ("user", question), ("assistant", answer))
    return rewards([{"role": role, "content": content} for role, content in said])


def test_each_step_is_scored_at_its_own_tag_and_costs_one_request(server: Pooling) -> None:
    with Reasoner.open(trio(server.url)) as opened, closing(opened.trio.reward(Prompt.of("What is 1+1?", "Be brief."))) as reward:
        server.asked.clear()
        assert scores_of(reward, *STEPS) == pytest.approx(wanted("What is 1+1?", *STEPS))
        assert len(server.asked) == 3 and all(body["task"] == "token_classify" and body["model"] == MODEL for body in server.asked)
        reward.forget()
        reward.read(said("Noted."))
        assert scores_of(reward, "On.") == pytest.approx(wanted("What is 1+1?", *STEPS[:2], "Noted.", "On.")[-1:])
        made = reward.counters()["reward"]
        assert (made.rounds, made.decode_calls, made.parameters) == (4, 4, 7_070_000_000)
        assert made.evaluated_tokens == made.prompt_tokens > 0 and made.seconds == 0 < made.waiting_seconds
        assert made.sent_bytes > 0 and made.received_bytes > 0


def test_all_steps_of_an_answer_are_one_request(server: Pooling) -> None:
    with Reasoner.open(trio(server.url)) as opened, closing(opened.trio.reward(Prompt.of("1+1"))) as reward:
        server.asked.clear()
        found = reward.start_scores([said(one) for one in STEPS], frozenset({0, 2})).result()
        assert len(server.asked) == 1 and found[1].skipped and reward.abilities.whole
        assert [found[0].value, found[2].value] == pytest.approx([wanted("1+1", *STEPS)[place] for place in (0, 2)])


def test_a_tag_that_somebody_wrote_is_none(server: Pooling) -> None:
    with Reasoner.open(trio(server.url)) as opened, closing(opened.trio.reward(Prompt.of(f"What is {TAG}?"))) as reward:
        scores_of(reward, f"It is {TAG} and {TAG}.", "Yes.")
    assert [message["content"].count(TAG) for message in server.asked[-1]["messages"]] == [0, 0, 2]


def test_numbers_that_are_no_shares_yet_go_through_the_softmax(server: Pooling) -> None:
    server.rows = lambda rows: [[1.5, 3.5] for _ in rows]
    with Reasoner.open(trio(server.url)) as opened, closing(opened.trio.reward(Prompt.of("1+1"))) as reward:
        assert scores_of(reward, "2.") == pytest.approx([1 / (1 + math.exp(-2))])
        server.rows = lambda rows: [[None, None] for _ in rows]
        assert reward.start_score(said("3.")).result().failed


@pytest.mark.parametrize(
    ("rows", "answer", "kind", "told"),
    [
        (lambda rows: [[0.5, 0.5]] * 7, None, BadAnswer, "gives 7 rows for 1 steps"),
        (lambda rows: [[0.1, 0.2, 0.7]], None, BadAnswer, "gives 3 numbers a step"),
        (lambda rows: "AAAA", None, BadAnswer, "no rows of numbers"),
        (None, (200, {"data": []}), BadAnswer, "no rows of numbers"),
        (None, (404, {"detail": "Not Found"}), RemoteRefused, r"has no /pooling \(404\)"),
        (None, (500, {"error": {"message": "EngineCore died", "code": 500}}), BadAnswer, "EngineCore died"),
        (
            None,
            (400, {"error": {"message": "This model's maximum context length is 4096 tokens. However, you requested 5000", "code": 400}}),
            ContextFull,
            "maximum context length",
        ),
    ],
)
def test_what_is_no_answer_is_one_line_before_the_first_question(
    server: Pooling, rows: Any, answer: Any, kind: type[RSDError], told: str
) -> None:
    server.rows, server.answer = rows or server.rows, answer
    with pytest.raises(kind, match=told) as caught:
        Reasoner.open(trio(server.url))
    assert "\n" not in str(caught.value)


def test_a_server_that_is_gone_ends_the_answer(server: Pooling) -> None:
    params = Params(limits=Limits(tokens=30))
    with Reasoner.open(trio(server.url, on_failure="draft")) as opened:
        server.answer = (500, {"error": {"message": "out of memory"}})
        with pytest.raises(BadAnswer, match="out of memory"):
            opened.solve("12+34", params)
        server.answer = None
        assert opened.solve("12+34", params).text
    with pytest.raises(Unreachable):
        Reasoner.open(trio("http://127.0.0.1:9"))
    with pytest.raises(RemoteRefused, match="has no model 'other'"):
        PoolingEngine(RemoteRole(server.url, "other"), "reward")


def test_several_questions_at_once_get_their_own_scores(server: Pooling) -> None:
    with Reasoner.open(trio(server.url, parallel=4)) as opened:

        def asked(number: int) -> list[float]:
            with closing(opened.trio.reward(Prompt.of(str(number)))) as reward:
                return scores_of(reward, *STEPS)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(asked, range(12))) == [pytest.approx(wanted(str(number), *STEPS)) for number in range(12)]


def test_solve_and_fit_take_it(server: Pooling) -> None:
    words = ("--trio", "abacus", "--reward-kind", "prm", "-mr", server.url, "-t", "draft=1", "-t", "target=1")
    solved = rsd("solve", *words, "-n", "40", "--threshold", "0.3", "--stats", "12+34")
    assert solved.returncode == 0 and MODEL in solved.stderr and "vLLM 0.19.0" in solved.stderr, solved.stderr
    fitted = rsd("fit", *words, "--measure")
    assert fitted.returncode == 0 and f"{MODEL} on {server.url} (vLLM 0.19.0), context 4096" in fitted.stdout, fitted.stderr


def test_a_rewards_table_says_how_it_is_read(tmp_path: Path) -> None:
    roles = f'draft.path = "{(ABACUS / "abacus-draft.gguf").as_posix()}"\ntarget.path = "t.gguf"\n'

    def read(text: str) -> Trio:
        (tmp_path / "trio.toml").write_text(roles + text)
        return read_trio(tmp_path / "trio.toml")

    one = read('[reward]\nkind = "prm"\nurl = "http://desk:8000"\nmodel = "prm"\napi_key_env = "DESK_KEY"\n')
    assert one.reward == RemoteRole("http://desk:8000", "prm", api_key_env="DESK_KEY") and one.stages[0].kind == "prm"
    several = read(
        '[[reward]]\nkind = "judge"\nurl = "http://desk:8080"\nparameters = 8\n'
        '[[reward]]\nkind = "tag-logits"\nlayout = "rlhflow"\npath = "p"\n'
    )
    assert several.stages[0].model == RemoteRole("http://desk:8080", parameters=8)
    assert several.stages[1].model == RoleConfig(tmp_path / "p") and several.with_models(lambda role: role) == several
    headed = read('[reward]\nkind = "value-head"\nurl = "http://desk"\nhead = "h.safetensors"\n')
    assert headed.stages[0].head == tmp_path / "h.safetensors"
    for text, told in (
        ('reward_kind = "judge"\n[reward]\nkind = "prm"\nurl = "http://desk"\n', "kind beside reward_kind"),
        ('[reward]\nkind = "prm"\npath = "p.gguf"\n', "prm is a model on a server"),
        ('[reward]\nkind = "judge"\nurl = "http://desk"\npath = "p.gguf"\n', "path beside a url"),
        ('[[reward]]\nkind = "judge"\nurl = "http://desk"\nctx_size = 5\n', "ctx_size beside a url"),
        ('[reward]\nkind = "confidence"\nurl = "http://desk"\n', "takes no reward model"),
        ('reward_kind = "prm"\n', "needs a reward model"),
    ):
        with pytest.raises(ConfigError, match=told):
            read(text)
