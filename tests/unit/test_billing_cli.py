"""What a person sees at a terminal."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from billing.cli import app

runner = CliRunner()


@pytest.mark.parametrize("choice", [[], ["aragora"], ["alwrity"]])
def test_a_catalog_is_shown(choice: list[str]):
    shown = runner.invoke(app, ["catalog", *choice], env={"COLUMNS": "200", "ARAGORA_CATALOG": ""})
    assert shown.exit_code == 0
    assert "Enterprise" in shown.output
    assert "unlimited" in shown.output


def test_a_bad_catalog_is_one_sentence(tmp_path: Path):
    file = tmp_path / "ours.toml"
    file.write_text('[catalog]\ntiers = ["free"]\ndefault_plan = "free"\n[plans.free]\nname = "Free"\nseat = 1\n')
    message = f"{file}, line 6, plans.free.seat: is not known here"
    checked = runner.invoke(app, ["catalog", str(file)])
    assert (checked.exit_code, checked.output.startswith(message)) == (1, True)
    for command in ("migrate", "api", "worker"):
        env = {"ARAGORA_CATALOG": str(file), "DATABASE_URL": "postgresql://nowhere"}
        refused = runner.invoke(app, [command], env=env)
        assert refused.exit_code == 1
        assert refused.output.startswith(f"ARAGORA_CATALOG: {message}"), refused.output
        assert refused.output.count("\n") == 1


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    refused = runner.invoke(app, ["migrate"])
    assert refused.exit_code == 1
    assert refused.output == "DATABASE_URL: Field required\n"
