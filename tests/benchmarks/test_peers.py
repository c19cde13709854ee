"""The peers do the work that they are timed for, and one that cannot be had is named with the reason."""

import json
import sys

import numpy as np
import pytest
from scipy import ndimage

from benchmarks import peers
from benchmarks._hv_decode import HVMaps, decode, vote
from benchmarks._peer import Report
from benchmarks._peer_env import NotInstalled, call, environment
from napari_nucseg.core.targets import distance_maps
from napari_nucseg.errors import NucSegError


@pytest.fixture(scope="module")
def discs():
    """Labels of 36 discs, the pairs of a row touching each other, in two classes."""
    labels, types = np.zeros((200, 220), np.int32), np.zeros((200, 220), np.uint8)
    y, x = np.mgrid[:200, :220]
    number = 0
    for row in range(6):
        for column in range(6):
            number += 1
            centre_x = 20 + 34 * column - (10 if column % 2 else 0)
            disc = (y - 20 - 30 * row) ** 2 + (x - centre_x) ** 2 <= 12.5**2
            labels[disc & (labels == 0)] = number
            types[disc] = 1 + number % 2
    return labels, types


def test_the_network_has_the_published_size_and_answers_for_the_inner_pixels():
    import torch

    from benchmarks._hovernet import INNER, WINDOW, HoverNet

    with torch.device("meta"):  # shapes without the work
        net = HoverNet().eval()
        answers = net(torch.zeros(1, 3, WINDOW, WINDOW))
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(37.64e6, rel=1e-3)
    assert [tuple(a.shape) for a in answers] == [(1, n, INNER, INNER) for n in (2, 2, 6)]


def test_windows_cover_the_image_mirrored_at_its_edges():
    from benchmarks._hovernet import INNER, WINDOW
    from benchmarks._peer_hovernet import windows

    image = np.random.default_rng(0).integers(0, 255, (200, 340, 3), np.uint8)
    parts = windows(image, 99)
    assert parts.shape == (2 * 3, 3, WINDOW, WINDOW)
    edge = (WINDOW - INNER) // 2
    inner = parts[:, :, edge : edge + INNER, edge : edge + INNER].transpose(0, 2, 3, 1)
    assert (inner[0] == image[:INNER, :INNER]).all()
    assert (inner[1] == image[:INNER, INNER : 2 * INNER]).all()
    assert (inner[5][: 200 - INNER, : 340 - 2 * INNER] == image[INNER:, 2 * INNER :]).all()
    assert len(windows(image, 4)) == 4


def test_the_classical_decode_finds_touching_nuclei_and_their_classes(discs):
    labels, types = discs
    maps = HVMaps((labels > 0).astype(np.float32), distance_maps(labels, (0, 90)), types)
    assert ndimage.label(labels > 0)[1] == 18  # pairs touch: the foreground alone does not tell them apart
    found = decode(maps)
    assert found.max() == 36
    overlap = [np.bincount(labels[found == k]).max() / (found == k).sum() for k in range(1, 37)]
    assert min(overlap) > 0.9
    votes = vote(found, types)
    assert len(votes) == 36
    for centroid, kind in votes.values():
        y, x = centroid.round().astype(int)
        assert kind == types[y, x]


def test_a_program_that_fails_says_why():
    with pytest.raises(NotInstalled, match="no such wheel"):
        call([sys.executable, "-c", "import sys; sys.exit('first line\\nno such wheel\\n')"])
    with pytest.raises(NotInstalled, match="longer than 0 s"):
        call([sys.executable, "-c", "import time; time.sleep(9)"], longest=0.2)


def test_an_environment_is_made_once_and_anew_after_a_failure(tmp_path, monkeypatch):
    calls = []

    def fake(command, longest=0.0):
        calls.append(command)
        if "install" in command and len(calls) == 2:
            raise NotInstalled("no network")
        if "venv" in command:
            folder = tmp_path / command[-1] / "bin"
            folder.mkdir(parents=True)
            (folder / "python").touch()

    monkeypatch.setattr("benchmarks._peer_env.call", fake)
    with pytest.raises(NotInstalled, match="no network"):
        environment(("nothing",), tmp_path)
    python = environment(("nothing",), tmp_path)
    assert python.exists()
    assert len(calls) == 4
    assert environment(("nothing",), tmp_path) == python
    assert len(calls) == 4


def fake_contend(name, folder, rounds, threads):
    """Return what a contender would report for an image of 1 MP."""
    reports = {
        "ours-default": Report((0.4, 0.5), (0.2,), 900, "ours", together=(0.5, 0.6), parameters=4_000_000),
        "skimage": Report((), (1.6,), 905, "theirs"),
    }
    if name not in reports:
        raise NotInstalled("No matching distribution found for stardist")
    reports[name].write(folder, name)
    return Report.read(folder, name)


def test_ratios_are_to_ours_and_what_failed_says_why(monkeypatch):
    monkeypatch.setattr(peers, "contend", fake_contend)
    rows = peers.compare(np.zeros((1000, 1000, 3), np.uint8), ["ours-default", "skimage", "stardist"], 1, 1)
    first, second, third = peers.table(rows, 1.0).splitlines()[2:]
    assert "| 2.5 | 5 | 2 | 1.0x | 900 | 4.0 M |" in first
    assert "| 2.5 | 0.625 | 0.5 | 4.0x | 905 | ours |" in second  # our network, then its own decode
    assert "No matching distribution" in third


def test_without_ours_there_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(peers, "contend", fake_contend)
    with pytest.raises(NucSegError, match="No matching distribution"):
        peers.compare(np.zeros((8, 8, 3), np.uint8), ["stardist"], 1, 1)


def test_a_report_survives_the_way_through_a_file(tmp_path):
    report = Report((1.0, 2.0), (3.0,), 4, "v", together=(), note="n", parameters=5)
    report.write(tmp_path, "x")
    assert Report.read(tmp_path, "x") == report
    assert json.loads((tmp_path / "x.json").read_text())["nuclei"] == 4
