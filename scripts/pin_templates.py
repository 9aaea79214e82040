"""Writes tests/templates/pinned.json anew: what transformers makes of the templates there, for the tests to compare with.

For developers; needs ``pip install transformers`` and nothing else of it than its renderer.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import transformers
from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = Path(__file__).parent.parent / "tests" / "templates"
TALKS = {
    "question": [("user", "What is 2+2?")],
    "system": [("system", "Be brief."), ("user", "What is 2+2?")],
    "turns": [("system", "Be brief."), ("user", "What is 2+2?"), ("assistant", "4"), ("user", "And <b>3</b>?\n\n é")],
}
DATES = ("%Y-%m-%d", "%d %B %Y", "%B %d, %Y")


def main() -> None:
    """Renders each template with each conversation, and thinking as the template has it, on and off."""
    pinned: dict[str, dict[str, str]] = {}
    for file in sorted(FOLDER.glob("*.jinja")):
        source = file.read_text(encoding="utf-8")
        for talk, messages in TALKS.items():
            for mode, asked in {
                "auto": {},
                "on": {"enable_thinking": True, "thinking": True},
                "off": {"enable_thinking": False, "thinking": False},
            }.items():
                talked = [{"role": role, "content": content} for role, content in messages]
                (text,), _ = render_jinja_template(
                    [talked], chat_template=source, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", **asked
                )
                for form in DATES:
                    text = text.replace(datetime.datetime.now().strftime(form), f"<<{form}>>")
                pinned.setdefault(file.stem, {})[f"{talk} {mode}"] = text
    content = {"transformers": transformers.__version__, "talks": TALKS, "texts": pinned}
    (FOLDER / "pinned.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
