"""The report in a real browser: offline, by pointer, by keyboard, at any width, dark, on paper, without scripts."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from constructed import make_distance, make_run
from fttune.analysis.report import analyse, write_report

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

WICKED = "</script><img src=x onerror=alert(1)>&amp;<b>"
Open = Callable[..., Any]


def make_page(folder: Path) -> Path:
    """Two datasets, one with a wicked name, three depths, two seeds; one failure, one lonely run, three stale ones."""
    runs = [
        replace(
            make_run(
                mode,
                0.3 + 0.05 * top + 0.04 * (mode == "tune") + 0.001 * seed + 0.1 * (name == WICKED),
                random_top=top,
                dataset=name,
                images_per_class=images,
                seed=seed,
            ),
            git_commit="new",
        )
        for name in ("birds", WICKED)
        for images in (5, 25)
        for seed in (0, 1)
        for top in (1, 3, 5)
        for mode in ("freeze", "tune")
    ]
    runs[:3] = [replace(run, git_commit="old") for run in runs[:3]]
    runs[-1] = replace(runs[-1], status="failed", error=f"out of memory {WICKED}")
    wanted = [(r.dataset, r.images_per_class, r.backbone, r.spec, r.seed) for r in runs]
    distances = [make_distance("birds", 0.1), make_distance(WICKED, 0.5)]
    report = analyse(
        runs, distances, name="small", image_edges=(21, 100), distance_edges=(0.2, 0.4), confidence=0.95, wanted=wanted
    )
    write_report(report, folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        # A container's root has no user namespace to put the page into.
        here = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], env=dict(os.environ))
        yield here
        here.close()


@pytest.fixture(scope="module")
def visit(browser: Any, site: Path) -> Iterator[Open]:
    """Opens the page offline; afterwards nothing may have been said, asked for over the network, or gone wrong."""
    faults: list[str] = []

    def opened(**context: Any) -> Any:
        page = browser.new_context(offline=True, **context).new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on(
            "request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or faults.append(request.url)
        )
        page.goto(site.as_uri())
        if context.get("java_script_enabled", True):
            page.wait_for_selector("html[data-drawn]")
        return page

    yield opened
    assert faults == []


@pytest.fixture(scope="module")
def shared(visit: Open) -> Any:
    return visit(viewport={"width": 1400, "height": 900})


@pytest.fixture(scope="module")
def phone(visit: Open) -> Any:
    return visit(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)


@pytest.fixture
def page(shared: Any) -> Any:
    """The page as it was opened, nothing ticked and nothing unfolded."""
    shared.evaluate("document.querySelector('#filters button').click()")
    shared.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = false; })")
    return shared


def panel(page: Any, figure: str, title: str) -> Any:
    return page.locator(f"[data-figure={figure}] .panel", has=page.get_by_role("heading", name=title, exact=True)).first


def averages(plot: Any) -> Any:
    """The one line of averages that a panel of ratios draws last."""
    return plot.evaluate("(one) => one.data.at(-1).y")


def test_every_figure_is_drawn_and_says_how_much_it_shows(page: Any) -> None:
    assert page.locator(".plot .main-svg").first.is_visible()
    assert [page.locator(f"[data-figure={name}] .panel").count() for name in ("fig1", "fig2", "fig3")] == [4, 2, 2]
    assert panel(page, "fig2", "By images per class").locator("p").first.inner_text() == "n = 8"
    assert page.locator("h2").all_inner_texts() == page.locator("nav a").all_inner_texts()


def test_every_link_leads_somewhere(page: Any) -> None:
    ids = set(page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)"))
    links = page.evaluate("[...document.querySelectorAll('a')].map((one) => one.getAttribute('href').slice(1))")
    assert len(links) > 12
    assert set(links) < ids


def test_a_box_leads_to_its_pairs_and_their_run_ids(page: Any) -> None:
    page.get_by_role("link", name="Try Freeze or Tune").or_(page.get_by_role("link", name="Tune")).first.click()
    rows = page.locator("#box-L-L tbody tr")
    assert rows.count() == 2
    assert rows.first.is_visible()
    assert page.evaluate("document.activeElement.parentElement.id") == "box-L-L"
    tuned, frozen = rows.first.locator("code").all_inner_texts()
    assert len(tuned) == len(frozen) == 16
    assert page.locator(f"#run-{tuned}").count() == 1


def test_what_is_ticked_narrows_figures_averages_and_lists(page: Any) -> None:
    plot = panel(page, "fig2", "By images per class").locator(".plot")
    whole = averages(plot)
    page.locator("#filters summary").click()
    page.get_by_role("checkbox", name="birds").check()
    page.get_by_role("group", name="Seed").get_by_role("checkbox", name="1").check()
    assert panel(page, "fig2", "By images per class").locator("p").first.inner_text() == "n = 2"
    assert page.locator("[data-figure=fig3] .panel:visible").count() == 1
    assert averages(plot) == pytest.approx([0.391 / 0.351, 0.391 / 0.351])
    assert averages(plot) != pytest.approx(whole)
    assert page.locator("#box-L-L .shown").text_content() == "1 of 2 shown"
    assert page.locator("#box-H-L .shown").text_content() == "0 of 2 shown"
    assert page.locator("[id^=run-]:not([hidden])").count() == 12
    page.get_by_role("button", name="Show everything").click()
    assert panel(page, "fig2", "By images per class").locator("p").first.inner_text() == "n = 8"
    assert page.locator("[data-code][hidden]").count() == 0
    assert averages(plot) == whole


def test_pointing_at_a_point_tells_its_pair_and_a_click_leads_there(page: Any) -> None:
    point = panel(page, "fig2", "By distance").locator(".points path").last
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    told = page.locator(".hovertext").text_content()
    for part in ("birds, 25 per class, seed 1", "distance 0.100", "tuned 0.391", "frozen 0.351", "ratio 1.114"):
        assert part in told
    point.click(force=True)
    page.wait_for_function("location.hash.startsWith('#pair-')")
    assert page.locator("tr:target").is_visible()
    assert page.locator("tr:target td").first.inner_text() == "birds"


def test_the_keyboard_walks_through_the_points_and_to_their_runs(page: Any) -> None:
    plot = panel(page, "fig3", "birds").locator(".plot")
    plot.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#told").text_content()
    assert first.startswith("birds, 5 per class, seed ")
    assert "test 0.3" in first
    assert "val 0.3" in first
    assert page.locator(".hovertext").is_visible()
    page.keyboard.press("ArrowRight")
    second = page.locator("#told").text_content()
    assert second != first
    page.keyboard.press("Enter")
    row = page.locator("tr:target")
    assert row.is_visible()
    assert row.locator("code").inner_text() in second


def test_the_first_stop_of_the_keyboard_skips_to_the_content(phone: Any) -> None:
    phone.keyboard.press("Tab")
    assert phone.evaluate("document.activeElement.textContent") == "Skip to the content"
    phone.keyboard.press("Enter")
    phone.evaluate("new Promise((done) => setTimeout(done, 100))")  # the address has changed
    stops = []
    while "filters" not in stops:
        phone.keyboard.press("Tab")
        stop = "(one) => one.closest('main') && (one.hash || one.parentElement.id)"
        stops.append(phone.evaluate(f"({stop})(document.activeElement)"))
        assert phone.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert len(stops) < 20
    assert None not in stops
    boxes = [stop for stop in stops if stop.startswith("#box-")]
    assert boxes == ["#box-L-L", "#box-L-M", "#box-H-L", "#box-H-M"]


def test_no_button_shares_a_figure_and_a_picture_of_it_can_be_kept(page: Any) -> None:
    plot = panel(page, "fig2", "By distance").locator(".plot")
    buttons = plot.evaluate("(one) => [...one.querySelectorAll('.modebar-btn')].map((button) => button.dataset.title)")
    assert buttons == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]
    plot.hover()
    with page.expect_download() as kept:
        plot.locator(".modebar-btn").first.click()
    assert kept.value.path().read_bytes().startswith(b"\x89PNG")


def test_a_touched_point_is_told_with_a_link_to_its_runs(phone: Any) -> None:
    touched = panel(phone, "fig2", "By distance")
    point = touched.locator(".points path").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = touched.locator("p").last
    told.get_by_role("link").wait_for()
    assert told.text_content().startswith("birds, 25 per class, seed 1, net, distance 0.100, tuned 0.391, run ")
    assert not phone.evaluate("location.hash").startswith("#pair-")
    told.get_by_role("link").tap()
    phone.wait_for_function("location.hash.startsWith('#pair-')")
    assert phone.locator("tr:target").is_visible()


def test_names_from_runs_stay_text(page: Any) -> None:
    plot = panel(page, "fig3", WICKED).locator(".plot")
    plot.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#told").text_content().startswith(f"{WICKED}, 5 per class")
    assert WICKED in page.locator(".hovertext").text_content()
    assert page.locator("main img, main b, #filters b").count() == 0
    assert WICKED in page.locator("#gaps ~ details").first.text_content()


def test_a_script_of_anybody_else_does_not_run(browser: Any, site: Path) -> None:
    page = browser.new_page()
    page.goto(site.as_uri())
    refused = page.evaluate(
        """new Promise((done) => {
            document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "document.title = 'taken'";
            document.head.append(script);
        })"""
    )
    assert refused == "script-src-elem"
    assert page.title() == "Freeze or tune: small"


@pytest.mark.parametrize("width", [390, 820, 1400])
def test_nothing_is_wider_than_the_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for box in page.locator(".box:visible, .plot").all():
        assert 150 < box.bounding_box()["width"] < width


def test_dark_and_light_are_the_readers_choice(page: Any) -> None:
    seen = {}
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        label = page.locator(".plot .xtick text").first.evaluate("(one) => getComputedStyle(one).fill")
        seen[scheme] = (ground, label)
    assert seen == {
        "dark": ("rgb(22, 22, 22)", "rgb(236, 236, 236)"),
        "light": ("rgb(255, 255, 255)", "rgb(27, 27, 27)"),
    }


def test_paper_is_light_shows_the_evidence_and_gives_the_screen_back(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    before = page.locator(".plot .main-svg").first.bounding_box()["width"]
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".plot .main-svg").first.bounding_box()["width"] == 330
    assert page.locator("#box-L-L tbody tr").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".plot .main-svg").first.bounding_box()["width"] == before
    assert page.locator("details[open]").count() == 0
    page.emulate_media(color_scheme="light")


def test_without_scripts_the_tables_and_the_printed_figures_are_there(visit: Open) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator("noscript svg").count() == 3
    assert page.locator("noscript svg").first.is_visible()
    assert page.get_by_role("link", name="Tune").first.is_visible()
    assert not page.locator("#filters").is_visible()
    page.context.close()


def test_the_numbers_of_the_page_are_those_of_the_printed_figures(page: Any, site: Path) -> None:
    embedded = json.loads(page.locator("#data").text_content())
    for name, panels in embedded.items():
        printed = json.loads((site.parent / f"{name}.json").read_text())["panels"]
        told = sorted((x, y) for one in printed for x, y in zip(one["x"], one["y"], strict=True))
        assert sorted((p["x"], p["y"]) for one in panels for s in one["series"] for p in s["points"]) == told != []
