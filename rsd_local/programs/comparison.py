"""What is equal, said without asking code that nobody trusts. In the sandbox it shares the namespace of ``harness``."""

from __future__ import annotations

import operator
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from math import isclose
from typing import Any

_HEAP, _IMMUTABLE = 1 << 9, 1 << 8  # flags of a type, of CPython: made at run time; closed to changes
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "is": operator.is_, "is not": operator.is_not,
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv, "%": operator.mod,
    "**": operator.pow, "&": operator.and_, "|": operator.or_, "^": operator.xor, "<<": operator.lshift, ">>": operator.rshift,
    "@": operator.matmul,
}  # fmt: skip
_mro, _own = type.__dict__["__mro__"].__get__, type.__dict__["__dict__"].__get__
_flags: Callable[[type], int] = type.__dict__["__flags__"].__get__
_PROXIES = (weakref.ProxyType, weakref.CallableProxyType, types.MappingProxyType)  # each says of another object what that says of itself
_FUNCTION, _SLOT, _NOTHING = types.FunctionType, types.MemberDescriptorType, object()


class Comparison:
    """Says what is equal, without asking classes that were made after it.

    It is made before the code runs, and knows all classes that are there then by their ``__eq__``.
    """

    def __init__(self) -> None:
        # By identity: a class may have a metaclass that says what it equals.
        self._known: dict[int, tuple[type, object]] = {}
        self.allowed: list[type] = []
        """Classes of the code that a check names: it is about them."""
        waiting: list[type] = [object]
        while waiting:
            kind = waiting.pop()
            if id(kind) not in self._known:
                self._known[id(kind)] = kind, _own(kind).get("__eq__")
                waiting += type.__subclasses__(kind)

    def foreign(self, value: object) -> bool:
        """Whether what a value equals is said by a class of the code's, which no check names."""
        kind = type(value)
        if any(kind is one for one in self.allowed):
            return False
        if any(kind is one for one in _PROXIES):
            return True
        for one in _mro(kind):
            if self._is_closed(one):
                return False
            own = _own(one)
            if id(one) in self._known:
                return own.get("__eq__") is not self._known[id(one)][1] or self._hides(value)
            if any(name in own for name in _OVERRIDES):
                return True
        return False

    def _hides(self, value: Any) -> bool:
        """Whether a value of a known class compares what it holds by Python code, and holds something foreign; or equals anything."""
        kinds = _mro(type(value))
        if type(next((_own(kind)["__eq__"] for kind in kinds if "__eq__" in _own(kind)), None)) is not _FUNCTION:
            return False
        held = list(_held(value, kinds))
        held += [part for one in held if type(one) in (list, tuple, set, frozenset) for part in one]
        return any(self.foreign(part) for part in held) or bool(value == _NOTHING)

    def _is_closed(self, kind: type) -> bool:
        return not _flags(kind) & _HEAP or bool(_flags(kind) & _IMMUTABLE)

    def same(self, one: Any, other: Any, near: bool = False) -> Any:
        """Whether two values are equal.

        Args:
            one, other: any values.
            near: whether floats may differ by 1e-6 of themselves; whole numbers may not.
        """
        if self.foreign(one) != self.foreign(other):
            return False
        if self.foreign(one):
            return one == other
        for kind in (list, tuple, deque):
            if is_of(one, kind) and is_of(other, kind):
                first, second = list(kind.__iter__(one)), list(kind.__iter__(other))
                return len(first) == len(second) and all(bool(self.same(a, b, near)) for a, b in zip(first, second, strict=True))
        if is_of(one, dict) and is_of(other, dict):
            return self._same_dict(one, other, near)
        if _is_set(one) and _is_set(other):
            return len(one) == len(other) and self._plain_keys(one) and self._plain_keys(other) and one == other
        if near and _is_number(one) and _is_number(other) and (is_of(one, float) or is_of(other, float)):
            return one == other or isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
        return one == other

    def _same_dict(self, one: Any, other: Any, near: bool) -> bool:
        first, second = dict(dict.items(one)), dict(dict.items(other))
        if is_of(one, OrderedDict) and is_of(other, OrderedDict):
            return bool(self.same(list(first.items()), list(second.items()), near))
        if not (self._plain_keys(first) and self._plain_keys(second)) or len(first) != len(second):
            return False
        return all(key in second and bool(self.same(value, second[key], near)) for key, value in first.items())

    def _plain_keys(self, keys: Any) -> bool:
        return not any(self.foreign(key) or (is_of(key, tuple) and not self._plain_keys(tuple.__iter__(key))) for key in keys)

    def contains(self, value: Any, group: Any) -> bool:
        """Whether a value is in a group."""
        if self.foreign(group):
            raise AssertionError("it gave an object of a class of its own")
        if any(type(group) is kind for kind in (list, tuple, set, frozenset, dict)):
            return any(bool(self.same(value, one)) for one in group)
        return value in group

    def compare(self, signs: tuple[str, ...], *values: Any) -> Any:
        """A comparison, chains included."""
        result: Any = True
        for sign, one, other in zip(signs, values, values[1:], strict=False):
            if sign in ("==", "!="):
                equal = self.same(one, other)
                result = equal if sign == "==" else (not equal if isinstance(equal, bool) else one != other)
            elif sign in ("in", "not in"):
                result = self.contains(one, other) == (sign == "in")
            else:
                result = self.binary(sign, one, other)
            if len(signs) > 1 and not result:
                return result
        return result

    def binary(self, sign: str, one: Any, other: Any) -> Any:
        """An operation on two values, of which none may be of a class that is there to deceive."""
        if sign not in ("is", "is not"):
            self.truth(one), self.truth(other)
        return _OPERATORS[sign](one, other)

    def truth(self, value: Any) -> Any:
        """The value itself, where it may decide something."""
        if self.foreign(value):
            raise AssertionError("it gave an object of a class of its own")
        return value


_OVERRIDES = {
    f"__{name}__" for name in (
        "eq", "ne", "lt", "le", "gt", "ge", "bool", "len", "hash", "contains", "abs", "round", "neg", "pos", "float", "int", "index",
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift", "matmul",
        "radd", "rsub", "rmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rand", "ror", "rxor",
        "getattribute", "getattr", "iter", "getitem", "class",
    )
}  # fmt: skip


def is_of(value: object, kind: type) -> bool:
    """As ``isinstance``, by the real class alone."""
    return any(kind is one for one in _mro(type(value)))


def _held(value: object, kinds: tuple[type, ...]) -> Iterator[Any]:
    """What an object's attributes hold."""
    read = object.__getattribute__
    try:
        yield from dict.values(read(value, "__dict__"))
    except AttributeError:
        pass  # it has slots alone
    for kind in kinds:
        for name, slot in _own(kind).items():
            if type(slot) is _SLOT and name != "__dict__":
                try:
                    yield slot.__get__(value)
                except AttributeError:
                    continue


def _is_set(value: object) -> bool:
    return is_of(value, set) or is_of(value, frozenset)


def _is_number(value: object) -> bool:
    return (is_of(value, int) or is_of(value, float)) and type(value) is not bool
