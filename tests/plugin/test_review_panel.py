"""The review panel on a real session: what it shows, what its buttons call, why they cannot."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.qt import get_stylesheet
from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QLineEdit, QMainWindow

from napari_nucseg._plugin import review_panel, shortcuts_help
from napari_nucseg._plugin.region_field import SHAPES, VIEW
from napari_nucseg._plugin.review_fields import RED, swatch
from napari_nucseg._plugin.review_panel import BUTTONS, ReviewPanel
from napari_nucseg._plugin.shortcuts_help import (
    CENTRES,
    LABELS,
    SHORTCUTS,
    HelpKey,
    ShortcutsDialog,
    bindings,
)
from napari_nucseg.core.decode import DecodeConfig, Fields
from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.nuclei import UNCLASSIFIED, NucleusClass, State, record_dtype
from napari_nucseg.core.scale import Scale
from napari_nucseg.core.tiling import Box
from napari_nucseg.review_queue import ReviewQueue
from napari_nucseg.session import Session

CLASSES = tuple(
    NucleusClass(name, colour)
    for name, colour in {
        "neoplastic": (220, 40, 40),
        "inflammatory": (40, 170, 60),
        "connective": (60, 90, 220),
        "necrotic": (230, 200, 40),
        "non-neoplastic epithelial": (250, 130, 30),
    }.items()
)
ACROSS, PITCH, SIDE = 8, 8, 6


def make_session(count=40):
    """Square nuclei on a grid, ids 1, 2, ... in raster order; the higher the id, the surer; classes in turn."""
    shape = (PITCH * -(-count // ACROSS), PITCH * ACROSS)
    labels = np.zeros(shape, np.uint32)
    records = np.zeros(count, record_dtype(len(CLASSES)))
    for k in range(count):
        y, x = PITCH * (k // ACROSS), PITCH * (k % ACROSS)
        labels[y : y + SIDE, x : x + SIDE] = k + 1
        records["y"][k], records["x"][k] = y + 2, x + 2
    kinds = np.arange(count) % len(CLASSES)
    records["id"], records["kind"], records["area"] = np.arange(count) + 1, kinds, SIDE * SIDE
    records["state"], records["origin"] = State.PREDICTED, 1
    records["score"] = 0.3 + 0.6 * np.arange(count) / count
    records["prob"] = 0.05
    records["prob"][np.arange(count), kinds] = 0.8
    cache = FieldCache(shape, len(CLASSES))
    cache.put(Box(0, shape[0], 0, shape[1]), Fields.empty(shape, len(CLASSES)))
    return Session(labels, records, CLASSES, Scale(shape, shape), DecodeConfig(), cache)


class Recorder:
    """Stands for the actions: notes what is called."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


class Bench:
    """A panel on a session, beside a viewer without a window."""

    def __init__(self, qtbot, viewer):
        self.asked, self.answer = [], True
        self.viewer, self.session, self.actions = viewer, make_session(), Recorder()
        self.queue = ReviewQueue(self.session)
        self.panel = ReviewPanel(viewer, self._ask)
        qtbot.addWidget(self.panel)
        self.panel.set_review(self.session, self.queue, self.actions)
        self.panel.show()

    def _ask(self, _parent, *about):
        self.asked.append(about)
        return self.answer

    def select(self, *ids):
        self.panel.set_selected(ids)
        self.panel.refresh()

    def press(self, name):
        self.panel.buttons[name].click()

    def why_not(self, name):
        made = self.panel.buttons[name]
        return None if made.isEnabled() else made.toolTip()


@pytest.fixture
def bench(qtbot):
    made = Bench(qtbot, ViewerModel())
    yield made
    made.panel.release()


def test_buttons_call_the_actions(bench):
    bench.session.accept([7])
    bench.select(1, 2)
    for name in ("previous", "next", "accept", "reject", "merge", "undo"):
        bench.press(name)
    bench.panel.classes.buttons[2].click()
    bench.panel.help_button.click()
    names = ["previous", "next", "accept", "reject", "merge", "undo"]
    assert bench.actions.calls == [*((name,) for name in names), ("retype", 2), ("help",)]


