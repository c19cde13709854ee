from __future__ import annotations

import io
import urllib.error
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_nucseg._plugin import sample
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from pathlib import Path


class Answer(io.BytesIO):
    def __init__(self, data: bytes, url: str = sample.CMU1_URL):
        super().__init__(data)
        self.url = url

    def geturl(self) -> str:
        return self.url


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch):
    """Say what the network answers; returns the list of what was asked."""
    asked: list[str] = []

    def answer_with(answer):
        def urlopen(url: str, timeout: float):
            asked.append(url)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(sample.urllib.request, "urlopen", urlopen)
        return asked

    return answer_with


@pytest.fixture
def slide(shared: Path) -> bytes:
    path = shared / "wsi" / "CMU-1-Small-Region.svs"
    if not path.exists():
        pytest.skip("the slide is not among the real data")
    return path.read_bytes()


@pytest.fixture
def tiny_slide(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Stand in for the slide with a few bytes."""
    data = b"II*\x00 a slide"
    monkeypatch.setattr(sample, "CMU1_BYTES", len(data))
    monkeypatch.setattr(sample, "CMU1_SHA256", sample.hashlib.sha256(data).hexdigest())
    return data


def test_synthetic_sample_is_an_image_in_um_with_hidden_truth():
    (image, image_meta, image_type), (labels, truth_meta, truth_type) = sample.synthetic_sample()
    assert (image_type, truth_type) == ("image", "labels")
    assert image.shape == (*labels.shape, 3)
    assert image_meta["scale"] == truth_meta["scale"] == (0.25, 0.25)
    assert image_meta["rgb"]
    assert not truth_meta["visible"]
    np.testing.assert_array_equal(truth_meta["features"]["index"], np.arange(1, labels.max() + 1))


def test_synthetic_sample_opens_in_napari(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy()
    viewer.open_sample("napari-nucseg", "synthetic_he")
    image, truth = viewer.layers
    assert image.rgb
    assert [str(u) for u in image.units] == ["micrometer", "micrometer"]
    np.testing.assert_allclose(image.scale, (0.25, 0.25))
    assert not truth.visible
    truth.visible = True
    pixel = np.argwhere(truth.data == 1)[0]
    status = truth.get_status(pixel * 0.25, world=True)
    assert f"class: {truth.features['class'][0]}" in status["coordinates"]


def test_download_is_checked_kept_and_not_repeated(web, tiny_slide: bytes, tmp_path: Path):
    asked = web(Answer(tiny_slide))
    path = sample.fetch_cmu1(tmp_path / "new" / "folder")
    assert path.read_bytes() == tiny_slide
    assert [p.name for p in path.parent.iterdir()] == ["CMU-1-Small-Region.svs"]
    assert sample.fetch_cmu1(path.parent) == path
    assert asked == [sample.CMU1_URL]
    assert sample.CMU1_URL.startswith("https://")


def test_a_damaged_file_in_the_cache_is_replaced(web, tiny_slide: bytes, tmp_path: Path):
    web(Answer(tiny_slide))
    (tmp_path / "CMU-1-Small-Region.svs").write_bytes(b"x" * len(tiny_slide))
    assert sample.fetch_cmu1(tmp_path).read_bytes() == tiny_slide


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (urllib.error.URLError("Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
        (Answer(b"slide", "http://elsewhere.org/slide"), "not https"),
        (Answer(b"<html>please log in</html>"), "not the sample slide"),
    ],
)
def test_no_network_is_one_sentence_with_the_way_out(web, tmp_path: Path, answer, reason: str):
    web(answer)
    with pytest.raises(NucSegError) as error:
        sample.fetch_cmu1(tmp_path)
    text = str(error.value)
    assert reason in text
    assert str(tmp_path / "CMU-1-Small-Region.svs") in text
    assert "\n" not in text
    assert list(tmp_path.iterdir()) == []


def test_the_real_slide_has_the_checksum_and_opens_as_a_pyramid_in_um(
    monkeypatch: pytest.MonkeyPatch, slide: bytes, web, tmp_path: Path
):
    web(Answer(slide))
    monkeypatch.setattr(sample.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    [(data, meta, kind), *_] = sample.cmu1_sample()
    assert kind == "image"
    assert meta["scale"][:2] == pytest.approx((0.499, 0.499))
    level0 = data[0] if meta.get("multiscale") else data
    assert level0.shape == (2967, 2220, 3)
    known = sample.synthetic_sample()[0][1]["metadata"]["napari_nucseg"]
    assert set(known) == set(meta["metadata"]["napari_nucseg"]), "the panel finds the resolution in one way"
