"""The v1 generations of the network (program ``federated_ai``), all in one place.

They share accounts and addresses. v1.1 added the treasury and an optional referrer to the
accounts of payouts, v1.2 the instruction ``abort_round``.
"""

from __future__ import annotations

from decloud_trainer.chain.codec import GENERATIONS
from decloud_trainer.chain.events import Event, events
from decloud_trainer.chain.programerrors import program_error
from decloud_trainer.chain.v1_accounts import (
    CID_LENGTHS,
    DATASETS,
    SUBMITTED_LENGTHS,
    Filter,
    decode_counter,
    decode_round,
    decode_submission,
    round_filters,
    submission_filters,
)
from decloud_trainer.chain.v1_addresses import (
    PROGRAM_ID,
    SYSTEM_PROGRAM,
    TREASURY,
    Key,
    as_pubkey,
    counter_address,
    round_address,
    submission_address,
    vault_address,
)
from decloud_trainer.chain.v1_instructions import (
    abort_round,
    cancel_round,
    check_round,
    claim_reward,
    claim_round,
    claim_validator_fee,
    complete_validation,
    create_round,
    finalize_round,
    initialize,
    join_round,
    set_contribution,
    start_training,
    submit_gradients,
)

__all__ = [
    "CID_LENGTHS",
    "DATASETS",
    "GENERATIONS",
    "PROGRAM_ID",
    "SUBMITTED_LENGTHS",
    "SYSTEM_PROGRAM",
    "TREASURY",
    "Event",
    "Filter",
    "Key",
    "abort_round",
    "as_pubkey",
    "cancel_round",
    "check_round",
    "claim_reward",
    "claim_round",
    "claim_validator_fee",
    "complete_validation",
    "counter_address",
    "create_round",
    "decode_counter",
    "decode_round",
    "decode_submission",
    "events",
    "finalize_round",
    "initialize",
    "join_round",
    "program_error",
    "round_address",
    "round_filters",
    "set_contribution",
    "start_training",
    "submission_address",
    "submission_filters",
    "submit_gradients",
    "vault_address",
]
