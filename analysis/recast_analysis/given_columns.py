"""`--columns ROLE=COLUMN`: what a foreign file's own names do not say."""

from collections.abc import Sequence


def given_columns(words: Sequence[str], roles: Sequence[str], error: type[ValueError]) -> dict[str, str]:
    """What is given for each role. Raises `error` for a word that is no ROLE=COLUMN, or a role given twice."""
    given: dict[str, str] = {}
    for word in words:
        role, equals, column = word.partition("=")
        if not equals or not column or role not in roles:
            raise error(f"columns: {word!r} must be ROLE=COLUMN with a ROLE of {', '.join(roles)}")
        if role in given:
            raise error(f"columns: {role!r} is given twice; remove one")
        given[role] = column
    return given
