"""Every tool of the canvas, to the pixel: what is saved is what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from saadi.config import Home
from saadi.engines import weights
from saadi.jobs import run_worker
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import tiny as tiny_models
from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT, newest
from tests.browser.test_loop import LOADED, saved

pytestmark = pytest.mark.browser
SIDE = 64
"""Of the tiny project's first image."""
Point = tuple[float, float]


class Hand:
    """A mouse in pixels of the label map."""

    def __init__(self, page: Page, tiny: Studio) -> None:
        self.page, self.tiny = page, tiny

    def at(self, point: Point) -> Point:
        view = self.page.locator(".sx-view").bounding_box()
        zoom = min(view["width"], view["height"]) / SIDE
        left, top = view["x"] + (view["width"] - SIDE * zoom) / 2, view["y"] + (view["height"] - SIDE * zoom) / 2
        return left + point[0] * zoom, top + point[1] * zoom

    def drag(self, *points: Point, button: str = "left") -> None:
        self.page.mouse.move(*self.at(points[0]))
        self.page.mouse.down(button=button)
        for point in points[1:]:
            self.page.mouse.move(*self.at(point))
        self.page.mouse.up(button=button)

    def click(self, point: Point, **options: str) -> None:
        self.page.mouse.click(*self.at(point), **options)

    def keys(self, text: str) -> None:
        for key in text.split():
            self.page.keyboard.press(key)

    def box(self, start: Point, end: Point) -> None:
        self.keys("r")
        self.drag(start, end)

    def drawn(self) -> np.ndarray:
        """The saved label map, once the page says that it is saved."""
        saved(self.page)
        return newest(self.tiny)[1]


