"""The report in a real browser: it loads, asks nobody for anything, and fits wide and narrow."""

import pytest

from split_unlearning.reporting.writing import write_report
from tests.reporting.browser import browsing, find_browser
from tests.reporting.synthetic import Bench
from tests.reporting.test_writing import NASTY, fill

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="NO BROWSER FOUND: chromium or google-chrome has to be installed"
)


@pytest.fixture(scope="module")
def page():
    with browsing(BROWSER) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    bench = fill(Bench(tmp_path_factory.mktemp("shown"), title=NASTY, command=NASTY * 3))
    # What cannot be broken into lines has to stay in its box.
    bench.cell(strategy="x" * 200, unlearning="retrain", model=NASTY)
    bench.describe({"strategy": "u" * 300}, 0, status="failed", error="e" * 500)
    write_report(bench.folder)
    return bench.folder


@pytest.fixture(params=[(1280, False), (1280, True), (390, False), (390, True)])
def shown(request, page, folder):
    width, dark = request.param
    page.open((folder / "report.html").as_uri(), width, dark)
    return page


def test_nothing_is_said_on_the_console(shown):
    assert shown.happened("Log.entryAdded") == []
    assert shown.happened("Runtime.consoleAPICalled") == []
    assert shown.happened("Runtime.exceptionThrown") == []
    assert shown.happened("Page.javascriptDialogOpening") == []


def test_nothing_is_asked_of_anybody(shown, folder):
    asked = [event["request"]["url"] for event in shown.happened("Network.requestWillBeSent")]
    assert asked == [(folder / "report.html").as_uri()]


def test_the_page_does_not_scroll_sideways(shown):
    shown.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert shown.evaluate(wide) == 0
    # Nor is anything cut off: what is wider than the page stands in a box that scrolls.
    beyond = """[...document.querySelectorAll('main *')].filter(one =>
        one.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        && !one.closest('.scroll, pre')).length"""
    assert shown.evaluate(beyond) == 0


def test_text_can_be_read_on_its_paper(shown):
    """Contrast of at least 4.5 to 1 (WCAG 2, AA) of every text that is not in a picture."""
    dim = shown.evaluate(
        """(() => {
        const light = colour => {
            const parts = colour.match(/[0-9.]+/g).map(Number);
            const [r, g, b] = parts.slice(0, 3).map(part => part / 255).map(
                part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const clear = colour => colour === 'transparent' || colour.endsWith(', 0)');
        const paper = one => {
            for (; one; one = one.parentElement) {
                const colour = getComputedStyle(one).backgroundColor;
                if (!clear(colour)) return colour;
            }
            return 'rgb(255, 255, 255)';
        };
        return [...document.querySelectorAll('main *:not(svg *)')].filter(one =>
            [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())
        ).filter(one => {
            const ink = light(getComputedStyle(one).color), under = light(paper(one));
            return (Math.max(ink, under) + 0.05) / (Math.min(ink, under) + 0.05) < 4.5;
        }).map(one => one.className + ': ' + one.textContent.slice(0, 40));
    })()"""
    )
    assert dim == []


def test_text_in_pictures_is_large_enough_to_read(shown):
    small = shown.evaluate(
        """[...document.querySelectorAll('.panel svg text')].filter(one => {
            const drawn = one.ownerSVGElement;
            if (!drawn.getBoundingClientRect().width) return false;
            const scale = drawn.getBoundingClientRect().width / drawn.viewBox.baseVal.width;
            return scale * parseFloat(getComputedStyle(one).fontSize) < 9;
        }).length"""
    )
    assert small == 0
