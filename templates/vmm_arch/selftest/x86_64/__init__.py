"""The guests of x86_64: their code, and what is expected of each."""
