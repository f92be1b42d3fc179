"""The ServerApp: learn, then forget request by request, and say what it cost whom."""

from __future__ import annotations

from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from simulations import console
from simulations.config import RunConfig
from simulations.conversation import Conversation
from simulations.partition import plan_table
from simulations.plan import Forgetting, Preparation, prepare
from simulations.report import render
from simulations.result import Recorder, write_result
from strategies.base import ClientFailureError, SplitStrategy, StrategySetting
from strategies.placement import place, release
from strategies.registry import STRATEGIES
from strategies.server_segment import ServerSegment
from transport.ledger import Ledger

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run config asks for.

    Raises
    ------
    UserError
        If it cannot be done; said in one line before anything is trained.
    ClientFailureError
        If a client does not answer.
    """
    try:
        config = RunConfig.from_mapping(context.run_config)
        config.check()
        ledger = Ledger()
        conversation = Conversation(grid, ledger, config.round_timeout)
        prepared = prepare(config, conversation.meet())
        console.show(plan_table(prepared.plan, prepared.dataset))
        # Only now, when clients have answered, does Flower's pool stand, and with it what is left
        # for the server segment.
        server = place(
            config.server_num_cpus,
            config.server_num_gpus,
            model=config.model,
            input_shape=prepared.dataset.input_shape,
            num_labels=prepared.dataset.num_classes,
            training=config.training(),
            part=STRATEGIES.get(config.strategy).server_part,
        )
        try:
            run(prepared, server, conversation, ledger)
        finally:
            release(server)
    except Exception as error:
        console.failure(str(error) or type(error).__name__)
        raise


def run(
    prepared: Preparation, server: ServerSegment, conversation: Conversation, ledger: Ledger
) -> tuple[SplitStrategy, dict[str, Any]]:
    """Learn, forget, measure, report.

    Parameters
    ----------
    prepared : Preparation
        What is to be done.
    server : ServerSegment
        Where the server's part is trained.
    conversation : Conversation
        With the clients.
    ledger : Ledger
        That the conversation counts in.

    Returns
    -------
    SplitStrategy, dict
        The strategy after its last phase, and the result as it is in ``result.json``.
    """
    config = prepared.config
    strategy = STRATEGIES.get(config.strategy)(
        StrategySetting(
            clients=range(prepared.plan.num_clients),
            server=server,
            training=config.training(),
            method=config.method(),
            client_sync=config.client_sync,
            splitfed_version=config.splitfed_version,
            init_from=config.init_from,
            server_slices=config.server_slices,
            stable_first=config.stable_first(prepared.plan.num_clients),
            skip_absent=config.skip_absent,
            options=config.plugin_options(),
            report=console.Ticker(),
        )
    )
    recorder = Recorder(prepared, strategy, conversation, ledger)
    console.progress(f"{config.strategy}: learn with {len(strategy.clients)} clients")
    conversation.hold(strategy, strategy.learn(), "learn")
    recorder.note_cost()
    conversation.hold(strategy, strategy.score(), "evaluate")
    recorder.note_phase("learn")
    for forgetting in prepared.forgettings:
        clients = forgetting.clients
        console.progress(f"{config.strategy}: forget {forgetting.request.text} of {clients}")
        conversation.hold(strategy, strategy.unlearn(forgetting.requests), "unlearn")
        _check_left_out(strategy, forgetting)
        recorder.note_cost()
        conversation.hold(strategy, strategy.score(), "evaluate")
        recorder.note_phase("unlearn", forgetting)
    result = recorder.result()
    if config.out:
        write_result(result, config.out)
    console.show(render(result))
    return strategy, result


def _check_left_out(strategy: SplitStrategy, forgetting: Forgetting) -> None:
    """Compare what clients say that they left out with what the plan says that was meant."""
    for client, ids in forgetting.samples.items():
        if strategy.left_out.get(client) != len(ids):
            raise ClientFailureError(
                f"client {client} was to forget {len(ids)} samples at {forgetting.request.text!r} "
                f"and says that it left out {strategy.left_out.get(client, 'none')}"
            )
