"""`docs/operations.md` names every setting and every metric there is."""

import re
from pathlib import Path

import pytest

from tidemill_common.settings import ServiceSettings
from tidemill_gateway.settings import GatewaySettings
from tidemill_registry.settings import RegistrySettings
from tidemill_scheduler.settings import Settings as SchedulerSettings
from tidemill_worker.settings import Settings as WorkerSettings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text()
OF_SUPERVISORS = {"ready_fd", "gate_fd"}  # how whoever starts a process talks to it


@pytest.mark.parametrize(
    "kind",
    [GatewaySettings, RegistrySettings, SchedulerSettings, WorkerSettings],
    ids=lambda kind: kind.__module__,
)
def test_every_setting_is_told(kind: type[ServiceSettings]) -> None:
    names = {f"`TIDEMILL_{name.upper()}`" for name in kind.model_fields.keys() - OF_SUPERVISORS}
    assert {name for name in names if name not in PAGE} == set()


def test_every_metric_is_told() -> None:
    made = re.compile(r'(?:Counter|Gauge|Histogram|counter)\(\s*f?"([a-z_{}]+)"')
    for source in (ROOT / "services").glob("*/tidemill_*/**/*.py"):
        for name in made.findall(source.read_text()):
            full = name if name.startswith("tidemill_") else f"tidemill_worker_{name}"
            assert f"`{full}`" in PAGE or "{" in full, f"{full} of {source.name}"
