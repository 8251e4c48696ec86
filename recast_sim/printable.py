"""Text from elsewhere made fit to be shown: on a terminal, in a table, in a figure, in a line of error."""

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, what turns the reading direction, halves of letters


def printable(text: str, most: int = 400, lines: bool = False) -> str:
    """Text whose control characters (terminal escapes among them) are spelled out, and whose middle is left out if it is long.

    Args:
        most: letters that are kept.
        lines: keep line ends.
    """
    if len(text) > most:
        text = f"{text[: most - most // 4]} ... {text[len(text) - most // 4 :]}"
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if lines and letter == "\n" else _spelled(letter) for letter in text)


def _spelled(letter: str) -> str:
    if unicodedata.category(letter) not in _HIDDEN:
        return letter
    return letter.encode("unicode_escape").decode("ascii")
