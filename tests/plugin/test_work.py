"""Work in other threads."""

import subprocess
import sys
import textwrap
import threading

from superqt.utils import WorkerBase

from napari_nucseg._plugin import work


def test_work_that_can_be_stopped_does_not_keep_napari_from_closing(qtbot):
    stopped = threading.Event()
    ended = []
    worker = work.start(lambda: stopped.wait(60), ended.append, stopped.set)
    WorkerBase.await_workers(20_000)  # what napari does at its end; raises if work goes on
    assert stopped.is_set()
    qtbot.waitUntil(lambda: [outcome.value for outcome in ended] == [True])
    assert worker is not None


def test_how_work_ends_is_told_once(qtbot):
    told = []
    held = [work.start(lambda: 7, told.append), work.start(lambda: 1 / 0, told.append)]
    qtbot.waitUntil(lambda: len(told) == len(held))
    assert sorted(str(outcome.value) for outcome in told) == ["7", "None"]
    assert any(isinstance(outcome.error, ZeroDivisionError) for outcome in told)


def test_a_script_that_ends_while_work_is_under_way_waits_for_it(tmp_path):
    code = textwrap.dedent(
        """
        import multiprocessing, sys, threading
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        import napari
        from napari_nucseg._plugin import work

        stopped = threading.Event()

        def task():
            began.set()
            assert stopped.wait(30)  # which comes at the end of the process
            with ThreadPoolExecutor(1) as pool:
                pool.submit(Path(sys.argv[1]).write_text, "whole").result()

        began = threading.Event()
        viewer = napari.Viewer(show=False)
        held = work.start(task, lambda _: None, stopped.set)
        assert began.wait(30)
        child = multiprocessing.get_context("fork").Process(target=print)
        child.start()
        child.join(20)
        assert child.exitcode == 0  # a fork, which has none of the threads, waits for none
        viewer.close()
        """
    )
    file = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert file.read_text() == "whole"
