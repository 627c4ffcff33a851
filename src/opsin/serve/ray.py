"""opsin on Ray Serve: fronts without a model, and replicas with one, on as many machines as a cluster has.

    serve run opsin.serve.ray:build model=model.gguf replicas=4 threads=8

Who starts Ray says first what it reads of the environment (`config.tell_ray`), also before this is imported.
The router is Ray's alpha interface, so the extra `[ray]` pins a minor version, and what is ours in it is `choose`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, fields
from typing import Any, Final

import ray
from grpc.aio import AioRpcError
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.request_router import RequestRouter
from ray.util.metrics import Gauge
from starlette.applications import Starlette

from opsin.errors import BusyError, DeviceError, ModelError
from opsin.serve.affine import Homes
from opsin.serve.errors import COME_AGAIN_SECONDS, HttpError
from opsin.serve.factory import Served, ServedModel, ServedModels
from opsin.serve.fleet_options import FleetOptions
from opsin.serve.front import LostError, build_front
from opsin.serve.options import Options
from opsin.serve.replica import Begun, Relayed, Replica

NAME: Final = "opsin"
_STATS_SECONDS: Final = 2.0
_STARTS: Final = 3  # Ray gives its own processes half a minute, which a busy machine may not give them
_LOGGING: Final = {
    "encoding": "TEXT",
    "log_level": "WARNING",
    "enable_access_log": False,
}  # fronts keep a log of access


def build(settings: Mapping[str, object]) -> serve.Application:
    """For `serve run` and YAML: see `parts_of`."""
    return application(*parts_of(settings))


def parts_of(settings: Mapping[str, object]) -> tuple[Served, FleetOptions]:
    """What is served and by how many: settings of one mapping.

    They are those of `ServedModel.read`, or with `models` of `ServedModels.read`, and the fields of `FleetOptions`.

    Where nobody says otherwise Ray counts as many processors for a replica as it has threads. Raises RequestError.
    """
    own = {field.name for field in fields(FleetOptions)}
    rest = {name: value for name, value in settings.items() if name not in own}
    served: Served = ServedModels.read(rest) if "models" in rest else ServedModel.read(rest)
    return served, FleetOptions.read({"cpus": settings.get("threads", 1), **settings})


def application(served: Served, fleet: FleetOptions) -> serve.Application:
    """Fronts over replicas of a model, or of several."""
    drain = max(1.0, served.options.drain_seconds)
    scaling: dict[str, Any] = {"num_replicas": fleet.replicas}
    if fleet.most:
        scaling = {"autoscaling_config": _scaling(fleet)}
    spread: dict[str, Any] = {"max_replicas_per_node": 1} if fleet.apart else {}
    replicas = serve.deployment(RayReplica).options(
        name="Replica", ray_actor_options={"num_cpus": fleet.cpus},
        max_ongoing_requests=fleet.ongoing, max_queued_requests=fleet.queued,
        graceful_shutdown_timeout_s=drain, graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5.0, health_check_timeout_s=30.0,
        request_router_config=RequestRouterConfig(
            request_router_class="opsin.serve.ray.Affine", request_routing_stats_period_s=_STATS_SECONDS,
            request_router_kwargs={"models": sorted(set(served.names.values())), "places": served.most},
        ),
        **scaling, **spread,
    )  # fmt: skip
    fronts = serve.deployment(serve.ingress()(Front)).options(
        name="Front", num_replicas=fleet.fronts, ray_actor_options={"num_cpus": 0}, **spread,
        max_ongoing_requests=2 * served.options.connections, graceful_shutdown_timeout_s=drain,
    )  # fmt: skip
    return fronts.bind(served.options, replicas.bind(served), dict(served.names))


class Running:
    """An application that runs while somebody is within: on a cluster, or on Ray of this machine alone."""

    def __init__(self, served: Served, fleet: FleetOptions, address: str | None = None) -> None:
        self._served, self._fleet, self._address = served, fleet, address

    def __enter__(self) -> Running:
        """Ends when all replicas have their model. Raises ModelError where they cannot get it."""
        options, alone = self._served.options, self._address is None
        self._connect()
        try:
            tls = dict(zip(("ssl_certfile", "ssl_keyfile"), map(str, options.tls or ()), strict=False))
            serve.start(
                proxy_location="HeadOnly" if alone else "EveryNode",
                http_options={"host": options.host, "port": options.port, "keep_alive_timeout_s": 30, **tls},
                logging_config=_LOGGING,
            )
            self.run(self._served, self._fleet)
        except BaseException:
            self._end()
            raise
        return self

    def _connect(self) -> None:
        """To the cluster, or to Ray that begins here. Raises DeviceError."""
        most = max(self._fleet.replicas, self._fleet.most)
        alone = {"num_cpus": self._fleet.cpus * most, "include_dashboard": False}
        own = alone if self._address is None else {}
        for rest in reversed(range(_STARTS)):
            try:
                ray.init(self._address or "local", log_to_driver=False, configure_logging=False, **own)
                return
            except Exception as error:
                ray.shutdown()
                if not rest:
                    raise DeviceError(f"Ray does not begin: {error}", hint="look at the machine's load") from error

    def run(self, served: Served, fleet: FleetOptions) -> None:
        """Another model, or another number of replicas: one after another, while answers go on."""
        try:
            serve.run(application(served, fleet), name=NAME, route_prefix="/", logging_config=_LOGGING)
        except RuntimeError as error:
            raise ModelError(f"replicas did not begin: {error}", hint="Ray's logs have more") from error

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._address is None:
            serve.shutdown()
        else:
            serve.delete(NAME)  # others may serve there, too
        ray.shutdown()


class Front:
    """What Ray's proxies ask. Another one begins where `models` are others: its router knows their names."""

    def __init__(self, options: Options, replicas: serve.handle.DeploymentHandle, models: Mapping[str, str]) -> None:
        self._options, self._replicas, self._models = options, replicas, models

    def __serve_build_asgi_app__(self) -> Starlette:
        return build_front(self._options, self._ask, models=self._models)

    async def _ask(self, asked: Relayed, body: bytes, key: str, model: str) -> AsyncGenerator[Begun | bytes, None]:
        """Raises BusyError where all replicas are full, and LostError where the one that was asked is gone."""
        suited = self._replicas.options(stream=True, session_id=key, multiplexed_model_id=model)
        parts = suited.ask.remote(asked, body)
        done = False
        try:
            async for part in parts:
                yield part
            done = True
        except BackPressureError:
            done = True
            raise HttpError(503, "all replicas are busy", hint=f"come again in {COME_AGAIN_SECONDS} s") from None
        except DeploymentUnavailableError:
            done = True
            raise BusyError("there is no replica", hint="come again in a few seconds") from None
        except RayTaskError:
            done = True
            raise  # a fault of ours, which would come again
        except (RayError, ReplicaUnavailableError, AioRpcError) as error:
            done = True
            raise LostError(str(error)) from error
        finally:
            if not done:  # the client went away
                parts.cancel()


