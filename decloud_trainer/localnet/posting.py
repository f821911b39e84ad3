"""Post one more round on a running local network."""

from __future__ import annotations

from pathlib import Path

from decloud_trainer.chain import v1
from decloud_trainer.errors import SettingsError
from decloud_trainer.localnet.actors.content import Content
from decloud_trainer.localnet.actors.creator import Offer, Posted, post_round, temporary_creator
from decloud_trainer.localnet.actors.datasets import check_data, on_chain_name, remember_data
from decloud_trainer.localnet.actors.shipped import MODEL
from decloud_trainer.localnet.options import Endpoints


def dataset_index(name: str) -> int:
    """What a local round about `name` names on chain."""
    return v1.DATASETS.index(on_chain_name(name))


def post_one(
    endpoints: Endpoints,
    *,
    reward_lamports: int,
    dataset: str = "digits",
    data: Path | None = None,
    model: Path | None = None,
) -> Posted:
    """Post a round by a new creator, who gets the money from the faucet.

    Args:
        data: the folder of the data; from now on all rounds about this dataset are scored on it.
        model: the model file; the shipped one without it.

    Raises:
        SettingsError: unknown dataset, or no such file or folder.
        ProgramError: the program refuses the round.
        NetworkError: the network doesn't answer.
    """
    check_data(dataset, data)
    if model is not None and not model.is_file():
        raise SettingsError(f"there is no model file {model}")
    if data is not None:
        remember_data(Path(endpoints.state), dataset, data)
    creator = temporary_creator(endpoints.rpc_url, endpoints.generation)
    content = Content(
        gateway_url=endpoints.gateway_url,
        pin_api_url=endpoints.pin_api_url,
        pin_upload_url=endpoints.pin_upload_url,
        pin_jwt=endpoints.pin_jwt,
    )
    offer = Offer(dataset_index(dataset), reward_lamports, model or MODEL)
    return post_round(creator, content, offer)
