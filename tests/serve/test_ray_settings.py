"""What `serve deploy` and KubeRay read, as docs/scale.md has it: no cluster is needed to see what it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'opsin[ray]'"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray's own code, as it is imported
]


def configurations() -> list[object]:
    """The page's YAML for Serve: those of files, and that within a RayService."""
    import yaml

    found: list[object] = []
    for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL):
        read = yaml.safe_load(text)
        found.append(yaml.safe_load(read["spec"]["serveConfigV2"]) if "spec" in read else read)
    return found


@pytest.mark.parametrize(("number", "fronts", "most"), [(0, 2, 16), (1, 1, 0), (2, 2, 0)])
def test_the_pages_yaml_is_an_application_of_fronts_over_replicas(number: int, fronts: int, most: int) -> None:
    from ray import serve
    from ray._common.utils import import_attr
    from ray.serve.schema import ServeDeploySchema

    (read,) = ServeDeploySchema.model_validate(configurations()[number]).applications
    made = import_attr(read.import_path)(read.args)
    assert isinstance(made, serve.Application)
    front = made._bound_deployment
    replica = front.init_args[1]._bound_deployment
    assert (front.name, front.num_replicas) == ("Front", fronts)
    assert (replica.name, replica.ray_actor_options["num_cpus"]) == ("Replica", 16)
    scaling = replica._deployment_config.autoscaling_config
    assert (scaling.max_replicas if scaling else 0) == most
    assert (scaling.min_replicas if scaling else replica.num_replicas) == 4
    routing = replica._deployment_config.request_router_config.request_router_kwargs
    assert routing == ({"models": ["large", "small"], "places": 1} if number == 1 else {"models": [], "places": 1})


def test_what_serve_run_gives_as_words_is_read_as_numbers() -> None:
    from opsin.serve.ray import build

    made = build({"model": "m.gguf", "replicas": "3", "threads": "8"})
    replica = made._bound_deployment.init_args[1]._bound_deployment
    assert (replica.num_replicas, replica.ray_actor_options["num_cpus"]) == (3, 8)
