"""`opsin serve`: a model behind OpenAI's API, and a page to try it."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import opsin
from opsin.cli import environment, forms, options
from opsin.cli.chat_flags import add_chat_flags, chat_defaults, template_of
from opsin.cli.fleet import add_fleet, is_fleet, lean, serve_fleet, share_threads
from opsin.cli.key_files import read_keys
from opsin.cli.progress import FirstLines
from opsin.cli.request_flags import add_request_flags, request_defaults
from opsin.cli.several_models import add_several, are_several, models_of_replicas, registry_of
from opsin.cli.start_lines import add_flags, said
from opsin.config import expanded
from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.api import Model
    from opsin.media.fetch import FetchRules
    from opsin.serve.factory import Served
    from opsin.serve.options import Options
    from opsin.serve.registry import ModelRegistry
    from opsin.serve.service import Service


_HOST, _PORT, _PARALLEL = "127.0.0.1", 8080, 32
_SECONDS, _PING_SECONDS = 3600, 30
_WAITING_BYTES = 1 << 30  # of the files of pictures that come or wait


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser(
        "serve", help="answer over HTTP, as OpenAI's API does", description=__doc__, usage="%(prog)s [OPTION ...]"
    )
    parser.set_defaults(run=partial(run, parser))
    options.add_model(parser, bundled=True)
    options.add_guesses(parser)
    options.add_mmproj(parser)
    parser.add_argument(
        "-c", "--context", "--ctx-size", type=options.or_own, metavar="N",
        help="tokens that the cache holds, for all answers together; 0 for the usual",
    )  # fmt: skip
    parser.add_argument("-a", "--alias", metavar="NAME", help="what the model is called (default: as its file)")
    parser.add_argument(
        "--pooling", choices=("none", "mean", "cls", "last", "rank"),
        help="which states become an embedding (as the file says, else last); none: one of each token",
    )  # fmt: skip
    parser.add_argument("--tags", metavar="NAME,...", help="told with the model's name, and used for nothing")
    parser.add_argument("-np", "--parallel", type=options.or_auto, metavar="N", help=f"answers at once ({_PARALLEL})")
    where = parser.add_argument_group("where")
    where.add_argument("--host", metavar="HOST,...", help="addresses, and files of Unix sockets (x.sock), to listen on")
    where.add_argument("--port", type=options.natural, metavar="N", help=f"port ({_PORT}); 0: a free one")
    where.add_argument("--ssl-cert-file", type=expanded, metavar="FILE", help="speak TLS: certificate chain, in PEM")
    where.add_argument("--ssl-key-file", type=expanded, metavar="FILE", help="and its key")
    where.add_argument("--api-prefix", default=None, metavar="PATH", help="all paths begin with it, as /llm")
    where.add_argument(
        "--forwarded-allow", action="append", default=[], metavar="ADDRESS,...",
        help="believe X-Forwarded-* of these proxies: addresses, networks, unix or * (repeatable)",
    )  # fmt: skip
    where.add_argument("--reuse-port", action="store_true", default=None, help="others may listen on it, too")
    who = parser.add_argument_group("who may ask")
    who.add_argument(
        "--api-key", action="append", default=[], metavar="KEY,...", help="only with one of these keys (repeatable)"
    )
    who.add_argument(
        "--api-key-file", type=expanded, action="append", default=[], metavar="FILE",
        help="keys, one a line: KEY, or NAME: KEY [at-once=N] [per-minute=N]; # begins a comment (repeatable)",
    )  # fmt: skip
    who.add_argument(
        "--allow-origin", "--cors-origins", action="append", default=[], metavar="URL,...",
        help="pages of these origins may ask; * for all, localhost for this machine's (repeatable)",
    )  # fmt: skip
    who.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name of this server; * for any"
    )
    add_several(parser)
    add_fleet(parser)
    _add_more(parser)
    _add_limits(parser)
    media = options.add_pictures(parser)
    media.add_argument(
        "--media-path", type=expanded, action="append", default=[], metavar="DIR", help="allow files below"
    )
    media.add_argument("--media-cache", type=expanded, metavar="DIR", help="keep there what pictures became: restarts")
    media.add_argument(
        "--media-cache-size", type=options.positive, default=1024, metavar="MB", help="of that folder (1024)"
    )
    media.add_argument("--no-remote-media", action="store_true", help="fetch nothing over http(s)")
    media.add_argument("--allow-private-media", action="store_true", help="fetch from private addresses too: see docs")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """How much of what."""
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-body", type=options.positive, default=64, metavar="MB", help="size of a request (64)")
    limits.add_argument(
        "--max-files", type=options.natural, default=256, metavar="MB", help="of stored pictures (256); 0: none"
    )
    limits.add_argument("--max-requests", type=options.positive, default=128, metavar="N", help="requests inside (128)")
    limits.add_argument("-to", "--timeout", type=options.positive, metavar="S", help="seconds a request (3600)")
    limits.add_argument(
        "--drain-seconds", type=options.natural, default=5, metavar="S",
        help="for running answers, when the server is told to end (5); 0: none",
    )  # fmt: skip
    limits.add_argument(
        "--sleep-idle-seconds", type=int, metavar="S",
        help="after so long without a request the model leaves the memory, until the next; -1: never (-1)",
    )  # fmt: skip
    limits.add_argument(
        "--sse-ping-interval", type=int, metavar="S",
        help="a silent stream sends a comment after so many seconds (30); -1: never",
    )  # fmt: skip


def _add_more(parser: argparse.ArgumentParser) -> None:
    """What is told beside answers, and llama-server's other flags."""
    told = parser.add_argument_group("what is told")
    told.add_argument("--access-log", default="", metavar="FILE", help="a line of JSON a request; - for stdout")
    told.add_argument(
        "--otlp-traces-endpoint", default="", metavar="URL", help="send spans of requests there (opsin[otel])"
    )
    told.add_argument("--metrics", action="store_true", default=None, help="/metrics answers (it always does)")
    told.add_argument("--tell-key", action="store_true", help="answers have X-Opsin-Key (opsin key): docs/scale.md")
    told.add_argument("--slots", action="store_true", default=None, help="/slots answers (it does)")
    told.add_argument("--slot-save-path", type=expanded, metavar="DIR", help="/slots/N saves and restores below it")
    told.add_argument(
        "--slot-save-size", type=options.positive, default=16384, metavar="MB", help="of that folder (16384)"
    )
    told.add_argument("--no-slots", dest="slots", action="store_false", default=None, help="/slots does not")
    told.add_argument("--ui", "--webui", dest="page", action="store_true", default=None, help="there is a page (it is)")
    told.add_argument("--no-ui", "--no-webui", dest="page", action="store_false", default=None, help="there is none")
    hidden = argparse.SUPPRESS
    parser.set_defaults(media_marker=None)  # of LLAMA_MEDIA_MARKER: there is no flag
    parser.add_argument("--usage", action="help", help=hidden)
    parser.add_argument("--version", action="version", version=f"opsin {opsin.__version__}", help=hidden)
    parser.add_argument("--mmproj-auto", dest="vision", action="store_true", default=hidden, help=hidden)
    for side in "kv":
        parser.add_argument(f"-ct{side}", f"--cache-type-{side}", help=hidden)
    add_chat_flags(parser)
    add_request_flags(parser)
    forms.add_forms(parser)
    add_flags(parser)


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    import asyncio

    from opsin.config import server_variables
    from opsin.serve.heap import give_memory_back
    from opsin.serve.server import address, listen, serve

    give_memory_back()
    for line in (*said(args), *environment.fill(args, server_variables())):
        _tell(line)
    if is_fleet(args):
        return _serve_fleet(parser, args)
    settings, served, what, first = _served(parser, args)
    made = listen(settings)
    url = address(made[0], settings)

    def ready() -> None:
        for line in greeting(url, bool(settings.keys), settings.prefix, first):
            print(line, file=sys.stderr, flush=True)

    _tell(f"listening on {url}, {what}")
    if not settings.on_loopback and not settings.keys:
        _tell("anybody who reaches this address may ask; --api-key KEY changes that")
    asyncio.run(serve(made, served, ready=ready))
    return 0


