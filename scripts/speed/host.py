"""The llama-server that xllamacpp carries, in a process of its own: it says where it listens, and ends with its standard input."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import xllamacpp


def main() -> None:
    """Serve a model; the settings are those of ``speed.server.Server`` as JSON."""
    chosen: dict[str, Any] = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = chosen["model"]
    params.n_ctx, params.n_parallel = chosen["context"] * chosen["slots"], chosen["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = chosen["threads"]
    params.no_extra_bufts = chosen["as_in_file"]
    params.cache_ram_mib, params.verbosity = 0, 1
    if chosen["gpu_layers"] != "auto":
        params.n_gpu_layers = int(chosen["gpu_layers"])
    if chosen["embeddings"]:
        params.embedding = True
        pooling = xllamacpp.llama_pooling_type
        params.pooling_type = getattr(pooling, f"LLAMA_POOLING_TYPE_{chosen.get('pooling', 'last').upper()}")
        params.n_batch = params.n_ubatch = chosen["context"]
    server = xllamacpp.Server(params)
    build = f"llama-server (xllamacpp {xllamacpp.__version__}): {xllamacpp.get_system_info()}"
    print(json.dumps({"address": server.listening_address, "build": build}), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