def filled(*boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    """Boxes (x0, y0, x1, y1, class) one over the other."""
    made = np.zeros((SIDE, SIDE), np.uint8)
    for x0, y0, x1, y1, index in boxes:
        made[y0:y1, x0:x1] = index
    return made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One program for all tests here: each is a new visitor, whose first stroke makes a mask of its own."""
    made = Studio(tmp_path_factory.mktemp("canvas") / "home", script=SCRIPT)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def hand(page: Page, tiny: Studio) -> Hand:
    page.goto(tiny.url)
    page.wait_for_selector(LOADED, timeout=30_000)
    page.keyboard.press("1")
    return Hand(page, tiny)


def test_box_lasso_and_polygon_fill_what_they_enclose(hand: Hand):
    hand.box((10, 12), (20, 18))
    np.testing.assert_array_equal(hand.drawn(), filled((10, 12, 20, 18, 1)))
    hand.keys("2 l")
    hand.drag((30, 30), (40, 30), (40, 36), (30, 36))
    hand.keys("1 p")
    for corner in ((50, 50), (58, 50), (58, 56), (50, 56)):
        hand.click(corner)
    hand.keys("Enter")
    np.testing.assert_array_equal(
        hand.drawn(), filled((10, 12, 20, 18, 1), (30, 30, 40, 36, 2), (50, 50, 58, 56, 1))
    )


def test_strokes_keep_to_the_rule_for_what_lies_there(hand: Hand):
    hand.box((10, 10), (30, 30))
    hand.keys("2")
    hand.page.get_by_label("What strokes may paint over").select_option("protect")
    hand.box((20, 20), (40, 40))
    expected = filled((20, 20, 40, 40, 2), (10, 10, 30, 30, 1))
    np.testing.assert_array_equal(hand.drawn(), expected)
    hand.page.get_by_label("What strokes may paint over").select_option("inside-1")
    hand.box((25, 0), (64, 64))
    expected[10:30, 25:30] = 2
    np.testing.assert_array_equal(hand.drawn(), expected)
    hand.page.get_by_label("What strokes may paint over").select_option("overwrite")
    hand.box((0, 0), (64, 64))
    assert (hand.drawn() == 2).all()


def test_the_eraser_clears_all_or_one_class(hand: Hand):
    hand.box((10, 10), (20, 20))
    hand.keys("2")
    hand.box((20, 10), (30, 20))
    hand.keys("1 e")
    hand.page.get_by_label("Brush size in pixels").fill("4")
    hand.page.get_by_role("button", name="The eraser clears the chosen class only").click()
    hand.drag((12, 15), (28, 15))
    found = hand.drawn()
    assert (found == 2).sum() == 100 and 0 < (found == 1).sum() < 100
    hand.page.get_by_role("button", name="The eraser clears the chosen class only").click()
    hand.drag((12, 15), (28, 15))
    assert (hand.drawn() == 2).sum() < 100


def label_colors(page: Page) -> set[tuple[int, ...]]:
    """Colours of the label layer, as painted by now."""
    page.evaluate("new Promise(requestAnimationFrame)")
    found = page.evaluate("""() => {
        const layer = document.querySelector('.sx-layer-labels');
        const { data } = layer.getContext('2d').getImageData(0, 0, layer.width, layer.height);
        return [...new Set(Array.from({ length: data.length / 4 }, (_, i) => data.slice(4 * i, 4 * i + 4).join()))];
    }""")
    return {tuple(map(int, text.split(","))) for text in found}


def test_patterns_tell_classes_apart_and_change_no_label(hand: Hand):
    hand.box((10, 10), (30, 30))
    drawn, plain = hand.drawn(), label_colors(hand.page)
    assert len(plain) == 2  # nothing, and the colour of the class
    hand.keys("t")
    assert len(label_colors(hand.page)) == 3
    hand.page.reload()
    hand.page.wait_for_selector(LOADED)
    assert len(label_colors(hand.page)) == 3 and (newest(hand.tiny)[1] == drawn).all()
    hand.keys("t")
    assert label_colors(hand.page) == plain


def test_what_the_segmenter_sees_is_a_layer_that_can_be_taken_over(hand: Hand):
    made = tiny_models.segmenter("unet", seed=3)
    with Store.open(hand.tiny.home) as store:
        file = store.files.put(weights.to_bytes(made.network.state_dict()))
        store.add_model(1, kind="selector", architecture=made.architecture, file=file, metrics={}, actor="test")
        [expected] = made.predict([store.blobs.image(store.images(1)[0].blob)])
    seen = int(np.bincount(expected.label_map.ravel())[1:].argmax()) + 1
    hand.keys(str(seen))
    hand.page.get_by_label("Which mask is shown").select_option("model")
    hand.page.wait_for_function("fetch('/api/jobs').then((a) => a.json()).then((jobs) => jobs.active.length === 1)")
    assert run_worker(Home(hand.tiny.home), HANDLERS, exit_when_idle=True)
    expect(hand.page.get_by_label("Which mask is shown")).to_have_value("model", timeout=10_000)
    shown = len(label_colors(hand.page) - {(0, 0, 0, 0)})
    assert shown == len(np.unique(expected.label_map[expected.label_map > 0]))
    hand.page.get_by_text("Shape").click()
    hand.page.get_by_role("button", name="Take the segmenter's").click()
    np.testing.assert_array_equal(hand.drawn() == seen, expected.label_map == seen)


def test_right_button_erases_with_the_same_tool(hand: Hand):
    hand.box((10, 10), (20, 20))
    hand.drag((12, 12), (14, 16), button="right")
    np.testing.assert_array_equal(hand.drawn(), filled((10, 10, 20, 20, 1), (12, 12, 14, 16, 0)))


def test_square_brush_and_straight_line(hand: Hand):
    hand.keys("b")
    hand.page.get_by_label("Brush size in pixels").fill("4")
    hand.page.get_by_role("button", name="Square brush").click()
    hand.click((10, 10))
    np.testing.assert_array_equal(hand.drawn(), filled((8, 8, 12, 12, 1)))
    hand.page.keyboard.down("Shift")
    hand.click((40, 10))
    hand.page.keyboard.up("Shift")
    np.testing.assert_array_equal(hand.drawn(), filled((8, 8, 42, 12, 1)))


def test_fill_and_wand_paint_what_is_alike(hand: Hand):
    hand.box((10, 10), (20, 20))
    hand.keys("2 g")
    hand.click((15, 15))
    np.testing.assert_array_equal(hand.drawn(), filled((10, 10, 20, 20, 2)))
    hand.keys("1 w")
    hand.click((40, 40))  # the image is of one colour
    assert (hand.drawn() == 1).all()


def test_pick_takes_the_class_under_the_pointer(hand: Hand):
    hand.keys("2")
    hand.box((10, 10), (20, 20))
    hand.keys("1 i")
    hand.click((15, 15))
    expect(hand.page.locator(".sx-class[data-index='2']")).to_have_attribute("aria-pressed", "true")
    expect(hand.page.locator("[data-tool=box]")).to_have_attribute("aria-pressed", "true")


def test_a_shape_is_moved_with_all_its_pixels(hand: Hand):
    hand.box((10, 10), (20, 20))
    hand.keys("2")
    hand.box((20, 12), (26, 18))
    hand.keys("v")
    hand.click((15, 15))
    hand.page.keyboard.down("Shift")
    hand.click((23, 15))
    hand.page.keyboard.up("Shift")
    hand.drag((15, 15), (25, 35))
    expected = filled((20, 30, 30, 40, 1), (30, 32, 36, 38, 2))
    np.testing.assert_array_equal(hand.drawn(), expected)
    hand.keys("ArrowRight Shift+ArrowUp")
    np.testing.assert_array_equal(hand.drawn(), np.roll(expected, (-10, 1), (0, 1)))
    hand.keys("Control+z Control+z")
    np.testing.assert_array_equal(hand.drawn(), expected)
    hand.click((25, 35))
    hand.keys("Delete")
    np.testing.assert_array_equal(hand.drawn(), filled((30, 32, 36, 38, 2)))


def test_a_shape_becomes_the_chosen_class(hand: Hand):
    hand.box((10, 10), (20, 20))
    hand.box((40, 40), (50, 50))
    hand.keys("v")
    hand.click((45, 45))
    hand.keys("2 Enter")
    np.testing.assert_array_equal(hand.drawn(), filled((10, 10, 20, 20, 1), (40, 40, 50, 50, 2)))


def test_turning_and_scaling_by_keys(hand: Hand):
    hand.box((20, 20), (40, 30))
    hand.keys("v")
    hand.click((30, 25))
    hand.keys(" ".join(["Shift+Period"] * 6))  # six times 15 degrees
    found = hand.drawn()
    rows, columns = np.nonzero(found)
    assert abs((found == 1).sum() - 200) <= 20 and np.ptp(rows) > np.ptp(columns) + 5
    hand.keys("+")
    assert (hand.drawn() == 1).sum() > 1.1 * (found == 1).sum()


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("Fill holes", lambda found: (found == 1).sum() == 400),
        ("Grow", lambda found: (found == 1).sum() > 500),
        ("Shrink", lambda found: 0 < (found == 1).sum() < 300),
        ("Smooth", lambda found: found[9, 9] == 0 and found[20, 20] == 0 and found[10, 10] == 0),
    ],
)
def test_a_class_is_edited_as_a_whole(hand: Hand, name: str, check: Callable[[np.ndarray], bool]):
    hand.box((10, 10), (30, 30))
    hand.drag((17, 17), (23, 23), button="right")
    expect(hand.page.locator(".sx-measured")).to_contain_text("1 part · 1 hole")
    hand.page.locator(".sx-menu summary").click()
    hand.page.get_by_role("button", name=name).click()
    assert check(hand.drawn())


def test_islands_go_and_unsure_pixels_stay(hand: Hand):
    hand.box((10, 10), (30, 30))
    hand.box((50, 50), (51, 51))
    hand.page.locator(".sx-menu summary").click()
    hand.page.get_by_role("button", name="Drop islands").click()
    hand.keys("u")
    hand.box((40, 40), (45, 45))
    np.testing.assert_array_equal(hand.drawn(), filled((10, 10, 30, 30, 1), (40, 40, 45, 45, 255)))


def test_undo_goes_back_five_hundred_strokes(hand: Hand):
    hand.keys("b")
    hand.page.get_by_label("Brush size in pixels").fill("1")
    for number in range(500):
        hand.click((number % 60 + 1.5, number // 60 + 1.5))
    found = hand.drawn()
    assert (found == 1).sum() == 500, np.argwhere(found != 1)[:5]
    for _ in range(500):
        hand.page.keyboard.press("Control+z")
    assert (hand.drawn() == 0).all()


def test_classes_are_hidden_and_outlined_without_changing_labels(hand: Hand):
    hand.box((10, 10), (30, 30))
    before = hand.drawn()
    shown = """() => {
        const layer = document.querySelector('.sx-layer-labels'), pixels = layer.getContext('2d').getImageData(0, 0, 64, 64).data;
        return pixels.filter((value, i) => i % 4 === 3 && value).length;
    }"""
    assert hand.page.evaluate(shown) == 400
    hand.keys("o")
    assert hand.page.evaluate(shown) == 76  # the border of 20 x 20
    hand.keys("o")
    hand.page.get_by_role("button", name="Hide liver").click()
    assert hand.page.evaluate(shown) == 0
    hand.page.get_by_role("button", name="Hide liver").click()
    assert hand.page.evaluate(shown) == 400
    np.testing.assert_array_equal(hand.drawn(), before)


def test_small_turns_add_up_without_tearing_the_shape(hand: Hand):
    hand.box((10, 28), (50, 32))
    hand.keys("v")
    hand.click((30, 30))
    hand.keys(" ".join(["Period"] * 30))  # thirty times 3 degrees
    rows, columns = np.nonzero(hand.drawn())
    assert np.ptp(rows) >= 38 and np.ptp(columns) <= 5 and len(rows) == 160
    hand.keys(" ".join(["Comma"] * 30))
    rows, columns = np.nonzero(hand.drawn())
    assert np.ptp(rows) <= 5 and np.ptp(columns) >= 38 and len(rows) == 160


def test_a_tool_key_in_the_middle_of_a_stroke_changes_nothing(hand: Hand):
    hand.keys("b")
    hand.page.get_by_label("Brush size in pixels").fill("4")
    hand.page.mouse.move(*hand.at((10, 10)))
    hand.page.mouse.down()
    hand.page.mouse.move(*hand.at((20, 10)))
    for key in ("g", "l", "Delete", "Escape"):
        hand.page.keyboard.press(key)
    hand.page.mouse.move(*hand.at((30, 10)))
    hand.page.mouse.up()
    found = hand.drawn()
    assert found[10, 10] == found[10, 29] == 1
    hand.keys("Control+z")
    assert (hand.drawn() == 0).all()


def test_alt_click_picks_a_class_and_keeps_the_tool_and_its_polygon(hand: Hand):
    hand.keys("2")
    hand.box((50, 50), (60, 60))
    hand.keys("1 p")
    for corner in ((10, 10), (30, 10), (30, 20)):
        hand.click(corner)
    hand.page.keyboard.down("Alt")
    hand.click((55, 55))
    hand.page.keyboard.up("Alt")
    hand.click((10, 20))
    hand.keys("Enter")
    np.testing.assert_array_equal(hand.drawn(), filled((50, 50, 60, 60, 2), (10, 10, 30, 20, 2)))


def test_a_chosen_shape_is_forgotten_when_its_class_is_edited(hand: Hand):
    hand.box((10, 10), (30, 30))
    hand.keys("v")
    hand.click((20, 20))
    hand.page.locator(".sx-menu summary").click()
    hand.page.get_by_role("button", name="Shrink").click()
    before = hand.drawn()
    hand.keys("ArrowRight Delete")
    np.testing.assert_array_equal(hand.drawn(), before)


def test_two_fingers_zoom_and_never_paint(hand: Hand):
    touch = """([kind, id, x, y]) => document.querySelector('.sx-view').dispatchEvent(new PointerEvent(kind,
        {pointerId: id, pointerType: 'touch', clientX: x, clientY: y, button: 0, bubbles: true}))"""

    def finger(kind: str, number: int, point: Point) -> None:
        hand.page.evaluate(touch, [kind, number, *hand.at(point)])

    for tool in ("g", "b", "l", "p"):
        hand.keys(tool)
        start, other = hand.at((20, 20)), hand.at((40, 40))
        for kind, number, (x, y) in (
            ("pointerdown", 7, start),
            ("pointerdown", 8, other),
            ("pointermove", 8, (other[0] + 60, other[1] + 60)),
            ("pointerup", 8, other),
            ("pointerup", 7, start),
        ):
            hand.page.evaluate(touch, [kind, number, x, y])
        hand.keys("Escape f")
    hand.box((50, 50), (52, 52))
    np.testing.assert_array_equal(hand.drawn(), filled((50, 50, 52, 52, 1)))
    hand.keys("2 g")
    finger("pointerdown", 9, (10, 10))
    finger("pointerup", 9, (10, 10))
    np.testing.assert_array_equal(hand.drawn() == 2, filled((50, 50, 52, 52, 1)) == 0)


def test_the_mask_as_it_was_opened_and_what_has_changed(hand: Hand):
    hand.box((10, 10), (30, 30))
    hand.drawn()
    hand.page.reload()
    hand.page.wait_for_selector(LOADED, timeout=30_000)
    hand.page.wait_for_timeout(500)
    hand.keys("2")
    hand.box((20, 20), (25, 40))
    hand.keys("0")
    hand.box((10, 10), (12, 12))
    painted = """wanted => {
        const layer = document.querySelector('.sx-layer-labels'), pixels = layer.getContext('2d').getImageData(0, 0, 64, 64).data;
        return pixels.filter((value, i) => i % 4 === 3 && value).length === wanted;
    }"""
    hand.page.wait_for_function(painted, arg=400 + 50 - 4)
    hand.page.get_by_label("Which mask is shown").select_option("base")
    hand.page.wait_for_function(painted, arg=400)
    hand.page.get_by_label("Which mask is shown").select_option("changes")
    hand.page.wait_for_function(painted, arg=100 + 4)
    hand.page.get_by_label("Which mask is shown").select_option("base")
    hand.box((12, 10), (13, 11))  # a stroke shows the mask that it changes
    assert hand.page.get_by_label("Which mask is shown").input_value() == "edit"
    np.testing.assert_array_equal(
        hand.drawn(), filled((10, 10, 30, 30, 1), (20, 20, 25, 40, 2), (10, 10, 12, 12, 0), (12, 10, 13, 11, 0))
    )


def test_the_card_of_keys_opens_and_takes_no_strokes(hand: Hand):
    hand.keys("?")
    expect(hand.page.get_by_role("dialog", name="Keys")).to_be_visible()
    hand.keys("2 Escape")
    expect(hand.page.get_by_role("dialog", name="Keys")).to_have_count(0)
    expect(hand.page.locator(".sx-class[data-index='1']")).to_have_attribute("aria-pressed", "true")
