"""The kinds of upstream: one module each, found by the name in ``type``."""
