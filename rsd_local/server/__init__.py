"""``rsd serve``: open trios behind HTTP, in the form of OpenAI's API.

It needs the extra ``server``; nothing of that is imported by any other part of the package.

    parse.py, fields.py    a request's body, checked, as dataclasses
    errors.py              what goes wrong, and its HTTP status
    models.py              the trios that are served, and their names
    served.py, trios.py    which of them are loaded, and who waits for one
    answers.py, usage.py   events of a run as OpenAI's objects
    exchange.py            one answer on its way to one client
    waiting.py             the same, while its trio is loaded
    routes.py, app.py      the endpoints, and what stands in front of them
    guard.py               keys, Host and Origin
    metrics.py, access.py  what is counted and logged
    record.py, drift.py    the run log's lines, and whether a tuned trio still does what it did
    openapi.py             the description of all that
    page/                  the page at /, and KaTeX for its mathematics
    process.py             the socket, the signals and the end
"""

import importlib.metadata

VERSION = importlib.metadata.version("rsd-local")
