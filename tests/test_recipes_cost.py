"""What an experiment costs: counted as the paper counts, timed as it then takes, and nothing written."""

import numpy as np
import pandas as pd
import pytest
import steps as work
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lsdask.cli import app
from lsdask.recipes import cost, garcia2022, grid, papers, soares2020
from lsdask.recipes.steps import Step
from lsdask.recipes.tables import published


@pytest.fixture
def pictures(tmp_path):
    """A folder of 770 pictures by name."""
    for kind in ("image", "mask"):
        (tmp_path / "landslide" / kind).mkdir(parents=True)
        for number in range(770):
            (tmp_path / "landslide" / kind / f"{number:03}.png").touch()
    return tmp_path


def test_the_papers_tiles_are_counted(pictures):
    steps = soares2020.steps(pictures)
    loads = soares2020.loads(steps, {})
    table = pd.DataFrame([step.spec | {"tiles": loads[step.name].tiles} for step in grid.runs(steps)])
    printed = published("soares2020_samples").assign(dataset=lambda each: each["dataset"].str.replace(" ", ""))
    copied = table[table["copies"]].drop_duplicates(["dataset", "sampling", "size_px"])
    wide = copied.pivot(index=["dataset", "size_px"], columns="sampling", values="tiles")
    expected = printed[printed["dataset"].str.endswith("Augmentation")].set_index(["dataset", "size_px"])
    np.testing.assert_array_equal(wide["Regular"], expected.loc[wide.index, "regular_sampling"])
    np.testing.assert_array_equal(wide["Random"], expected.loc[wide.index, "random_sampling"])
    assert len(wide) == 6


@pytest.mark.parametrize("paper", papers.PAPERS)
def test_all_that_trains_has_a_cost(paper, pictures):
    recipe = papers.get(paper)
    steps = recipe.steps(pictures)
    loads = recipe.loads(steps, {})
    assert {step.name for step in grid.runs(steps)} <= set(loads)
    assert set(loads) <= {step.name for step in steps}
    for step in steps:
        if step.name in loads:
            load = loads[step.name]
            assert (load.epochs, load.batch) == (step.spec["epochs"], step.spec["batch"])
            assert load.tiles > load.judged > 0


def test_tiles_that_are_cut_are_counted_instead_of_the_papers(tmp_path):
    steps = garcia2022.steps(tmp_path)
    guessed = garcia2022.loads(steps, {})["runs/k-02-fpn-ld30"]
    known = garcia2022.loads(steps, {"shared/tiles": {"positive": 100, "train": 500}})
    assert (guessed.tiles, guessed.judged) == (292 * 30, 73)
    assert (known["runs/k-02-fpn-ld50"].tiles, known["runs/k-02-fpn-ld50"].judged) == (80 * 50, 20)
    assert known["pretrain/k-02"].tiles == 475
    steps = soares2020.steps(tmp_path)
    known = soares2020.loads(steps, {"tiles/random-64": {"positive": 10, "train": 7}})
    assert known["runs/rapideye+dem+augmentation-random-64-f16-b32"].tiles == 28
    assert known["runs/rapideye-regular-64-f16-b32"].tiles == 2264 - 680


@given(
    st.lists(st.tuples(st.floats(0, 9), st.integers(0, 3)), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_workers_take_no_longer_than_one_and_no_less_than_the_longest_chain(parts, workers):
    steps, chains, spent = [], [], {}
    for number, (seconds, behind) in enumerate(parts):
        needed = number - behind if 0 < behind <= number else None
        steps.append(Step(str(number), work.count, {}, {} if needed is None else {"one": str(needed)}))
        chains.append(seconds + (0 if needed is None else chains[needed]))
        spent[str(number)] = seconds
    total = sum(spent.values())
    found = cost.makespan(steps, spent, workers)
    assert max(max(chains), total / workers) - 1e-9 <= found <= total + 1e-9
    assert cost.makespan(steps, spent, 1) == pytest.approx(total)


def test_independent_steps_are_shared_among_workers():
    steps = [Step(str(number), work.count) for number in range(8)]
    assert cost.makespan(steps, {step.name: 1.0 for step in steps}, 3) == 3
    assert cost.makespan(steps, {}, 3) == 0


def test_looking_at_the_cost_writes_nothing_and_leaves_torch_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "tile_seconds", lambda load: 3600.0 if torch.get_num_threads() == 1 else np.nan)
    threads = torch.get_num_threads()
    options = ["reproduce", "soares2020", "--data", "synthetic", "--out", str(tmp_path / "out")]
    options += ["--scale", "tiny", "--dry-run", "--only", "runs/*-random-*", "--workers", "1"]
    shown = CliRunner(env={"COLUMNS": "160"}).invoke(app, options)
    assert shown.exit_code == 0, shown.output
    assert "12 steps, 8 of them runs; 0 done." in shown.output
    tiles = 8 * (28 + 12 / 3) + 8 * (4 * 28 + 12 / 3)  # 40 are cut; half of the sets come four times
    assert f"{tiles / 2:.3g} h of training at most" in shown.output
    assert list(tmp_path.iterdir()) == []
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("network", ["unet", "pspnet", "classifier"])
def test_a_tile_is_timed_in_the_batch_that_fits(network, monkeypatch):
    seen = []
    held = cost._Noise.__iter__
    monkeypatch.setattr(cost._Noise, "__iter__", lambda noise: seen.append(noise._image.shape) or held(noise))
    classes = 4 if network == "classifier" else 1
    load = cost.Load({"name": network, "bands": 3, "classes": classes}, "bce", 64, 32, 100, 10, 2)
    assert load.timed == 8
    assert 0 < cost.tile_seconds(load) < 10
    assert set(seen) == {(8, 3, 64, 64)}
    assert load.seconds(0.5) == 2 * (100 + 10 / 3) * 0.5