def test_what_cannot_be_done_says_why(bench):
    for name in ("accept", "reject", "merge", "unlock"):
        assert "Select a nucleus first" in bench.why_not(name)
    assert bench.why_not("undo") == "There is nothing to undo."
    bench.select(1)
    assert bench.why_not("accept") is None
    assert "two or more" in bench.why_not("merge")
    assert "locked" in bench.why_not("unlock")
    bench.select(1, 2)
    assert bench.why_not("merge") is None
    bench.panel.set_busy("A run is under way; wait for its end.")
    assert {bench.why_not(name) for name in BUTTONS} == {"A run is under way; wait for its end."}
    assert not bench.panel.classes.buttons[0].isEnabled()
    assert not bench.panel.retype.apply.isEnabled()
    bench.panel.set_busy(None)
    assert bench.why_not("accept") is None


def test_a_rejected_nucleus_can_only_be_restored(bench):
    bench.session.reject([3])
    bench.select(3)
    assert bench.why_not("accept") is None
    assert "accept it to restore" in bench.why_not("reject")
    assert not bench.panel.classes.buttons[0].isEnabled()
    assert "rejected" in bench.panel.current.text


def test_undo_names_the_step_after_an_edit(bench, qtbot):
    bench.session.retype([4], 1)
    qtbot.waitUntil(lambda: bench.why_not("undo") is None)
    assert bench.panel.buttons["undo"].toolTip() == "Take back: Set class inflammatory. Key: Ctrl+Z"
    bench.session.undo()
    qtbot.waitUntil(lambda: bench.why_not("redo") is None)
    assert "Set class inflammatory" in bench.panel.buttons["redo"].toolTip()


def test_the_selected_nucleus_is_described(bench):
    bench.select(2)
    head, rest = bench.panel.current.text.splitlines()
    assert head == "Nucleus 2: inflammatory 80%"
    doubt = bench.queue.doubt_of(2)
    assert rest == f"predicted · score 0.31 · doubt {doubt:.2f}: faint centre"
    bench.session.retype([2], 0)
    bench.select(2)
    assert bench.panel.current.text.splitlines() == ["Nucleus 2: neoplastic", "edited · score 0.31"]
    bench.select(1, 2, 6)
    assert bench.panel.current.text.splitlines() == ["3 nuclei selected", "3 neoplastic"]
    bench.select()
    assert "39 left to review" in bench.panel.current.text


def test_progress_follows_the_edits(bench, qtbot):
    bar = bench.panel.progress
    assert (bar.value(), bar.maximum(), bar.text()) == (0, 40, "0 of 40 reviewed")
    bench.session.accept([1, 6, 11])
    bench.session.reject([2])
    qtbot.waitUntil(lambda: bar.value() == 4)
    assert bar.text() == "4 of 40 reviewed"
    assert [bench.panel.classes.count_text(k) for k in range(3)] == ["3 of 8", "1 of 8", "0 of 8"]


def test_many_edits_in_a_row_are_shown_together(bench, qtbot, monkeypatch):
    shown = []
    monkeypatch.setattr(bench.panel.progress, "show_progress", lambda *about: shown.append(about))
    for id_ in range(1, 21):
        bench.session.accept([id_])
    qtbot.waitUntil(lambda: bool(shown) and shown[-1][0].all.reviewed == 20)
    assert len(shown) < 5


def test_a_class_that_comes_gets_a_button(bench, qtbot):
    bench.session.class_index("mitosis", (1, 2, 3))
    qtbot.waitUntil(lambda: len(bench.panel.classes.buttons) == 6)
    assert bench.panel.classes.buttons[5].text() == "6  mitosis"
    assert bench.panel.filter.kind.findText("mitosis") > 0
    assert bench.panel.retype.new.findText("mitosis") > 0


@pytest.mark.parametrize("answer", [True, False])
def test_a_class_is_retyped_only_after_a_question_with_the_number(bench, answer):
    bench.answer = answer
    assert "two different" in bench.panel.retype.apply.toolTip()
    bench.panel.retype.old.setCurrentIndex(1)
    bench.panel.retype.apply.click()
    assert bench.asked == [(8, "inflammatory", "neoplastic")]
    assert bench.actions.calls == ([("retype_class", 1, 0)] if answer else [])


def test_retyping_a_class_that_nobody_has_asks_nothing(bench):
    bench.panel.retype.old.setCurrentIndex(len(CLASSES))
    assert bench.panel.retype.old_kind == UNCLASSIFIED
    bench.panel.retype.apply.click()
    assert bench.asked == []
    assert "unclassified" in bench.panel._problem.text()


