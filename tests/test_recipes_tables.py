"""Tables of experiments: the paper's layout, and the paper's numbers beside."""

import numpy as np
import pandas as pd
import pytest

from lsdask.errors import BadInput, NotFound
from lsdask.recipes import papers, tables


def runs():
    return pd.DataFrame(
        {
            "model": ["FPN", "U-Net", "FPN", "U-Net"],
            "dataset": ["LD30", "LD30", "LD50", "LD50"],
            "n_clusters": [np.nan, 2, np.nan, 2],
            "precision": [0.5, 0.25, 1.0, 0.123456],
        }
    )


def test_a_pivot_has_rows_and_columns_in_the_order_of_the_runs():
    wide = tables.pivot(runs().iloc[::-1], ["dataset"], "model", "precision")
    expected = pd.DataFrame({"dataset": ["LD50", "LD30"], "U-Net": [0.123456, 0.25], "FPN": [1.0, 0.5]})
    pd.testing.assert_frame_equal(wide, expected)


def test_two_runs_of_one_cell_are_refused():
    with pytest.raises(BadInput, match=r"one run for each dataset and model\. Got two of dataset=LD50, model=FPN"):
        tables.pivot(pd.concat([runs(), runs().iloc[2:3]]), ["dataset"], "model", "precision")


def test_the_published_tables_give_those_of_the_paper():
    paper = tables.published("garcia2022")
    assert len(paper) == 42
    standard = tables.pivot(paper[paper.approach == "standard"], ["dataset"], "model", "recall")
    assert standard.set_index("dataset").loc["LD50"].to_dict() == {"FPN": 0.775, "U-Net": 0.7925, "Linknet": 0.7892}
    proposed = paper[paper.approach == "proposed"]
    wide = tables.pivot(proposed, ["n_clusters", "dataset"], "model", "precision")
    assert len(wide) == 12
    assert round(proposed.precision.mean(), 4) == 0.1352
    with pytest.raises(NotFound, match="that of a table"):
        tables.published("nobody1999")


def test_runs_beside_the_paper_match_also_where_a_number_is_missing():
    joined = tables.beside(
        runs(), tables.published("garcia2022"), on=["dataset", "model", "n_clusters"], values=["precision"]
    )
    assert joined.columns.tolist() == ["dataset", "model", "n_clusters", "precision", "precision_paper"]
    assert len(joined) == 4
    first = joined[(joined.model == "FPN") & (joined.dataset == "LD30")].iloc[0]
    assert (first.precision, first.precision_paper) == (0.5, 0.1337)


def test_a_table_is_written_three_ways(tmp_path):
    tables.write(runs(), tmp_path, "table2", {"precision": "{:.3f}"})
    assert (tmp_path / "table2.md").read_text().splitlines()[:4] == [
        "| model | dataset | n_clusters | precision |",
        "| --- | --- | --- | --- |",
        "| FPN | LD30 | - | 0.500 |",
        "| U-Net | LD30 | 2 | 0.250 |",
    ]
    assert pd.read_csv(tmp_path / "table2.csv")["precision"].tolist() == [0.5, 0.25, 1.0, 0.123456]
    text = (tmp_path / "table2.tex").read_text()
    assert r"\toprule" in text
    assert r"U-Net & LD50 & 2 & 0.123" in text
    assert r"n\_clusters" in text


def test_a_mistyped_folder_does_not_end_in_made_scenes(tmp_path):
    assert papers.folder_of(tmp_path) == tmp_path
    assert not papers.folder_of("synthetic").exists()
    with pytest.raises(NotFound, match=r"data must name a folder\. Got data=.*nowhere, where there is none\. Pass the"):
        papers.folder_of(tmp_path / "nowhere")
    with pytest.raises(NotFound, match="data must name a folder"):
        papers.reproduce("soares2020", tmp_path / "nowhere", tmp_path / "out", scale="tiny")
    assert list(tmp_path.iterdir()) == []
