"""The algorithms, as generators of events: no llama.cpp, no input or output, no clock."""
