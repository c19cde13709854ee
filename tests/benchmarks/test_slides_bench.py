"""The whole command is watched with all its processes, and stages are set against what the machine can do."""

import math
import sys

import numpy as np
import pytest

from benchmarks import slides
from benchmarks._roofline import Peaks, fastest, memory_peak, multiply_adds, traffic
from benchmarks._stages import COMPUTING, WRITING, Work, run_stages, write_stages
from benchmarks._tree import watch
from benchmarks.timing import Stages
from napari_nucseg.errors import NucSegError
from napari_nucseg.inference import make_plan, run_tiles
from napari_nucseg.models.registry import find_model
from napari_nucseg.models.student import StudentConfig
from tests.fakes import FakeRuntime, fake_card

HOLD = "import time; x = bytearray(150_000_000); x[::4096] = b'1' * len(x[::4096]); time.sleep(1.5)"


def test_memory_of_children_counts():
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}]); {HOLD}"
    both = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {HOLD!r}]); {HOLD}; p.wait()"
    one, two = watch([sys.executable, "-c", code]), watch([sys.executable, "-c", both])
    assert (one.code, two.code) == (0, 0)
    assert 150e6 < one.rss < 280e6
    assert 300e6 < two.rss < 450e6
    assert two.processes == 2
    assert two.pss is None or two.pss <= two.rss


def test_what_a_command_printed_and_how_it_ended_is_known():
    usage = watch(
        [sys.executable, "-c", "import os, sys; print(os.environ['WHO']); sys.exit(3)"], {"WHO": "me"}
    )
    assert (usage.code, usage.output.strip()) == (3, "me")
    busy = watch(
        [sys.executable, "-c", "import time; t = time.process_time()\nwhile time.process_time() - t < 0.5: 0"]
    )
    assert busy.cpu_seconds == pytest.approx(0.5, abs=0.25)
    assert busy.seconds >= 0.5


def test_a_command_that_fails_is_one_sentence(tmp_path):
    with pytest.raises(NucSegError, match="ended with 2"):
        slides.run_command(tmp_path / "none.tif", tmp_path, None, [])


def test_the_stages_hold_all_work_and_the_table_every_stage(synthetic):
    plan = make_plan(synthetic.image[:200, :200], FakeRuntime(), fake_card(), mpp=0.25)
    tiles = [tile for block in plan.blocks for tile in run_tiles(plan, block)]
    stages, work = Stages(), Work()
    run_stages(plan, stages, work)
    write_stages(plan, tiles, stages, work)
    assert tuple(stages.seconds) == COMPUTING + WRITING
    assert work.owned == 200 * 200
    assert work.seen >= work.answered >= work.owned
    assert all(work.written[name] > 0 for name in WRITING)
    peaks = Peaks({"f32": 100.0}, {"f32": "any"}, 10.0)
    text = slides.roofline_table(plan, stages, work, peaks, 50_000)
    assert all(f"| {name} |" in text for name in COMPUTING + WRITING)
    assert "nan" not in text


def test_the_table_of_a_stage_is_its_bytes_over_its_seconds(synthetic):
    plan = make_plan(synthetic.image[:64, :64], FakeRuntime(), fake_card(), mpp=0.25)
    work = Work(seen=1000**2, answered=1000**2, decoded=1000**2, owned=1000**2)
    stages = Stages({"network": 2.0, "measure": 0.5})
    text = slides.roofline_table(plan, stages, work, Peaks({"f32": 100.0}, {"f32": ""}, 0.1), 50_000)
    assert "| network | 2.00 | 0.5 | 50 GFLOP/s | 100 GFLOP/s | 50.0 % |" in text
    assert traffic(plan.card, work, "f32")["measure"] == 7e6
    assert "| measure | 0.50 | 2.0 | 0.014 GB/s | 0.1 GB/s | 14.0 % |" in text


def test_multiply_adds_are_those_of_the_convolutions():
    model = find_model("default")
    counted = multiply_adds(model, 64)
    assert counted == multiply_adds(model, 128)  # none depends on the size
    config = StudentConfig.from_dict(model.card.network)
    stem = 4 * 4 * 3 * config.widths[0] / 4
    head = (9 * 2 * config.widths[0] ** 2 + 2 * config.widths[0] * 4 * config.layout.channels) / 4
    assert counted > stem + head


def test_the_peaks_are_numbers():
    assert 0.1 < memory_peak(1) < 10_000
    assert fastest(lambda: None, 0.01) < 0.01
    assert math.isfinite(np.float64(memory_peak(2)))