def test_the_filter_narrows_the_queue(bench):
    choose = bench.panel.filter
    with_signal = []
    bench.panel.filter_changed.connect(lambda: with_signal.append(bench.queue.remaining))
    choose.kind.setCurrentText("connective")
    choose.high.setValue(0.6)
    assert with_signal == [8, 4]
    assert choose.fold.text() == "▸ Filter: connective, score 0.00–0.60"
    choose.reset_button.click()
    assert bench.queue.remaining == 40
    assert choose.fold.text() == "▸ Filter"
    assert not choose.reset_button.isEnabled()


def test_the_filter_leads_to_the_rejected_and_the_unclassified(bench):
    bench.session.reject([5])
    bench.panel.filter.state.setCurrentText("Rejected")
    assert bench.queue.next() == 5
    bench.panel.filter.reset()
    bench.panel.filter.kind.setCurrentText("unclassified")
    assert bench.queue.filter.kinds == {UNCLASSIFIED}


def test_shapes_are_a_region_of_the_filter(bench):
    image = bench.viewer.add_image(np.zeros(bench.session.labels.shape), scale=(0.5, 0.5))
    bench.panel.set_image(image)
    shapes = bench.viewer.add_shapes([np.array([[0, 0], [0, 7], [3.5, 7], [3.5, 0]])], shape_type="polygon")
    field = bench.panel.filter.region.box
    field.setCurrentIndex(SHAPES)
    assert bench.queue.remaining == 2
    shapes.data = [np.array([[0, 0], [0, 20], [3.5, 20], [3.5, 0]])]
    assert bench.queue.remaining == 5
    bench.viewer.add_points([[0, 0]])
    bench.viewer.layers.remove(shapes)
    assert bench.queue.remaining == 40


def test_layers_that_come_do_not_begin_a_new_round(bench):
    changes = []
    bench.panel.filter_changed.connect(lambda: changes.append(1))
    bench.viewer.add_points([[0, 0]])
    bench.viewer.add_shapes([np.array([[0, 0], [0, 9], [9, 9.0]])], shape_type="polygon")
    assert changes == []


