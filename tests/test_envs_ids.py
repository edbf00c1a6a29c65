"""The environments' ids: gymnasium finds their classes, or says what hides them, and makes an environment again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

from lcnet_rl import ENV_IDS, entry_points
from lcnet_rl.provenance import ROOT

MAKE = """
import gymnasium, sys
sys.path.insert(1, {root!r})  # behind the folder of this file
for make in (gymnasium.make, gymnasium.make_vec):
    try:
        make("lcnet_rl:LCNet/LayerSkip-v0")
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("hiding", ["envs/__init__.py", "envs.py"])
def test_where_another_package_hides_the_environments_the_error_names_it(tmp_path: Path, hiding: str) -> None:
    (tmp_path / hiding).parent.mkdir(exist_ok=True)
    (tmp_path / hiding).touch()
    (tmp_path / "program.py").write_text(MAKE.format(root=str(ROOT)))
    ran = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    said = f"UserError another package called envs hides lcnet_rl's: {tmp_path / hiding}; rename it"
    assert ran.stdout.splitlines() == [said] * 2, ran.stderr


def test_an_entry_point_is_one_of_the_environments_only() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Env'"):
        _ = entry_points.Env


@pytest.mark.parametrize("env_id", ENV_IDS.values())
def test_an_environment_is_made_again_from_its_specification(env_id: str) -> None:
    spec = gymnasium.make(f"lcnet_rl:{env_id}", width=4).spec
    assert spec is not None
    for same in (spec, EnvSpec.from_json(spec.to_json())):
        assert gymnasium.make(same).spec == spec
    many = gymnasium.make_vec(spec, num_envs=2)
    assert gymnasium.make_vec(many.spec).num_envs == 2
