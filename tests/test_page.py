"""The page of ``rsd serve``: its files, its policy, and a person's way through it in a real browser."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, browsing
from server_support import QUESTION, Server, endless_flags, served
from test_server_limits import OWN
from tiny import chain, write_script

from rsd_local.catalogue import find_trio

FOLDER = Path(__file__).parents[1] / "rsd_local" / "server" / "page"
KATEX = "0.19.1"
in_browser = pytest.mark.skipif(CHROMIUM is None or os.name != "posix", reason="needs Chromium: apt-get install chromium")
DONE = "document.querySelector('.turn:last-child .foot button') && !running"
HOSTILE = [
    "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'> & <b>bold</b> ",
    "\\(\\href{javascript:window.hacked=1}{x}\\) \\(\\htmlStyle{color:red}{y}\\) \\(\\rule{9999em}{9999em}\\) \\(\\frac{1}{2\\) ",
    "[x](javascript:window.hacked=1) $5 and $6\n\n",
    "Sum $x^2$, \\(\\tfrac12\\), $$\\sum_{k=1}^{n} k$$ \\[\\int_0^1 x\\,dx\\] **done** \\boxed{\\frac{3}{4}}\n\n",
    "W" + "ORD" * 200 + " \\(" + "+".join(f"a_{{{n}}}" for n in range(60)) + "\\)\n\n",
    "```html\n<i>" + "long " * 60 + "</i>\n\n</script>\n```\n\n",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 5+5\n\n",
    "End.",
]
"""What a model may write: markup, formulas that want more than they may, long words, code, and a text from right to left."""


@pytest.fixture(scope="module")
def abacus() -> Iterator[Server]:
    with served("--parallel", "2") as server:
        yield server


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(*endless_flags(tmp_path_factory.mktemp("endless")), "--parallel", "1", "--queue", "1", "--alias", "endless") as server:
        yield server


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Draft and target write the same, and every step of the draft is rejected."""
    folder = tmp_path_factory.mktemp("hostile")
    file = write_script(folder / "hostile.gguf", HOSTILE, chain(*HOSTILE))
    flags = ["-md", file, "-m", file, "--reward-kind", "confidence", "-t", "1", "-c", "512", "--alias", "hostile"]
    with served(*flags, "--weighting", "constant", "--probability", "0") as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("browser")) as page:
        yield page


def fresh(page: Page, server: Server, width: int = 1280) -> Page:
    """The page of a server without a conversation, ready to ask."""
    page.window(width)
    if page.js("location.href") != f"{server.url}/":
        page.open(f"{server.url}/")
        page.wait("document.querySelector('#name').textContent")
    page.js("state.turns = []; state.threshold = null; state.model = server.models[0]; $('question').value = state.question = ''")
    page.js("notify(''); showAll(); showServer(); say('')")
    page.problems.clear()
    page.bodies.clear()
    return page


def ask(page: Page, question: str = QUESTION, *, wait: bool = True) -> None:
    page.js("document.querySelector('#question').focus()")
    page.type(question)
    page.press("Enter")
    page.wait(DONE if wait else "running")


def metas(page: Page) -> list[str]:
    """Author and reward of the last answer's steps."""
    return page.each(".turn:last-child .step > .meta", "e.innerText.replace(/\\s+/g, ' ')")


