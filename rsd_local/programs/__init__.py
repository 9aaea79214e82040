"""Python code in answers: finding it, finding the examples that it must pass, and running it against them."""
