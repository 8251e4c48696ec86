"""Seeds derived from a run's seed and a name, so that neither order nor worker count changes a result."""

import hashlib


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on `seed` and on each name, the same on every machine."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