def test_the_page_comes_with_a_policy_that_lets_it_ask_nobody_else(abacus: Server) -> None:
    response = abacus.client.get("/")
    assert response.status_code == 200 and response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == policy["font-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["trusted-types"] == "'none'"
    for name in ("script-src", "style-src"):
        assert re.fullmatch(r"'self' 'sha256-[A-Za-z0-9+/]{43}='", policy[name]), "only its own, and no unsafe-inline"
    assert response.headers["x-content-type-options"] == "nosniff" and response.headers["referrer-policy"] == "no-referrer"
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*['\"]?(?:https?:)?//", response.text), "an address elsewhere"
    assert "innerHTML" not in response.text and "insertAdjacentHTML" not in response.text


def test_its_files_are_served_by_name_and_nothing_beside_them(abacus: Server) -> None:
    css = abacus.client.get("/page/katex/katex.min.css")
    assert css.headers["content-type"].startswith("text/css")
    fonts = re.findall(r"url\((fonts/[\w-]+\.woff2)\)", css.text)
    assert len(set(fonts)) == 20
    for font in fonts:
        response = abacus.client.get(f"/page/katex/{font}")
        assert response.headers["content-type"] == "font/woff2" and response.content[:4] == b"wOF2"
    script = abacus.client.get("/page/katex/katex.min.js")
    assert f'version:"{KATEX}"' in script.text and script.headers["content-type"].startswith("text/javascript")
    again = abacus.client.get("/page/katex/katex.min.js", headers={"if-none-match": script.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert abacus.client.head("/").status_code == 200 and abacus.client.post("/").status_code == 405
    for wrong in ("__init__.py", "index.html.bak", "katex/LICENSE", "../guard.py", "..%2fguard.py", "katex/", "", "%00", "x" * 3000):
        assert abacus.client.get(f"/page/{wrong}").status_code == 404, wrong


def test_katex_has_its_licences_beside_it() -> None:
    assert "Khan Academy" in (FOLDER / "katex" / "LICENSE").read_text() and KATEX in (FOLDER / "katex" / "README.md").read_text()
    assert "SIL OPEN FONT LICENSE" in (FOLDER / "katex" / "fonts" / "OFL.txt").read_text()


def test_the_page_needs_no_key_but_a_host_that_is_served(tmp_path: Path, abacus: Server) -> None:
    (tmp_path / "keys").write_text("secret\n")
    with served("--api-key-file", tmp_path / "keys") as server:
        for path, status in (("/", 200), ("/page/katex/katex.min.js", 200), ("/v1/models", 401), ("/props", 401)):
            assert server.client.get(path).status_code == status, path
    assert abacus.client.get("/", headers={"host": "rebound.example"}).status_code == 403
    own, other = ({"origin": origin} for origin in (abacus.url, "http://page.example"))
    assert abacus.client.get("/", headers=own).status_code == 200 and abacus.client.get("/", headers=other).status_code == 403


@in_browser
def test_an_answer_shows_who_wrote_which_step_and_why(browser: Page, abacus: Server) -> None:
    browser.open("about:blank")
    browser.requests.clear()
    page = fresh(browser, abacus)
    ask(page)
    assert [meta.split()[0] for meta in metas(page)] == ["draft", "target", "draft", "draft"]
    assert re.fullmatch(r"draft reward 0\.\d+", metas(page)[0])
    assert page.each(".step .content > .body")[:3] == ["37+48=85", "85*6=510", "510-129=381"]
    assert page.each(".step:last-child annotation", "e.textContent") == ["\\boxed{381}"]
    assert page.text("#share") == "25%" and re.fullmatch(r"[\d.]+", page.text("#rate")) and page.text("#saved") == "62%"
    assert "4 steps, 1 by the target (25%)" in page.text(".foot")
    colours, styles = (page.each(".step", f"getComputedStyle(e).borderLeft{what}")[:2] for what in ("Color", "Style"))
    assert colours[0] != colours[1] and styles == ["solid", "double"]
    assert page.problems == [] and all(url.startswith((abacus.url, "data:image")) for url in page.requests)
    assert any("KaTeX_Main" in url for url in page.requests)


@in_browser
def test_a_rejected_step_is_folded_and_opens_by_mouse_and_keyboard(browser: Page, abacus: Server) -> None:
    page = fresh(browser, abacus)
    ask(page)
    shown = "document.querySelector('.rejected .body').checkVisibility()"
    assert "rejected" in page.text(".rejected summary") and not page.js(shown)
    page.click(".rejected summary")
    page.wait(shown)
    assert page.text(".rejected .body") == "85*6=570"
    page.js("document.querySelector('.rejected summary').focus()")
    page.press("Enter")
    page.wait(f"!{shown}")


@in_browser
def test_a_second_turn_sends_the_first_and_a_reload_shows_both(browser: Page, abacus: Server) -> None:
    page = fresh(browser, abacus)
    ask(page)
    ask(page, "12*3+4")
    sent = json.loads(page.bodies[-1])["messages"]
    assert [one["role"] for one in sent] == ["user", "assistant", "user"] and "\\boxed{381}" in sent[1]["content"]
    page.type("half a quest")
    before = page.text("#talk")
    page.reload()
    page.wait("document.querySelector('#name').textContent")
    assert page.text("#talk") == before and "12*3+4" in before and page.js("document.querySelector('#question').value") == "half a quest"
    assert page.js("localStorage.length") == 0 and page.problems == []


@in_browser
def test_the_threshold_and_the_strategy_reach_the_run(browser: Page, abacus: Server) -> None:
    page = fresh(browser, abacus)
    assert page.each("#model option", "e.text")[:2] == ["rsd (default)", "target"]
    assert float(page.js("document.querySelector('#threshold').value")) == pytest.approx(find_trio("abacus").threshold)
    for key, share, value in (("Home", "0%", 0), ("End", "100%", 1)):
        page.js("document.querySelector('#slider').focus()")
        page.press(key)
        assert float(page.js("document.querySelector('#threshold').value")) == value
        ask(page)
        assert page.js("state.turns.at(-1).failure") is None
        assert page.text("#share") == share and json.loads(page.bodies[-1])["rsd"]["threshold"] == value
    page.click("#default")
    page.js("m = document.querySelector('#model'); m.value = 'abacus:target'; m.dispatchEvent(new Event('change'))")
    assert page.js("document.querySelector('#slider').disabled")
    ask(page)
    assert set(metas(page)) == {"target"} and page.text("#saved") == "0%"
    assert "threshold" not in json.loads(page.bodies[-1])["rsd"]
    page.reload()
    page.wait("document.querySelector('#name').textContent")
    assert page.js("document.querySelector('#model').value") == "abacus:target"


@in_browser
def test_copy_export_a_new_conversation_and_back(browser: Page, abacus: Server) -> None:
    page = fresh(browser, abacus)
    page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    ask(page)
    page.click(".foot button")
    page.wait("document.querySelector('.foot button').textContent === 'Copied'")
    assert page.js("navigator.clipboard.readText()") == "37+48=85\n\n85*6=510\n\n510-129=381\n\n\\boxed{381}"
    page.click("#export")
    abacus.eventually(lambda: bool(list(page.downloads.glob("*.json"))), 10)
    (file,) = page.downloads.glob("*.json")
    content: dict[str, Any] = json.loads(file.read_text())
    (turn,) = content["turns"]
    assert turn["question"] == QUESTION and turn["end"]["answer"] == "381" and turn["usage"]["completion_tokens"] == 36
    assert [step["author"] for step in turn["steps"]] == ["draft", "target", "draft", "draft"]
    assert turn["steps"][1]["rejected"][0]["text"] == "85*6=570\n\n" and content["server"]["name"] == "abacus"
    page.click("#new")
    assert page.text("#talk") == "" and page.js("document.querySelector('#export').disabled")
    page.click("#notice button")
    assert "381" in page.text("#talk") and page.js("document.querySelector('#notice').hidden")
    page.click("#new")
    page.reload()
    page.wait("document.querySelector('#name').textContent")
    assert page.text("#talk") == "" and page.problems == []


@in_browser
@pytest.mark.parametrize("way", ["Escape", "button"])
def test_stop_keeps_what_is_accepted_and_frees_the_place(browser: Page, endless: Server, way: str) -> None:
    endless.eventually(lambda: endless.figure("rsd_running") == 0, 10)
    page = fresh(browser, endless)
    ask(page, "x", wait=False)
    page.wait("document.querySelector('.body')?.innerText.length > 40")
    assert endless.figure("rsd_running") == 1 and page.js("document.querySelector('#ask').disabled")
    page.press("Escape") if way == "Escape" else page.click("#stop")
    page.wait("!running")
    endless.eventually(lambda: endless.figure("rsd_running") == 0, 2)
    assert page.text(".state") == "Stopped." and page.text("#said") == "Stopped." and "a b a b" in page.text(".body")
    page.reload()
    assert page.text(".state") == "Stopped." and page.js("document.activeElement.id || 'body'") in ("question", "body")


@in_browser
def test_waiting_and_a_full_queue_are_said_in_words(browser: Page, endless: Server) -> None:
    endless.eventually(lambda: endless.figure("rsd_running") == endless.figure("rsd_waiting") == 0, 10)
    page = fresh(browser, endless)
    with ExitStack() as opened:
        streams = [opened.enter_context(endless.streaming())]
        next(streams[0])
        ask(page, "x", wait=False)
        page.wait("document.querySelector('.state').textContent === 'Waiting: 1 answer before this one.'")
        page.press("Escape")
        endless.eventually(lambda: endless.figure("rsd_waiting") == 0, 5)
        streams.append(opened.enter_context(endless.streaming()))
        next(streams[1])
        ask(page, "y")
        assert re.fullmatch(r"The queue is full\. Ask again in \d+ s\.", page.text(".turn:last-child .state"))
        assert page.js("document.querySelector('.turn:last-child .state').getAttribute('role')") == "alert"
    endless.eventually(lambda: endless.figure("rsd_running") == endless.figure("rsd_waiting") == 0, 10)
    page.js("[...document.querySelectorAll('.turn:last-child .foot button')].find(b => b.textContent === 'Ask again').click()")
    page.wait("document.querySelector('.turn:last-child .body')?.innerText.length > 10")
    page.press("Escape")
    page.wait("!running")
    assert page.js("document.querySelectorAll('.turn').length") == 2, "the turn that failed is replaced"


@in_browser
def test_loading_and_a_server_that_is_gone_are_said_in_words(browser: Page, tmp_path: Path) -> None:
    with served(tmp_path / "gate", code=OWN, ready=False) as server:
        browser.open(f"{server.url}/")
        browser.wait("document.querySelector('#notice').innerText === 'The models are being loaded.'")
        ask(browser)
        assert "still being loaded" in browser.text(".state")
        (tmp_path / "gate").touch()
        browser.wait("document.querySelector('#name').textContent && document.querySelector('#notice').hidden")
        ask(browser)
        assert browser.text("#share") == "25%" and json.loads(browser.bodies[-1])["messages"] == [{"role": "user", "content": QUESTION}]
        ask(browser, "who are you?")
        assert "not an arithmetic expression" in browser.text(".turn:last-child .state").lower()
        server.process.kill()
        server.process.wait()
        ask(browser)
        assert browser.text(".turn:last-child .state") == "The server does not answer. Is rsd serve still running?"


@in_browser
def test_a_server_that_ends_within_an_answer_is_said_in_words(browser: Page, tmp_path: Path) -> None:
    with served(*endless_flags(tmp_path)) as server:
        page = fresh(browser, server)
        ask(page, "x", wait=False)
        page.wait("document.querySelector('.body')?.innerText.length > 10")
        server.process.kill()
        page.wait("!running")
        assert "The connection broke" in page.text(".state") and "a b a b" in page.text(".body")


@in_browser
def test_a_key_is_asked_for_and_kept_in_the_tab_alone(browser: Page, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("clef-\u00e9\n", encoding="utf-8")
    with served("--api-key-file", tmp_path / "keys") as server:
        browser.open(f"{server.url}/")
        browser.wait("!document.querySelector('#key').hidden && document.activeElement.id === 'key-field'")
        assert browser.text("#notice") == "The server asks for an API key."
        browser.type("wrong")
        browser.press("Enter")
        browser.wait("document.querySelector('#notice').innerText === 'The server does not take this key.'")
        browser.type("clef-\u00e9")
        browser.press("Enter")
        browser.wait("document.querySelector('#key').hidden && document.querySelector('#name').textContent")
        ask(browser)
        assert browser.text("#share") == "25%"
        browser.reload()
        browser.wait("document.querySelector('#name').textContent")
        kept = browser.js("[localStorage.length, document.cookie, sessionStorage.getItem('rsd.conversation'), document.body.innerText]")
        assert kept[0] == 0 and kept[1] == "" and "clef" not in kept[2] + kept[3] and "381" in kept[2]


@in_browser
def test_what_a_model_writes_is_text_and_formulas_and_never_markup(browser: Page, hostile: Server) -> None:
    page = fresh(browser, hostile)
    ask(page, "<script>window.hacked=1</script>")
    assert page.text(".question .text") == "<script>window.hacked=1</script>"
    body = page.text(".step .content > .body")
    assert "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'> & <b>bold</b>" in body and "$5 and $6" in body
    assert "\\(\\frac{1}{2\\)" in body, "a formula that cannot be read stays as it was written"
    page.click(".rejected summary")
    assert "<script>window.hacked=1</script>" in page.text(".rejected .body")
    page.reload()
    made = ("script", "img", "iframe", "a", "i:not(.bar i)", "style", "[onerror]", "[href]")
    assert page.each(", ".join(f"#talk {one}" for one in made), "e.outerHTML") == [] and page.js("window.hacked") is None
    assert max(page.each("#talk .katex-rule", "e.offsetHeight")) < 1000
    formulas = page.each(".step:nth-child(2) .content > .body annotation", "e.textContent")
    assert formulas == ["x^2", "\\tfrac12", "\\sum_{k=1}^{n} k", "\\int_0^1 x\\,dx", "\\boxed{\\frac{3}{4}}"]
    assert len(page.each(".step:nth-child(2) .content > .body .katex-display")) == 2
    assert page.text(".step:nth-child(2) .content > .body strong") == "done"
    code = page.js("document.querySelector('.step:nth-child(4) .content > .body pre').innerText")
    assert code.startswith("<i>long ") and code.endswith("</script>"), "a blank line and markup stay in their block"
    assert page.problems == []


@in_browser
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_needs_scrolling_sideways(browser: Page, hostile: Server, width: int) -> None:
    page = fresh(browser, hostile, width)
    ask(page, "q" * 300)
    page.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.js("[document.documentElement.scrollWidth, innerWidth]")[0] <= width
    wide = "e.checkVisibility() && !e.closest('.body, .unseen') && e.getBoundingClientRect().right > innerWidth ? e.outerHTML : ''"
    assert not "".join(page.each("body *", wide))
    assert page.each(".content > .body", "getComputedStyle(e).direction") == ["ltr", "ltr", "ltr", "ltr", "rtl", "ltr"]


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_contrast(browser: Page, hostile: Server, scheme: str) -> None:
    page = fresh(browser, hostile)
    ask(page, "x")
    page.js("document.querySelectorAll('details').forEach(d => d.open = true); $('key').hidden = false; notify('trouble', true)")
    page.window(1280, scheme=scheme)
    page.wait("document.getAnimations().length === 0")
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "textbox", "combobox", "slider", "spinbutton", "DisclosureTriangle", "group", "form", "main", "article", "list"}
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"] and "role" in node]
    named = [(role, name) for role, name in found if role in controls - {"list", "group"}]
    assert len(named) > 12 and all(name for _, name in named), named
    assert {"combobox", "slider", "spinbutton", "textbox", "main", "form"} <= {role for role, _ in named}
    assert page.js(CONTRAST) == []


CONTRAST = """
(() => {
  const parse = c => (c.match(/[\\d.]+/g) ?? []).map(Number);
  const light = c => c.slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((all, v, i) => all + v * [.2126, .7152, .0722][i], 0);
  const ground = e => {
    const colour = parse(getComputedStyle(e).backgroundColor);
    return colour[3] === 0 ? ground(e.parentElement) : colour;
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest('.unseen, :disabled, .katex-mathml, script, style')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) found.push([e.outerHTML.slice(0, 80), (a + .05) / (b + .05)]);
  }
  return found;
})()
"""


@in_browser
def test_the_keyboard_reaches_every_control_and_shows_where_it_is(browser: Page, abacus: Server) -> None:
    page = fresh(browser, abacus)
    ask(page)
    page.js("document.activeElement.blur()")
    reached = []
    for _ in range(14):
        page.press("Tab")
        name = "(x => x.id || x.className)(e.closest('.rejected, .foot, [id]'))"
        reached += page.each(":focus", f"[{name}, getComputedStyle(e).outlineStyle]")
    wanted = {"export", "new", "help", "rejected", "foot", "question", "ask", "model", "slider", "threshold"}
    assert wanted <= {name for name, _ in reached}, reached
    assert {style for _, style in reached} == {"solid"}, reached


@in_browser
def test_a_live_answer_neither_jumps_nor_chatters_nor_moves_more_than_is_liked(browser: Page, abacus: Server) -> None:
    page = fresh(browser, abacus)
    page.window(1280, motion="reduce")
    page.js(
        "window.shift = 0; window.told = [];"
        "new PerformanceObserver(l => l.getEntries().forEach(e => shift += e.value)).observe({type: 'layout-shift'});"
        "new MutationObserver(() => told.push($('said').textContent)).observe($('said'), {childList: true, subtree: true})"
    )
    page.call("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=3000, uploadThroughput=-1)
    try:
        ask(page, wait=False)
        page.wait("document.querySelector('.step.draft.open .body')?.innerText")
        assert page.js("getComputedStyle(document.querySelector('.step.open')).borderLeftStyle") == "dashed"
        page.wait("document.querySelector('.rejected')")
        assert page.js("document.getAnimations().length") == 0
        page.call("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
        page.wait(DONE)
    finally:
        page.call("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    assert page.js("shift") < 0.05
    assert page.js("told") == ["The answer is being written.", "The answer is 381. 4 steps, 1 by the target."]
    assert page.js("[...document.querySelectorAll('#talk [aria-live], #talk[aria-live], #talk[role=log]')].length") == 0
