# SPDX-License-Identifier: Apache-2.0
"""The commands with their options and help. What a command does is in a module of its own, loaded when it is called:
gRPC, HTTP and the simulator take two seconds of CPU to import, which `--help` and `--version` do not need.
"""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import Annotated, Literal

import typer

from llm_gateway import __version__

app = typer.Typer(
    name="llm-gateway",
    help="A gRPC gateway in front of vLLM, for workers that stream tokens.",
    epilog="Exit codes: 0 all is well, 1 it failed, 2 what was given is wrong, 130 Ctrl-C.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_show_locals=False,
)

RUN, ASK, OPERATE = "Run", "Talk to a gateway", "Operate a gateway"
SPEED, LIMITS, VLLM_FLAGS = "Speed", "Limits", "vLLM's flags"

Address = Annotated[str, typer.Option(envvar="LLM_GATEWAY_ADDR", metavar="HOST:PORT", help="The gateway.")]
AdminAddress = Annotated[
    str, typer.Option("--address", envvar="LLM_GATEWAY_ADMIN_ADDR", metavar="HOST:PORT", help="Its ADMIN__PORT.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seconds = Annotated[float, typer.Option(min=0.001, metavar="SECONDS", help="The deadline of the call.")]

DEFAULT_ADDRESS = "localhost:50052"
DEFAULT_ADMIN_ADDRESS = "localhost:50053"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llm-gateway {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A gRPC gateway in front of vLLM, for workers that stream tokens."""
    # gRPC's C core logs in a form of its own, into our JSON lines; what it says, a status or an error says as well.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # nothing here forks, and its locks cost every operation
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(rich_help_panel=RUN)
def serve() -> None:
    """Run the gateway, with settings from the environment, until SIGTERM or Ctrl-C; then let running calls finish.

    Exit codes: 0 every call finished, 1 some were cut off, or the port is taken,
    2 the settings are wrong.
    """
    from llm_gateway.cli.serve import serve as run  # noqa: PLC0415 - slow to import; see above

    raise typer.Exit(run())


@app.command(rich_help_panel=RUN)
def check(as_json: AsJson = False) -> None:
    """Print the settings in force, secrets masked, the models, and which of their backends answer.

    Exit codes: 0 every model has a backend that answers, 1 one has none,
    2 the settings or the CONFIG_FILE are wrong.
    """
    from llm_gateway.cli.check import check as run  # noqa: PLC0415 - slow to import; see above

    raise typer.Exit(run(as_json=as_json))


@app.command(rich_help_panel=RUN)
def schema() -> None:
    """Print the JSON schema of the CONFIG_FILE, for editors and CI."""
    from llm_gateway.cli.schema import schema as run  # noqa: PLC0415 - slow to import; see above

    raise typer.Exit(run())


@app.command(rich_help_panel=RUN)
def demo() -> None:
    """Stream one answer from a simulated vLLM through a gateway, both of them in this process. Needs no GPU."""
    from llm_gateway.cli.demo import demo as run  # noqa: PLC0415 - slow to import; see above

    raise typer.Exit(run())


@app.command(rich_help_panel=RUN)
def simulate(  # noqa: PLR0913 - one for each option
    *,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A model that is served; may be repeated.", show_default="sim"),
    ] = None,
    ttft_ms: Annotated[
        float, typer.Option(min=0, metavar="MS", rich_help_panel=SPEED, help="Time to the first token.")
    ] = 0,
    pace_ms: Annotated[
        float, typer.Option(min=0, metavar="MS", rich_help_panel=SPEED, help="Between tokens; 0: as fast as it goes.")
    ] = 0,
    synchronised: Annotated[
        bool, typer.Option(rich_help_panel=SPEED, help="All streams of one pace step together, as an engine's do.")
    ] = True,
    tokens: Annotated[
        int, typer.Option(min=1, metavar="N", rich_help_panel=LIMITS, help="Length of an answer that ends by itself.")
    ] = 60,
    max_model_len: Annotated[
        int, typer.Option(min=1, metavar="N", rich_help_panel=LIMITS, help="The context, in tokens.")
    ] = 2048,
    max_num_seqs: Annotated[
        int, typer.Option(min=1, metavar="N", rich_help_panel=LIMITS, help="Sequences at a time; others wait.")
    ] = 1024,
    max_num_queued_reqs: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", rich_help_panel=LIMITS, help="Sequences that run or wait; others get a 503."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="VLLM_API_KEY", metavar="KEY", rich_help_panel=VLLM_FLAGS, help="The key that callers must give."
        ),
    ] = None,
    shutdown_timeout: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", rich_help_panel=VLLM_FLAGS, help="After SIGTERM, wait for running requests."
        ),
    ] = 0,
    tool_parser: Annotated[
        bool, typer.Option("--tool-parser", rich_help_panel=VLLM_FLAGS, help="Serve tool calls.")
    ] = False,
    reasoning_parser: Annotated[
        bool, typer.Option("--reasoning-parser", rich_help_panel=VLLM_FLAGS, help="Tell reasoning from text.")
    ] = False,
    request_id_headers: Annotated[
        bool, typer.Option("--request-id-headers", rich_help_panel=VLLM_FLAGS, help="Answer with the request's id.")
    ] = False,
    prompt_tokens_details: Annotated[
        bool, typer.Option("--prompt-tokens-details", rich_help_panel=VLLM_FLAGS, help="Count cached tokens.")
    ] = False,
    per_request_metrics: Annotated[
        bool, typer.Option("--per-request-metrics", rich_help_panel=VLLM_FLAGS, help="Add timing to answers.")
    ] = False,
    load_tracking: Annotated[
        bool, typer.Option("--load-tracking", rich_help_panel=VLLM_FLAGS, help="Count running requests at /load.")
    ] = False,
    force_include_usage: Annotated[
        bool, typer.Option("--force-include-usage", rich_help_panel=VLLM_FLAGS, help="Usage in every event.")
    ] = False,
    sse_keep_alive_ms: Annotated[
        float | None,
        typer.Option(min=1, metavar="MS", rich_help_panel=VLLM_FLAGS, help="A comment after so long a silence."),
    ] = None,
    dialect: Annotated[
        Literal["vllm", "openai", "sglang", "llamacpp", "ollama"], typer.Option(help="Which server to be.")
    ] = "vllm",
    vllm_version: Annotated[
        str, typer.Option(metavar="VERSION", rich_help_panel=VLLM_FLAGS, help="Answer as 0.32.0 or 0.33.0 does.")
    ] = "0.33.0",
) -> None:
    """Run a simulated vLLM, its HTTP API without a model, until SIGTERM or Ctrl-C.

    A prompt may ask for faults: docs/simulator.md says how.

    Exit codes: 0 it was ended, 1 the port is taken.
    """
    from llm_gateway.cli.simulate import simulate as run  # noqa: PLC0415 - slow to import; see above
    from llm_gateway.simulator.options import Options  # noqa: PLC0415 - slow to import; see above

    options = Options(
        host=host,
        port=port,
        models=tuple(model or ["sim"]),
        max_model_len=max_model_len,
        time_to_first_token=ttft_ms / 1000,
        pace=pace_ms / 1000,
        synchronised=synchronised,
        api_key=api_key,
        shutdown_timeout=shutdown_timeout,
        max_num_seqs=max_num_seqs,
        max_num_queued_reqs=max_num_queued_reqs,
        tool_parser=tool_parser,
        reasoning_parser=reasoning_parser,
        dialect=dialect,
        version=vllm_version,
        request_id_headers=request_id_headers,
        prompt_tokens_details=prompt_tokens_details,
        per_request_metrics=per_request_metrics,
        load_tracking=load_tracking,
        force_include_usage=force_include_usage,
        sse_keep_alive=None if sse_keep_alive_ms is None else sse_keep_alive_ms / 1000,
        default_tokens=tokens,
    )
    raise typer.Exit(run(options))


@app.command(rich_help_panel=ASK)
def chat(  # noqa: PLR0913 - one for each option
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask. Without it: standard input, or a conversation on a terminal.")
    ] = None,
    *,
    address: Address = DEFAULT_ADDRESS,
    model: Annotated[
        str | None,
        typer.Option(envvar="LLM_DEFAULT_MODEL", metavar="NAME", help="The model.", show_default="the gateway's"),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="What the model is told before.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="The most tokens of an answer.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, metavar="0…2", help="How freely tokens are chosen.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Makes the choice of tokens repeatable.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A text that ends the answer; may be repeated.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="End the answer well, where it then is.")
    ] = None,
    timeout: Seconds = 600,
    request: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="A ChatCompletionRequest as JSON to begin with, for tools and all the rest.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as one line of JSON.")] = False,
) -> None:
    """Ask a model through a gateway, and see the answer as it comes; without a PROMPT, converse with it.

    Ctrl-C cancels an answer; at the prompt, it or Ctrl-D leaves.
    The answer goes to standard output, all else to standard error.

    Exit codes: 0 the answer is whole, 1 it is not, 130 it was cancelled.
    """
    from llm_gateway.cli import chat as room  # noqa: PLC0415 - slow to import; see above

    first = room.first_request(
        request.read_bytes() if request is not None else b"{}",
        model=model,
        system=system,
        params={"max_tokens": max_tokens, "temperature": temperature, "seed": seed, "stop": stop},
        time_limit=time_limit,
    )
    raise typer.Exit(room.chat(address, first, prompt, timeout=timeout, as_json=as_json))


@app.command(rich_help_panel=ASK)
def models(address: Address = DEFAULT_ADDRESS, timeout: Seconds = 10, as_json: AsJson = False) -> None:
    """List the models that a request may name.

    Exit codes: 0 here they are, 1 the gateway or its backend does not answer.
    """
    from llm_gateway.cli.models import models as run  # noqa: PLC0415 - slow to import; see above

    raise typer.Exit(run(address, timeout=timeout, as_json=as_json))


@app.command(rich_help_panel=OPERATE)
def status(
    *,
    address: AdminAddress = DEFAULT_ADMIN_ADDRESS,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="How often, with --watch.")] = 1,
    timeout: Seconds = 10,
    as_json: AsJson = False,
) -> None:
    """Show a gateway as it is now: models, backends and their health, seats, queue, running calls.

    It must have been started with ADMIN__ENABLED=true.

    Exit codes: 0 here it is, 1 the gateway does not answer, 130 Ctrl-C.
    """
    from llm_gateway.cli import status as room  # noqa: PLC0415 - slow to import; see above

    if watch:
        raise typer.Exit(room.watch(address, interval=interval, as_json=as_json))
    raise typer.Exit(room.status(address, timeout=timeout, as_json=as_json))


@app.command(rich_help_panel=OPERATE)
def cancel(
    request_id: Annotated[str, typer.Argument(help="The x-request-id of the call, as `status` and the log have it.")],
    *,
    address: AdminAddress = DEFAULT_ADMIN_ADDRESS,
    timeout: Seconds = 10,
    as_json: AsJson = False,
) -> None:
    """End a call that runs or waits. Its caller gets ABORTED with CANCELLED_BY_OPERATOR.

    Exit codes: 0 it was ended, 1 there is no such call, or the gateway does not answer.
    """
    from llm_gateway.cli.cancel import cancel as run  # noqa: PLC0415 - slow to import; see above

    raise typer.Exit(run(request_id, address, timeout=timeout, as_json=as_json))
