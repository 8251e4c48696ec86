"""Fetch YooChoose clicks (RecSys Challenge 2015), the excerpt of 100,000 clicks of the session-rec repository, by hash.

21,210 sessions, 2,933 items, 83,846 clicks in two files, the earlier sessions and the later ones; here they are one. No licence
is stated there, so nothing of it lies in this repository.
"""

import urllib.request
from pathlib import Path

from recast_sim.bounded import MEGABYTE, read_bounded
from recast_train.data.cache import LARGEST, cache_folder, checked, fetched
from recast_train.data.data_error import DataError

COMMIT = "5dcd583cbd8d44703a5248b9a308945f24b91390"
URL = f"https://raw.githubusercontent.com/rn5l/session-rec/{COMMIT}/data/rsc15/prepared"
PARTS = {
    "yoochoose-clicks-100k_train_full.txt": "9842c90358298ee784fcf0c9dccb2eeb283ab04368e53bdeee896747f4c03e1e",
    "yoochoose-clicks-100k_test.txt": "380410c606403531019e1ec0b4d192ef90492d594b9b5a91633b860618dd7136",
}
NAME, FILE = "yoochoose-100k", "clicks.csv"
SHA256 = {FILE: "ee2bec7b4c2e583e99c80e7edd08adb6a7b517c7cdf8eec7ade23f2c8d81c1f0"}
SECONDS = 60  # without a byte


def fetch_yoochoose(cache_dir: Path | None = None, parts: Path | None = None) -> Path:
    """The folder with clicks.csv (SessionId, ItemId, Time in seconds), fetched into the cache if it is not there yet.

    `parts` is a folder with the two files of `PARTS`, for machines without network. The cache is `cache_dir`, else
    $RECAST_CACHE, else ~/.cache/recast. Raises DataError, with the mend, for a file of a wrong hash (in the cache as in the
    source), for one that cannot be read or written, and where the download fails.
    """
    return fetched(cache_folder(NAME, cache_dir), SHA256, lambda scratch: {FILE: _joined(parts)})


def _joined(parts: Path | None) -> bytes:
    lines: list[bytes] = []
    for name, sha256 in PARTS.items():
        content = _downloaded(name) if parts is None else read_bounded(parts / name, LARGEST, DataError)
        whole = checked(content, parts or URL, name, sha256, f"give the files of {URL}").replace(b"\t", b",")
        lines += whole.splitlines(keepends=True)[1 if lines else 0 :]  # one header
    return b"".join(lines)


def _downloaded(name: str) -> bytes:
    try:
        with urllib.request.urlopen(f"{URL}/{name}", timeout=SECONDS) as answer:
            content = answer.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{URL}/{name}: not fetched ({error}); fetch both files elsewhere and give --parts FOLDER") from error
    if len(content) > LARGEST:
        raise DataError(f"{URL}/{name}: has over {LARGEST // MEGABYTE} MB; that is not the file of clicks")
    return content
