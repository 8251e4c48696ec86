"""The HTML page: well formed, self-contained, escaped, readable by a screen reader, on a phone, in the dark."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recast_analysis.drawing.style import INK
from recast_analysis.glossary import FILE, read_glossary
from recast_analysis.page import make_page
from recast_analysis.reports.run_kinds import run_report

VOID = {"meta", "link", "br", "hr", "img", "input"}
NEXT_TO = re.compile(r"url\((?!#)|@import|https?://(?!www\.w3\.org/(2000/svg|1999/xlink))")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REAL = ("grpo", "recast", "sft")
PROBE = """<script>
const box = document.documentElement, style = (e) => getComputedStyle(e);
const fetched = performance.getEntriesByType("resource").length;
document.title = JSON.stringify({width: innerWidth, page: box.scrollWidth, fetched,
  ground: style(document.body).backgroundColor, ink: style(document.querySelector("figure svg")).color,
  drawn: document.querySelector("figure svg").getBoundingClientRect().width,
  tables: [...document.querySelectorAll("table")].every((t) => t.closest(".scroll").clientWidth <= innerWidth)});
</script>"""


class Structure(HTMLParser):
    """Elements of a page: which stand open, which had ids, and what figures and tables hold."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs, _ in self.seen if name == tag]


@pytest.fixture(scope="module")
def page(run_folders: dict[str, Path]) -> str:
    return make_page([run_folders[kind] for kind in ("train", "killed", "real", "budget", "map")])


def test_every_element_is_closed_and_every_id_is_used_once(page: str) -> None:
    found = Structure(page)
    assert found.open == []
    ids = [attrs["id"] for _, attrs, _ in found.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="|url\()#([^")]+)', page) + re.findall(r'aria-labelledby="([^"]+)"', page)
    assert set(used) <= set(ids)


def test_nothing_is_fetched(page: str) -> None:
    found = Structure(page)
    assert NEXT_TO.search(page) is None
    for tag, attrs, _ in found.seen:
        assert tag not in ("script", "link", "iframe", "img", "object", "base")
        for name in ("src", "srcset", "href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/png;base64,")), (tag, attrs)


def test_figures_are_labelled_and_tables_have_headers(page: str) -> None:
    found = Structure(page)
    figures = [attrs for tag, attrs, inside in found.seen if tag == "svg" and "figure" in inside]
    assert len(figures) == len(found.all("figure")) == 6 + 6 + 7 + 5 + 1
    assert all(attrs["role"] == "img" and len(attrs["aria-label"] or "") > 40 for attrs in figures)
    tables, heads = len(found.all("table")), len(found.all("thead"))
    assert tables == heads > 8
    assert {attrs.get("scope") for attrs in found.all("th")} == {"col", "row"}
    assert all(attrs.get("lang") == "en" for attrs in found.all("html"))


def test_a_run_says_where_it_comes_from_and_how_far_it_got(page: str, run_folders: dict[str, Path]) -> None:
    text = " ".join(" ".join(Structure(page).text).split())
    manifest = json.loads((run_folders["train"] / "manifest.json").read_text())
    assert html.unescape(manifest["command"]) in text
    for known in (manifest["git"]["commit"], f"python {manifest['versions']['python']}", manifest["started"]):
        assert known in text
    assert "complete; 20 steps read" in text
    assert "not finished: killed, or still running; 7 steps read" in text
    assert "complete; 4 of 4 runs below it are complete" in text  # the real run: sft and three methods
    assert "training.learning_rate" in text
    assert "6 prompts of" in text  # the four corners' caption


def test_a_tables_cells_are_those_of_the_terminal(page: str, run_folders: dict[str, Path]) -> None:
    results = json.loads((run_folders["real"] / "results.json").read_text())
    cells = [text.strip() for text in Structure(page).text]
    for method in ("grpo", "recast", "sft"):
        for column in ("rollouts", "actor_rows", "actor_tokens"):
            assert f"{results['methods'][method][column]:,}" in cells


