"""Chat templates: jinja2 as Hugging Face's templates use it, in a sandbox that bounds time and memory.

jinja2's sandbox stops a template from leaving it, but not from building texts without end. Here everything that a template
builds is weighed before it is used: arguments and results of calls and filters, operands, lists, printed values; each round
of a loop counts what it prints. A template is therefore stopped while what it holds is still small.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, MappingView, Sequence
from typing import Any, NoReturn

from jinja2 import Template, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

LONGEST_TEMPLATE = 64_000
"""Characters; the longest of the 70 templates that llama.cpp ships has 16,714."""
_LONGEST_RANGE = 10_000
_LARGEST = 200_000  # weight of one value
_SECONDS = 0.5  # of this thread's CPU time, and a thousandth more for each message
_METER = "the meter of this rendering"  # no name that a template could spell
_WIDE = re.compile(r"\d{5}")  # a width in a format
_GROWING = {"batch", "center", "format", "indent", "join", "replace", "round", "slice", "tojson", "truncate", "wordwrap"}
_UNUSED = {"pprint", "random", "urlize", "xmlattr"}
_VALUES = (str, bytes, int, float, list, tuple, dict)

Message = dict[str, object]


class TooMuch(Exception):
    """A template builds more than it may."""


class Refused(Exception):
    """A template raised an exception of its own: it does not take such messages."""


def render(source: str, messages: Sequence[Message], variables: Mapping[str, object]) -> str:
    """The text that a template makes of messages, ready for the assistant's turn.

    Args:
        source: the template.
        messages: each with ``role`` and ``content``.
        variables: further ones, such as ``bos_token``.

    Raises:
        TooMuch: it is too long, or builds too much.
        Refused: it does not take such messages.
        Exception: of any kind, whatever is wrong in it.
    """
    if len(source) > LONGEST_TEMPLATE:
        raise TooMuch(f"it has {len(source)} characters, more than {LONGEST_TEMPLATE}")
    template, meter, most = _compiled(source), _Meter(len(messages)), _LARGEST + 1_000 * len(messages)
    given = {"messages": _Given(messages), "add_generation_prompt": True, **variables, _METER: meter}
    parts: list[str] = []
    for part in template.generate(given):
        parts.append(part)
        most -= len(part)
        if most < 0:
            raise TooMuch("it makes too long a text")
    return "".join(parts)


class _Given(list[Message]):
    """The messages: known to be small, so that a template may hand them on as often as it likes."""


class _Meter:
    """What one rendering may still build, in characters, an element of a list counting as 16."""

    def __init__(self, messages: int) -> None:
        self._left = 4_000_000 + 200 * messages**2  # loops may look at all messages for each one
        self._until = time.thread_time() + _SECONDS + messages / 1_000

    def spend(self, weight: int) -> None:
        self._left -= weight
        if self._left < 0:
            raise TooMuch("it builds too much")
        if time.thread_time() > self._until:
            raise TooMuch("it takes too long")

    def weigh(self, *values: object) -> int:
        weight = weight_of(values)
        self.spend(weight)
        return weight

    def multiply(self, value: object, arguments: object) -> None:
        """Checks an operation whose result is at most as large as its operand times its arguments."""
        check_product(self.weigh(value), arguments)


def weight_of(values: Iterable[object]) -> int:
    """The size that values would have as text, about; what they hold several times counts as often.

    Raises:
        TooMuch: they are too large.
    """
    weight, waiting = 0, list(values)
    while waiting:
        value = waiting.pop()
        weight += 1
        if isinstance(value, str | bytes):
            weight += len(value)
        elif isinstance(value, int):
            weight += value.bit_length() // 3
        elif isinstance(value, _Given):
            weight += 16 * len(value)
        elif isinstance(value, list | tuple | set | dict | MappingView | Namespace):
            inside: Any = value._Namespace__attrs if isinstance(value, Namespace) else value
            weight += 16 * len(inside)
            if weight <= _LARGEST:
                waiting += [*inside, *inside.values()] if isinstance(inside, dict) else inside
        if weight > _LARGEST:
            raise TooMuch("a value in it is too large")
    return weight


def check_product(weight: int, arguments: object) -> None:
    """Refuses a value of this weight times its arguments, where a whole number counts as much as it says."""
    numbers, waiting = 0, [arguments]
    size = weight_of([arguments])
    while waiting:
        value = waiting.pop()
        if isinstance(value, int):
            numbers += abs(value)
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
    if weight * (1 + size + numbers) > 10 * _LARGEST:
        raise TooMuch("a value in it is too large")


class _Generation(Extension):
    """The tag that marks what an assistant wrote, for training: its body is rendered as it stands."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Weighing(NodeTransformer):
    """Rewrites a template so that what it builds without a call is weighed too."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "concatenate operands")

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._literal(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._literal(node, node.items) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._literal(node, [part for pair in node.items for part in (pair.key, pair.value)])

    def visit_For(self, node: nodes.For) -> nodes.Node:
        printed = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        count = _filtered(nodes.Const(printed + 16, lineno=node.lineno), "count a round")
        node.body.insert(0, nodes.ExprStmt(count, lineno=node.lineno))
        if node.test is not None:
            node.test = _filtered(node.test, "weigh")
        return node

    def _literal(self, node: nodes.Expr, items: Sequence[nodes.Expr]) -> nodes.Node:
        self.generic_visit(node)
        return node if all(isinstance(item, nodes.Const) for item in items) else _filtered(node, "weigh")


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Bounded(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter: _Meter = context.parent[_METER]
        if isinstance(left, str) and operator == "%":
            _check_format(left, right)
        elif operator == "**" or (isinstance(left, int) and isinstance(right, int)):
            bits = weight_of([left]) * (abs(right) if operator == "**" and isinstance(right, int) else 1)
            if bits > _LARGEST // 100:
                raise TooMuch("a number in it is too large")
        elif operator == "*":
            check_product(meter.weigh(left, right), [left, right])
        meter.weigh(left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805 (as in jinja2)
        meter: _Meter = __context.parent[_METER]
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, _VALUES):
            meter.multiply(owner, (args, kwargs))
        meter.weigh(args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        meter.weigh(result)
        return result

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        format_text = super().wrap_str_format(value)
        if format_text is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            _check_format(value.__self__, (args, kwargs))
            return format_text(*args, **kwargs)

        return bounded


def _check_format(text: str, arguments: object) -> None:
    if _WIDE.search(text):
        raise TooMuch("a format in it is too wide")
    check_product(weight_of([text]), arguments)


def _bounded_filter(name: str, plain: SandboxedEnvironment) -> Callable[..., Any]:
    @pass_context
    def bounded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter: _Meter = context.parent[_METER]
        if name == "format":
            _check_format(str(value), (args, kwargs))
        if name in _GROWING:
            meter.multiply(value, (args, kwargs))
        meter.weigh(value, args, kwargs)
        result = plain.call_filter(name, value, args, kwargs, context, context.eval_ctx)
        meter.weigh(result)
        return result

    return bounded


@pass_context
def _weigh(context: Context, value: Any) -> Any:
    context.parent[_METER].weigh(value)
    return value


@pass_context
def _concatenate(context: Context, values: list[Any]) -> str:
    context.parent[_METER].weigh(values)
    return "".join(map(str, values))


@pass_context
def _count_round(context: Context, printed: int) -> None:
    context.parent[_METER].spend(printed)


def _refuse(message: str) -> NoReturn:
    raise Refused(message)


def _range(*bounds: int) -> range:
    return range(*bounds)[:_LONGEST_RANGE]


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form[:200])


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """As transformers has it: jinja2's own escapes ``<`` and ``>``, which models were not trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@functools.cache
def _environment() -> _Bounded:
    plain = SandboxedEnvironment()
    plain.filters["tojson"] = _tojson
    environment = _Bounded(trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=_weigh, extensions=[loopcontrols, _Generation])
    environment.filters = {name: _bounded_filter(name, plain) for name in FILTERS if name not in _UNUSED}
    environment.filters |= {"weigh": _weigh, "concatenate operands": _concatenate, "count a round": _count_round}
    del environment.globals["lipsum"]
    environment.globals |= {"range": _range, "raise_exception": _refuse, "strftime_now": _strftime_now}
    return environment


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    """A template, compiled when it is first used: that takes longer than a short answer of a small model."""
    environment = _environment()
    tree = _Weighing().visit(environment.parse(source))
    return Template.from_code(environment, environment.compile(tree), environment.globals)
