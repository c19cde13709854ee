"""What keys and buttons do in a review."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_nucseg._plugin.review_points import Overlay
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg._plugin.review import Review

SELECT_FIRST = "Select a nucleus first: N goes to a doubtful one, S selects with the mouse."


class ReviewActions:
    """The actions of one review, on the nuclei that are selected.

    Parameters
    ----------
    review : Review
    """

    def __init__(self, review: Review) -> None:
        self._review = review
        self._help: Any = None
        self.current: int | None = None
        """The nucleus that the queue has led to."""

    def selected(self) -> list[int]:
        """Return the ids of the nuclei that an action is about.

        With the centres those selected; with the labels the one of the selected label. A rejected one, which has
        neither, counts as selected as long as the queue stands there.
        """
        found = self._review.selected()
        if found:
            return found
        if self.current is not None and not self._review.is_live(self.current):
            return [self.current]
        return []

    def next(self) -> None:
        """Go to the next doubtful nucleus."""
        self._go_on(self._place())

    def previous(self) -> None:
        """Go back to the nucleus before."""
        id_ = self._review.queue.previous(self._place())
        if id_ is None:
            self._review.say("There is no nucleus before this one.")
        else:
            self._show(id_)

    def accept(self) -> None:
        """Accept the selected nuclei, or restore rejected ones."""
        self._do(lambda ids: self._review.session.accept(ids))

    def reject(self) -> None:
        """Reject the selected nuclei."""
        self._do(lambda ids: self._review.session.reject(ids), hides=True)

    def retype(self, kind: int) -> None:
        """Set the class of the selected nuclei.

        Parameters
        ----------
        kind : int
            Index of the class; key 1 stands for 0.
        """
        classes = self._review.session.classes
        if kind >= len(classes):
            self._review.say(
                f"There are {len(classes)} classes; key {kind + 1} stands for none of them.", True
            )
            return
        self._do(lambda ids: self._review.session.retype(ids, kind))

    def retype_class(self, old: int, new: int) -> None:
        """Give all nuclei of one class another one."""
        self._review.edits.do(lambda: self._review.session.retype_class(old, new))

    def merge(self) -> None:
        """Merge the selected nuclei into one."""
        ids = self.selected()
        if len(ids) < 2:
            self._review.say("Select two or more nuclei to merge: S, then Shift+click or a box.", True)
            return
        merged = self._review.edits.do(lambda: self._review.session.merge(ids))
        if merged is not None:
            self._review.select([int(merged)])

    def unlock(self) -> None:
        """Segment drawn nuclei again from their centres."""
        self._do(lambda ids: self._review.session.unlock(ids), goes_on=False)

    def undo(self) -> None:
        """Take back the last edit, or one that still waits for the network."""
        if not self._review.edits.cancel(all_of_them=False):
            self._review.edits.when_free(
                lambda: self._step(self._review.session.undo, "There is nothing to undo.")
            )

    def redo(self) -> None:
        """Make the edit again that was taken back."""
        if not self._review.edits.waiting:
            self._review.edits.when_free(
                lambda: self._step(self._review.session.redo, "There is nothing to do again.")
            )

    def cancel(self) -> None:
        """Forget the edits that wait for the network; without any, end clicking to segment."""
        if not self._review.edits.cancel():
            self._review.set_clicking(False)

    def click_to_segment(self) -> None:
        """Begin to add a nucleus with every click, or end it."""
        self._review.set_clicking(not self._review.clicking)

    def help(self) -> None:
        """Show the keys."""
        from napari_nucseg._plugin.shortcuts_help import ShortcutsDialog

        if self._help is None:
            self._help = ShortcutsDialog(self._review.window())
        self._help.show_up()

    def close(self) -> None:
        """Take the list of keys away."""
        if self._help is not None:
            self._help.close()
            self._help.deleteLater()
            self._help = None

    def _do(self, edit: Callable[[list[int]], Any], hides: bool = False, goes_on: bool = True) -> None:
        """Make an edit of the selected nuclei; where it was the one that the queue has led to, go on."""
        ids = self.selected()
        if not ids:
            self._review.say(SELECT_FIRST, True)
            return
        walking = goes_on and ids == [self.current]
        edits, before = self._review.edits, self._review.refusals
        edits.do(lambda: edit(ids), Overlay(hidden=set(ids)) if hides else None)
        if walking and self._review.refusals == before:
            self._go_on(self.current)

    def _place(self) -> int | None:
        ids = self.selected()
        return ids[0] if len(ids) == 1 else self.current

    def _go_on(self, after: int | None) -> None:
        id_ = self._review.queue.next(after)
        if id_ is None:
            self.current = None
            self._review.mark_place(None)
            self._review.say("Every nucleus of the filter is reviewed.")
        else:
            self._show(id_)

    def _show(self, id_: int) -> None:
        self.current = id_
        self._review.look_at(id_)
        if not self._review.is_live(id_):
            self._review.say(f"Nucleus {id_} is rejected; A brings it back.")

    def _step(self, step: Callable[[], Any], nothing: str) -> None:
        try:
            change = step()
        except NucSegError as error:
            self._review.say(str(error), True)
            return
        if change is None:
            self._review.say(nothing)
            return
        self._review.say(f"{change.name}.")
        self._review.reveal(change)