def _serve_fleet(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Several replicas, which load what they serve by themselves."""
    share_threads(args)
    served = _served_by_replicas(parser, args)
    settings, first = served.options, next(iter(served.names), "")
    url = f"{'https' if settings.tls else 'http'}://{settings.host}:{settings.port}{settings.prefix}"
    what = f"models: {', '.join(served.names)}" if first else f"loading {options.model_file(args)}"
    _tell(f"starting Ray Serve at {url}, {args.replicas} times {what}")
    return serve_fleet(args, served, greeting(url, bool(settings.keys), settings.prefix, first))


def _served_by_replicas(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Served:
    """What is sent to each of them."""
    from opsin.serve.factory import ServedModel

    if are_several(args):
        return models_of_replicas(args, parser, settings_of=_settings, load=_load, need=_need)
    return ServedModel(_settings(args), partial(_load, options.model_file(args), lean(args)))


def _served(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> tuple[Options, Service | ModelRegistry, str, str]:
    """What is served, one model or several, a word of it, and a name that requests must say."""
    from opsin.serve.service import Service

    if are_several(args):
        registry = registry_of(args, parser, settings_of=_settings, load=_load, need=_need)
        return registry.options, registry, f"models: {registry.names}", next(iter(registry)).name
    settings, path = _settings(args), options.model_file(args)
    return settings, Service(settings, partial(_load, path, args)), f"loading {path}", ""


def greeting(url: str, locked: bool, prefix: str = "", model: str = "") -> list[str]:
    """What a person needs to ask the first question. `model` is a name where one must be said."""
    key = ' -H "Authorization: Bearer $KEY"' if locked else ""
    if url.startswith("unix://"):
        return [
            f"opsin: ready: curl --unix-socket {url.removeprefix('unix://')} http://localhost{prefix}/v1/models{key}"
        ]
    named = f'"model": {json.dumps(model)}, ' if model else ""
    body = f'{{{named}"messages": [{{"role": "user", "content": "Hi"}}]}}'
    return [
        f"opsin: ready. A page to try it: {url}/",
        f"  curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'",
        f"  export OPENAI_BASE_URL={url}/v1" + ("" if locked else " OPENAI_API_KEY=none"),
    ]


def _load(path: str | Path, args: argparse.Namespace) -> Model:
    from opsin.api.media_folder import MediaFolder
    from opsin.media.limits import PictureLimits

    model = opsin.load(
        path, mmproj=args.mmproj, vision=args.vision, threads=args.threads, context=args.context,
        pages=_cache_type(args), states=options.state_bytes(args),
        guesses=options.guesses(args), draft=args.draft, sequences=args.parallel or _PARALLEL, rules=_fetch_rules(args),
        limits=PictureLimits(waiting_bytes=_WAITING_BYTES), notice=FirstLines(), verify=args.verify,
        budget=options.picture_budget(args), template=template_of(args),
        media_cache=MediaFolder(args.media_cache, args.media_cache_size << 20) if args.media_cache else None,
    )  # fmt: skip
    options.tell(model)
    return model


def _need(path: str | Path, args: argparse.Namespace) -> int:
    from opsin.api.memory_need import memory_need

    pages, sequences = _cache_type(args), args.parallel or _PARALLEL
    draft = memory_need(args.draft, vision=False, pages=pages, sequences=sequences) if args.draft else 0
    return draft + memory_need(
        path, args.mmproj, vision=args.vision, context=args.context, pages=pages, sequences=sequences,
        states=options.state_bytes(args),
    )  # fmt: skip


def _tell(line: str) -> None:
    print(f"opsin: {line}", file=sys.stderr, flush=True)


def _settings(args: argparse.Namespace) -> Options:
    from opsin.serve.chat import check_chat_defaults
    from opsin.serve.forwarded import Proxies
    from opsin.serve.generation_request import check_defaults
    from opsin.serve.keys import ApiKey
    from opsin.serve.options import Options

    for folder in args.media_path:
        if not folder.is_dir():
            raise RequestError(f"--media-path {folder} is no folder")
    if args.slot_save_path is not None:
        _make_folder(args.slot_save_path)
    defaults = request_defaults(args)
    check_defaults(defaults)
    check_chat_defaults(chat_defaults(args))
    return Options(
        host=args.host or _HOST,
        port=_PORT if args.port is None else args.port,
        tls=_tls(args),
        prefix=(args.api_prefix or "").rstrip("/"),
        proxies=Proxies.read(_listed(args.forwarded_allow)),
        keys=(*map(ApiKey, _listed(args.api_key)), *(key for path in args.api_key_file for key in read_keys(path))),
        name=args.alias,
        body_bytes=args.max_body << 20,
        files_bytes=args.max_files << 20,
        requests=args.max_requests,
        seconds=args.timeout or _SECONDS,
        drain_seconds=args.drain_seconds,
        sleep_seconds=max(0, args.sleep_idle_seconds or 0),
        ping_seconds=max(0, _PING_SECONDS if args.sse_ping_interval is None else args.sse_ping_interval),
        origins=tuple(_listed(args.allow_origin)),
        access_log=args.access_log,
        traces=args.otlp_traces_endpoint,
        reuse_port=bool(args.reuse_port),
        tells_key=args.tell_key,
        slots=args.slots is not False,
        slot_path=args.slot_save_path,
        slot_bytes=args.slot_save_size << 20,
        page=args.page is not False,
        tags=tuple(tag for tag in _listed([args.tags or ""]) if tag),
        pooling=None if args.pooling == "rank" else args.pooling,
        defaults=defaults,
        chat_defaults=chat_defaults(args),
        grammar=forms.asked_form(args),
        media_marker=args.media_marker or "",
        prefill=args.prefill is not False,
        hosts=tuple(args.allow_host),
        media=_fetch_rules(args),
    )


def _fetch_rules(args: argparse.Namespace) -> FetchRules:
    """What may be fetched for messages with addresses in them."""
    from opsin.media.fetch import FetchRules

    return FetchRules(
        remote=not args.no_remote_media,
        allow_private=args.allow_private_media,
        folders=tuple(folder.resolve() for folder in args.media_path),
    )


def _make_folder(folder: Path) -> None:
    """For its owner alone, where it is not there. Raises RequestError where it cannot be made."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        what = f"--slot-save-path {folder} cannot be made: {error.strerror or error}"
        raise RequestError(what, hint="give another folder") from error


def _cache_type(args: argparse.Namespace) -> options.CacheType:
    """The number format of the KV cache, also in llama-server's two flags. Raises RequestError where these differ."""
    keys, values = args.cache_type_k, args.cache_type_v
    if keys is None and values is None:
        return cast("options.CacheType", args.cache_type)
    kind = keys or values
    if {keys, values} - {None, kind} or kind not in options.CACHE_TYPES:
        raise RequestError(
            f"--cache-type-k {keys or 'f16'} with --cache-type-v {values or 'f16'}",
            hint=f"give both one of {', '.join(options.CACHE_TYPES)}",
        )
    return cast("options.CacheType", kind)


def _listed(texts: list[str]) -> list[str]:
    """What stands between commas. An empty key stays, to be refused."""
    return [key.strip() for text in texts for key in text.split(",")]


def _tls(args: argparse.Namespace) -> tuple[Path, Path] | None:
    """The two files of TLS; None where neither is given. Raises RequestError where one alone is."""
    certificate, key = args.ssl_cert_file, args.ssl_key_file
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, lacking = (
            ("--ssl-key-file", "--ssl-cert-file") if certificate is None else ("--ssl-cert-file", "--ssl-key-file")
        )
        raise RequestError(f"{given} without {lacking}", hint="give both, or neither")
    return certificate, key
