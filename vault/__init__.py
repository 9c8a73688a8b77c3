"""Artifact Vault: a read-through cache for binary artifacts.

Build hosts ask it instead of the public registries and mirrors.  What is asked for the first time is fetched once,
stored, and streamed to everyone who asks while it is still arriving; from then on it comes from the local disk.
"""

__version__ = "0.1.0"