def test_the_view_is_that_of_the_moment_in_which_it_is_chosen(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy(show=True)
    bench = Bench(qtbot, viewer)
    image = viewer.add_image(np.zeros(bench.session.labels.shape))
    bench.panel.set_image(image)
    viewer.reset_view()
    qtbot.wait(200)
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
    field = bench.panel.filter.region.box
    camera.zoom *= 8
    camera.center = (20, 20)
    qtbot.wait(100)
    field.setCurrentIndex(VIEW)
    field.activated.emit(VIEW)
    few = bench.queue.remaining
    assert 0 < few < 20
    box = bench.queue.filter.box
    camera.center = (5, 5)
    viewer.add_points([[0, 0]])
    assert bench.queue.filter.box == box
    field.activated.emit(VIEW)
    assert bench.queue.filter.box != box
    bench.panel.release()


def test_without_a_review_there_is_only_the_way_to_begin_one(bench):
    clicks = []
    bench.panel.click_toggled.connect(clicks.append)
    bench.panel.set_review(None)
    assert not bench.panel.body.isVisible()
    assert not bench.panel.help_button.isEnabled()
    bench.panel.click.click()
    bench.panel.click.click()
    assert clicks == [True, False]
    bench.panel.set_clicking(True)
    assert clicks == [True, False], "what the program says is not what the user did"
    bench.panel.set_click_reason("There is no image; open one.")
    assert not bench.panel.click.isEnabled()
    assert bench.panel.click.toolTip() == "There is no image; open one."
    bench.session.accept([1])  # no longer listened to
    assert not bench.panel._timer.isActive()


def test_it_says_where_the_review_is_saved(bench):
    saved = bench.panel.saved
    saved.show_saved(
        datetime(2026, 1, 2, 9, 5), Path("/a/very/long/way/to/the/slides/of/case 12/tissue.nucseg")
    )
    assert saved.text == "Saved 09:05 in …/tissue.nucseg"
    assert RED not in saved._line.styleSheet()
    saved.show_text("The disk is full; choose another folder.", alarm=True)
    assert RED in saved._line.styleSheet()
    wanted = []
    bench.panel.folder_clicked.connect(lambda: wanted.append("folder"))
    bench.panel.import_clicked.connect(lambda: wanted.append("import"))
    saved.folder.click()
    bench.panel.import_button.click()
    assert wanted == ["folder", "import"]


def test_it_fits_a_narrow_dock(bench):
    bench.panel.setStyleSheet(get_stylesheet("dark"))
    bench.panel.filter.fold.expand()
    bench.panel.filter.kind.setCurrentText("non-neoplastic epithelial")
    bench.panel.filter.state.setCurrentText("To be reviewed")
    bench.panel.filter.high.setValue(0.5)
    bench.panel.retype_fold.expand()
    bench.select(1)
    assert bench.panel.minimumSizeHint().width() <= 280
    bench.panel.resize(280, 900)
    for made in (
        *bench.panel.buttons.values(),
        *bench.panel.classes.buttons,
        bench.panel.click,
        bench.panel.import_button,
    ):
        assert made.fontMetrics().horizontalAdvance(made.text()) <= made.width() - 8, made.text()


def test_clicks_on_buttons_leave_the_keyboard_to_the_canvas(bench, qtbot):
    edit = QLineEdit(bench.panel)
    edit.show()
    bench.panel.activateWindow()
    edit.setFocus()
    qtbot.waitUntil(edit.hasFocus)
    qtbot.mouseClick(bench.panel.buttons["next"], Qt.MouseButton.LeftButton)
    assert bench.actions.calls == [("next",)]
    assert edit.hasFocus()


def test_every_key_is_shown_once_and_bound_once_on_a_layer():
    for layer in (CENTRES, LABELS):
        keys = [key for shortcut in SHORTCUTS if layer in shortcut.layers for key in shortcut.keys]
        ours = [binding.key for binding in bindings(layer)]
        assert len(set(ours)) == len(ours)
        assert set(ours) <= set(keys)
    digits = [binding for binding in bindings(CENTRES) if binding.action == "retype"]
    assert digits[0] == ("1", "retype", (0,))
    assert len(digits) == 9


def test_every_key_of_the_table_has_an_action():
    from napari_nucseg._plugin.review_actions import ReviewActions

    for shortcut in SHORTCUTS:
        assert shortcut.action is None or callable(getattr(ReviewActions, shortcut.action, None)), shortcut
    assert all(
        hasattr(ReviewActions, name) for name in vars(review_panel.Actions) if not name.startswith("_")
    )


def test_our_keys_leave_napari_the_tools_that_it_has():
    """On Labels every tool stays; on Points selecting, moving the view and deleting do."""
    from napari.utils.key_bindings import coerce_keybinding
    from napari.utils.shortcuts import default_shortcuts

    tools = {
        LABELS: [name for name in default_shortcuts if "_labels_" in name or "brush" in name],
        CENTRES: ["napari:activate_points_select_mode", "napari:activate_points_pan_zoom_mode"],
    }
    for layer, names in tools.items():
        ours = {str(coerce_keybinding(binding.key)) for binding in bindings(layer)}
        for name in names:
            assert any(str(coerce_keybinding(key)) not in ours for key in default_shortcuts[name]), name


def test_the_help_key_opens_a_list_of_all_keys(qtbot):
    window = QMainWindow()
    qtbot.addWidget(window)
    dialog = ShortcutsDialog(window)
    key = HelpKey(window, dialog.show_up)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    key.set_enabled(False)
    qtbot.keyClick(window, "?")
    assert not dialog.isVisible()
    key.set_enabled(True)
    qtbot.keyClick(window, "?")
    qtbot.waitUntil(dialog.isVisible)
    shown = [label.text() for label in dialog.findChildren(shortcuts_help.QLabel)]
    for shortcut in SHORTCUTS:
        assert shortcut.label in shown
        assert shortcut.text in shown
        assert f"| `{shortcut.label}` | {shortcut.text} |" in shortcuts_help.markdown()
    key.release()
    dialog.close()


def test_a_class_has_its_colour_while_its_button_is_off(qapp):
    icon = swatch((200, 30, 40))
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Disabled):
        assert icon.pixmap(28, 28, mode).toImage().pixelColor(14, 14).getRgb()[:3] == (200, 30, 40)
