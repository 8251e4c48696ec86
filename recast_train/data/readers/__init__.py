"""Readers of the public formats, and how a folder's files are told apart."""