class RayReplica:
    """A replica on Ray, which awaits its `__init__`: what its controller asks of it."""

    async def __init__(self, served: Served) -> None:  # type: ignore[misc]
        self._replica = Replica(served, serve.get_replica_context().replica_id.unique_id)
        await self._replica.start()
        self._gauges = {
            name: Gauge(f"opsin_{name}", f"{name.replace('_', ' ')} of a replica") for name in self._replica.figures()
        }

    async def ask(self, asked: Relayed, body: bytes) -> AsyncGenerator[Begun | bytes, None]:
        """See `Replica.ask`."""
        async for part in self._replica.ask(asked, body):
            yield part

    def check_health(self) -> None:
        """Raises what ends this replica: Ray starts another one."""
        self._replica.check()

    def record_routing_stats(self) -> dict[str, float]:
        """For routers; Ray's own metrics hear it, too."""
        figures = self._replica.figures()
        for name, value in figures.items():
            self._gauges[name].set(value)
        return figures

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For `Wanted`."""
        return {"rows_waiting": self._replica.figures()["rows_waiting"]}

    async def __del__(self) -> None:
        await self._replica.close()


class Affine(RequestRouter):
    """Sends requests of one model and key to one replica, by `Homes.choose`."""

    def initialize_state(self, models: list[str] | None = None, places: int = 1) -> None:
        """Ray gives it what the application says: names of several models, and how many a replica keeps in memory."""
        self._models, self._places = models or [], places
        self._homes = Homes[str].of(self._models, [], places)
        self._there: frozenset[str] = frozenset()

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """Ranks of one replica each, the best first; full ones last."""
        known, names = self.replica_queue_len_cache, {one.replica_id.unique_id: one for one in candidate_replicas}
        loads = {name: float(known.get(one.replica_id) or 0) for name, one in names.items()}
        key = (pending_request.metadata.session_id or "") if pending_request is not None else ""
        model = pending_request.metadata.multiplexed_model_id if pending_request is not None else ""
        if self._there != names.keys():
            self._there, self._homes = frozenset(names), Homes.of(self._models, names, self._places)
        ranks = [names[name] for name in self._homes.choose(model, key, loads)]
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        ranks.sort(key=lambda one: loads[one.replica_id.unique_id] >= one.max_ongoing_requests)
        return [[one] for one in ranks]


def _scaling(fleet: FleetOptions) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=fleet.replicas, initial_replicas=fleet.replicas, max_replicas=fleet.most,
        target_ongoing_requests=fleet.ongoing, metrics_interval_s=1.0, look_back_period_s=4.0,
        upscale_delay_s=4.0, downscale_delay_s=120.0,
        policy=AutoscalingPolicy(policy_function="opsin.serve.ray:Wanted", policy_kwargs=asdict(fleet)),
    )  # fmt: skip


class Wanted:
    """How many replicas there should be, which Ray asks with the fields of a `FleetOptions`."""

    def __init__(self, **fleet: Any) -> None:
        self._fleet = FleetOptions(**fleet)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        waiting = (context.aggregated_metrics or {}).get("rows_waiting", {})
        return self._fleet.wanted(sum(waiting.values()), context.total_num_requests), {}
