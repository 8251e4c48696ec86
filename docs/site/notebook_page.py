"""A notebook as a Markdown page, from the outputs that are committed with it: nothing is executed."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

_OPEN = (
    "*This page is the notebook [{name}]({name}) with the outputs that it was committed with. `make lab` opens JupyterLab"
    " on the notebooks; [how to open and run them](README.md).*"
)


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """The page's text, and its pictures by file name.

    Raises:
        ValueError: the first cell has no title, or an output is of a kind that no page can show.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    title, _, introduction = _text(cells[0]["source"]).partition("\n")
    if not title.startswith("# "):
        raise ValueError(f"{path.name}: the first line is not a title")
    parts, pictures = [title, _OPEN.format(name=path.name), introduction.strip()], {}
    for cell in cells[1:]:
        source = _text(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else _fenced("python", source))
        for output in cell.get("outputs", ()):
            parts.append(_output(output, path.stem, pictures))
    return "\n\n".join(parts) + "\n", pictures


def _output(output: dict[str, Any], stem: str, pictures: dict[str, bytes]) -> str:
    if output["output_type"] == "stream":
        return _fenced("text", _text(output["text"]))
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}-{len(pictures) + 1}.png"
        pictures[name] = b64decode(_text(data["image/png"]))
        return f"![What the cell above draws]({name})"
    for kind in ("text/markdown", "text/plain"):
        if kind in data:
            return _text(data[kind]) if kind == "text/markdown" else _fenced("text", _text(data[kind]))
    raise ValueError(f"{stem}: no page shows an output of kind {output['output_type']}")


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)
