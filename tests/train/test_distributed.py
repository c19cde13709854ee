"""Two processes train like one with the double batch, and only the first of them writes."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_nucseg.errors import NucSegError
from tests.train.toy_run import MadeUp, by_step, gradients, make_distillation, make_loop
from train import distributed
from train.crops import loader

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes under torchrun wrote."""
    folder = tmp_path_factory.mktemp("pair")
    script = Path(__file__).with_name("toy_run.py")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        script,
        folder,
    ]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        list(map(str, command)),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max())), name


def metrics(folder):
    with (folder / "metrics.csv").open(newline="") as handle:
        return {row["name"]: float(row["value"]) for row in csv.DictReader(handle)}


def test_gradients_and_losses_are_those_of_the_double_batch(pair, tmp_path):
    """Of all the real losses, with crops that hold unequally much, and half of them without classes."""
    whole = make_loop(tmp_path, steps=1, batch_size=4, held=MadeUp(), validation_crops=6)
    whole.fit(by_step)
    for rank in (0, 1):
        assert_same(torch.load(pair / f"gradients_{rank}.pt"), gradients(whole))
        assert_same(torch.load(pair / f"average_{rank}.pt"), whole.average.state_dict())
    ours, theirs = metrics(tmp_path), metrics(pair / "one_0")
    for name in ours:
        if name.startswith("train/"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4), name


def test_accumulated_gradients_see_the_same_crops_in_any_number_of_processes(pair, tmp_path):
    whole = make_loop(tmp_path, steps=1, batch_size=4, accumulate=2)
    whole.fit(by_step)
    for rank in (0, 1):
        assert_same(torch.load(pair / f"parts_{rank}.pt"), gradients(whole))


def test_only_the_first_writes(pair):
    assert {"last.pt", "best.pt", "metrics.csv"} <= {p.name for p in (pair / "one_0").iterdir()}
    assert not (pair / "one_1").exists()


def test_losses_on_held_crops_are_shared_out(pair, tmp_path):
    alone = make_loop(tmp_path, steps=1, held=MadeUp(), validation_crops=6)
    alone.average.load_state_dict(torch.load(pair / "average_0.pt"))
    wanted = alone._held_losses()
    assert wanted["loss_total"] > 0
    for name, value in wanted.items():
        assert metrics(pair / "one_0")[f"val/{name}"] == pytest.approx(value, rel=1e-4)


def test_all_stop_when_the_first_says_so_and_hold_the_same_weights(pair):
    said = [json.loads((pair / f"said_{rank}.json").read_text()) for rank in (0, 1)]
    assert [step for step, _ in said] == [6, 6]  # best at 2, nothing better at 4 and 6
    states = [torch.load(pair / f"norm_{rank}.pt") for rank in (0, 1)]
    for name, value in states[0].items():  # the running statistics of batch norm, too
        assert torch.equal(value, states[1][name]), name
    assert torch.load(pair / "norm" / "best.pt")["step"] == 2


def test_all_stop_at_the_same_step_when_one_is_told_to(pair):
    said = [json.loads((pair / f"stopped_{rank}.json").read_text()) for rank in (0, 1)]
    assert said[0] == said[1]
    assert said[0][0] == torch.load(pair / "stopped" / "last.pt")["step"] == 3
    assert "at step 3 of 50, which is saved" in said[0][1]


def test_processes_distil_together_even_if_one_has_no_labels(pair):
    states = [torch.load(pair / f"distilled_{rank}.pt") for rank in (0, 1)]
    before = make_distillation().state_dict()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
        assert torch.isfinite(value).all()
    assert states[0]["passes"] == 4
    for name in ("task.network.stem.conv.weight", "projections.0.weight"):
        assert not torch.equal(states[0][name], before[name])
    assert metrics(pair / "distilled_0")["train/foreground"] > 0


def test_a_run_folder_which_not_all_see_is_named(pair):
    for rank in (0, 1):
        assert "is not the same for every process" in json.loads((pair / f"said_{rank}.json").read_text())[1]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_deal_the_batches_out_in_turn(world):
    def batches(share):
        return [batch["image"] for batch in loader(MadeUp(), 3, 22, 2, 0, share)]

    whole, shares = batches((0, 1)), [batches((rank, world)) for rank in range(world)]
    assert len(whole) == 9  # the odd crop at the end is left out
    dealt = [shares[k % world][k // world] for k in range(9)]
    assert all(torch.equal(a, b) for a, b in zip(whole, dealt, strict=True))


def test_a_single_process_needs_nobody():
    values = torch.ones(2)
    assert distributed.total(values) is values
    with distributed.joint():
        assert distributed.total(values) is values
    assert distributed.gathered("a") == ["a"]
    assert distributed.from_lead(3) == 3
    parts = torch.tensor([[1.0, float("nan"), 2.0], [3.0, 5.0, float("nan")]])
    assert distributed.known_mean(parts, 0) == [2.0, 5.0, 2.0]
    assert math.isnan(distributed.known_mean(parts, 2)[2])  # a total that is no number is told
    assert distributed.anyone(True, torch.device("cpu"))


def test_a_cuda_device_is_named_by_its_number(monkeypatch):
    """Torch does not make "cuda" without a number the current device; what it takes is checked by its own code."""
    made: list[int] = []
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda d: made.append(torch.cuda._utils._get_device_index(d))
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert distributed.join("cuda") == torch.device("cuda", 0)
    assert distributed.join("cuda:2") == torch.device("cuda", 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.join("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(NucSegError, match=r"on cuda:3, but torch finds 3 .* --nproc-per-node"):
        distributed.join("cuda")
    assert made == [0, 2, 1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(NucSegError, match="one device for several processes; set device=cuda"):
        distributed.join("cuda:2")


def test_processes_that_cannot_meet_are_told(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        NucSegError, match=r"The 2 processes of WORLD_SIZE cannot meet \(.+\); start them with torchrun"
    ):
        distributed.join("cpu")