def test_text_of_a_run_folder_is_escaped(run_folders: dict[str, Path], tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>{{ 7 * 7 }}<b>&amp;</b>"
    shutil.copytree(run_folders["train"], tmp_path / "train")
    file = tmp_path / "train" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["command"] = manifest["kind"] = manifest["config"][evil] = evil
    manifest["hardware"] = {"cores": evil}
    file.write_text(json.dumps(manifest))
    found = Structure(make_page([tmp_path / "train"]))
    assert found.open == []
    assert found.all("script") == found.all("b") == []
    text = "".join(found.text)
    assert text.count(evil) >= 5
    assert "49" not in re.findall(r"alert\('x'\)</script>(\d+)", text)


def test_the_same_runs_give_the_same_page(run_folders: dict[str, Path]) -> None:
    pages = [make_page([run_folders["killed"]]) for _ in range(2)]
    assert pages[0] == pages[1]
    assert INK not in re.sub(r"--ink: #\w+;", "", pages[0])  # figures take the page's ink, which the dark scheme turns


def test_the_glossary_is_the_files() -> None:
    terms = read_glossary()
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line.startswith("- ")]
    assert len(terms) == len(lines) > 12
    assert terms["Anchor"] == "the ground truth put into a group."
    contributing = (FILE.parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "(analysis/recast_analysis/glossary.md)" in contributing


def shown(page: str, folder: Path, *flags: str) -> dict:
    """What the page measures of itself in a headless browser; `flags` set its window and scheme."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    fixed = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    quiet = "--disable-component-update --disable-sync"
    command = [str(CHROMIUM), *fixed.split(), *quiet.split(), f"--user-data-dir={folder / 'profile'}", *flags, "--dump-dom"]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None
    return json.loads(html.unescape(found[1]))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path (Debian: apt-get install chromium)")
def test_a_browser_shows_it_on_a_phone_and_in_the_dark(page: str, tmp_path: Path) -> None:
    light = shown(page, tmp_path, "--window-size=1200,900")
    assert light["fetched"] == 0
    assert (light["ground"], light["ink"]) == ("rgb(255, 255, 255)", "rgb(31, 35, 40)")
    phone = shown(page, tmp_path, "--window-size=390,844", "--blink-settings=preferredColorScheme=0")
    assert (phone["ground"], phone["ink"]) == ("rgb(21, 24, 28)", "rgb(230, 232, 235)")
    assert phone["page"] <= phone["width"] < 600  # the page does not scroll sideways, its boxes do
    assert phone["tables"]
    assert phone["drawn"] > phone["width"]  # letters stay large enough to read


def test_a_run_opens_with_its_result_in_three_lines(page: str, run_folders: dict[str, Path]) -> None:
    opened = [words.split("\n") for words in re.findall(r'<h2>.*?</h2>\n<div class="result">\n(.*?)\n</div>', page, re.DOTALL)]
    lines = [[html.unescape(re.sub("<.*?>", "", line)) for line in words] for words in opened]
    train, killed, real, budget, whole_map = lines
    assert train[0].startswith("Smoke run (20 steps): it shows that everything runs")
    assert train[1].startswith("recast in one world, 20 steps, 1,280 rollouts.")
    assert train[3] == "One seed, no interval."
    assert killed[1].startswith("recast in one world, 7 steps")
    assert [len(words) for words in (train, killed, real)] == [4, 4, 4]  # the three, and that it was a smoke run
    changes = {name: run_report(run_folders["real"]).summary["methods"][name]["versus_start"]["ndcg@10"] for name in REAL}
    best = max(changes, key=lambda name: changes[name]["difference"])
    assert f"; {best} ends highest, {changes[best]['difference']:+.4f} [" in real[2]
    assert re.fullmatch(r"Told from the start \(95 % over users\): above .+; below .+\.", real[3])
    assert budget[0] == "3 methods in 5 worlds, 1 setting."
    assert budget[1].startswith("Greedy Pass@1: recast ends highest, +300.0 % ")
    assert whole_map[1].startswith("greedy Pass@1, all settings: recast against grpo +33.3 %")
