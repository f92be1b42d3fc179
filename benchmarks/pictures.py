"""The figures of a report as pictures, for pages that show no SVG of ours.

    python benchmarks/pictures.py FOLDER --out docs/results/NAME

FOLDER is that of a benchmark, with its report. A browser draws each figure as the report's page
shows it: Chromium, in whose own name it is looked for on the path.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

WIDTH, HEIGHT = 1100, 2600
_FIGURE = re.compile(r'<figure id="figure-([\w-]+)">.*?</figure>', re.S)
_STYLE = re.compile(r"<style>.*?</style>", re.S)


def picture(browser: str, style: str, figure: str, target: Path) -> None:
    """Draw one figure on a page of its own, and cut the page to it."""
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        page.write_text(
            f"<!doctype html><meta charset=utf-8>{style}<body><main>{figure}</main>",
            encoding="utf-8",
        )
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        with Image.open(shot) as image:
            drawn = image.convert("RGB")
            plain = Image.new("RGB", drawn.size, drawn.getpixel((0, drawn.height - 1)))
            box = ImageChops.difference(drawn, plain).getbbox()
            # Few colours: a quarter of the bytes, and no difference to see.
            drawn.crop(box).quantize(256).save(target, optimize=True)


def main() -> None:
    """Draw all figures of a report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("there is no Chromium on the path")
    page = (chosen.folder / "report.html").read_text(encoding="utf-8")
    (style,) = _STYLE.findall(page)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for figure in _FIGURE.finditer(page):
        picture(browser, style, figure.group(), chosen.out / f"{figure.group(1)}.png")


if __name__ == "__main__":
    main()
