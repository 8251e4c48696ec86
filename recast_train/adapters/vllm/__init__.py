"""Rollouts of vLLM held to a catalog: after the prompt, or behind a thought, only answers that name an item can be written.

`trie_processor` alone imports vLLM; docs/verl.md says how to use it, in verl and without.
"""
