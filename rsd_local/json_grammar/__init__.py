"""Grammars of JSON: what a JSON schema takes, as GBNF for llama.cpp's grammar sampler.

llama-cpp-python brings a converter of its own. It takes schemas that it does not understand and leaves out what they say, writes names
with a backslash wrongly, lets control characters stand in strings, and grows with the square of the properties. What this one takes
fits the schema, and what it cannot do it refuses.

    convert.py             the schema's parts as rules
    schema.py              references, allOf, anyOf and oneOf; sizes
    strings.py, numbers.py, patterns.py
    rules.py               rules as data, and their text
"""

from rsd_local.json_grammar.convert import json_schema_to_grammar

__all__ = ["JSON_OBJECT", "json_schema_to_grammar"]

JSON_OBJECT: dict[str, object] = {"type": "object"}
"""The schema of any object."""
