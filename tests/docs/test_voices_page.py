"""The table of docs/results.md is what benchmarks/results/priming.json says."""

import json

from tests.conftest import ROOT


def test_the_table_equals_the_measured_results():
    page = (ROOT / "docs" / "results.md").read_text()
    found = json.loads((ROOT / "benchmarks" / "results" / "priming.json").read_text())
    assert f"over {found['speakers']} speakers, model `{found['model']}`" in page.replace("\n", " ")
    for row in found["rows"]:
        share = "" if row["start"] == "cold" else f"{row['better']:.0%} ".replace("%", " %")
        assert f"| {row['start']} | {row['first_300_ms']:.3f} | {row['whole']:.3f} | {share}|" in page
