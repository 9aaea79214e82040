"""The libraries of llama-cpp-python, which it loads from its own folder; those of ggml's backends are loaded by them."""

from PyInstaller.utils.hooks import collect_dynamic_libs

binaries = collect_dynamic_libs("llama_cpp")
