"""Completions from an OpenAI-compatible server: vLLM, llama.cpp, TGI, hosted ones.

In: prompts and sampling parameters. Out: texts with their log-probs, if the server gives them.
"""
