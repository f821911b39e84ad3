"""The wire layout of the three v1 generations, written out: the IDL files must say the same."""

from __future__ import annotations

from typing import Any

import pytest

from decloud_trainer.chain import v1
from decloud_trainer.chain.codec import GENERATIONS, Idl
from decloud_trainer.errors import SettingsError

# name: discriminator, arguments, accounts in order (w writable, r read-only, s signer,
# ? optional, system = the system program).
V1_2_INSTRUCTIONS = {
    "abort_round": (
        "0fa52fc66ccf96d0",
        "round_id: u64",
        "round(w), vault(w), creator(w), validator(ws), system",
    ),
    "cancel_round": (
        "524686362e609408",
        "round_id: u64",
        "round(w), vault(w), creator(ws), system",
    ),
    "check_round": (
        "951f46dd890522d8",
        "round_id: u64",
        "round(w), vault(w), creator(w), system",
    ),
    "claim_reward": (
        "955fb5f25e5a9ea2",
        "round_id: u64",
        "round(r), submission(w), vault(w), treasury(w), referrer?(w), trainer(ws), system",
    ),
    "claim_round": (
        "b4491763bacd0ec8",
        "round_id: u64",
        "round(w), validator(ws)",
    ),
    "claim_validator_fee": (
        "106394573c39fa91",
        "round_id: u64",
        "round(w), vault(w), treasury(w), referrer?(w), validator(ws), system",
    ),
    "complete_validation": (
        "76fcfd313e15f38c",
        "round_id: u64",
        "round(w), vault(w), treasury(w), referrer?(w), validator(ws), system",
    ),
    "create_round": (
        "e5daeca9e7508670",
        "round_id: u64, model_cid: string, dataset: Dataset, reward_amount: u64",
        "round_counter(w), round(w), vault(w), creator(ws), system",
    ),
    "finalize_round": (
        "efa0fe0bfe903594",
        "round_id: u64, results: vec<TrainerResult>",
        "round(w), validator(rs)",
    ),
    "initialize": (
        "afaf6d1f0d989bed",
        "",
        "round_counter(w), authority(ws), system",
    ),
    "join_round": (
        "bfde5619eaae9df9",
        "round_id: u64",
        "round(w), submission(w), trainer(ws), system",
    ),
    "set_contribution": (
        "e5b117aef2b4b4f2",
        "round_id: u64, contribution_bps: u16",
        "round(r), submission(w), validator(rs)",
    ),
    "start_training": (
        "c8dc0b1bb3b473c0",
        "round_id: u64, baseline_score: u32",
        "round(w), validator(ws)",
    ),
    "submit_gradients": (
        "1c8b3fd1fbddef36",
        "round_id: u64, gradient_cid: string",
        "round(w), submission(w), trainer(ws)",
    ),
}

V1_2_EVENTS = {
    "GradientsSubmitted": (
        "ecb8808791fdbb0d",
        "round_id: u64, trainer: pubkey, gradient_cid: string, submissions_count: u8",
    ),
    "RewardClaimed": (
        "311c57549e30e5af",
        "round_id: u64, trainer: pubkey, amount: u64, treasury_fee: u64, referrer_fee: u64",
    ),
    "RoundAborted": (
        "5aa0a1418555454c",
        "round_id: u64, validator: pubkey, refund_amount: u64",
    ),
    "RoundCancelled": (
        "ee8d69afb69e0f07",
        "round_id: u64",
    ),
    "RoundCreated": (
        "1013447557c6077c",
        (
            "round_id: u64, creator: pubkey, model_cid: string, dataset: Dataset, "
            "reward_amount: u64, validator_deadline: i64"
        ),
    ),
    "RoundExpired": (
        "5d7859ad5c7c4626",
        "round_id: u64, reason: ExpireReason, refund_amount: u64",
    ),
    "RoundFinalized": (
        "2bbb11c124f13052",
        "round_id: u64, validator_fee: u64, trainers_pool: u64, results: vec<TrainerResult>",
    ),
    "TrainerJoined": (
        "2c0ac486b8b15956",
        "round_id: u64, trainer: pubkey, trainers_count: u8",
    ),
    "TrainingEnded": (
        "18339f73ca5d54bb",
        "round_id: u64, submissions_count: u8",
    ),
    "TrainingStarted": (
        "7103d2316c59bd52",
        "round_id: u64, baseline_score: u32, submit_deadline: i64, trainers_count: u8",
    ),
    "ValidationCompleted": (
        "4acd1cc617aef194",
        "round_id: u64",
    ),
    "ValidatorClaimed": (
        "9067f0c197b7ef3d",
        "round_id: u64, validator: pubkey, join_deadline: i64",
    ),
    "ValidatorFeeClaimed": (
        "10b4381efbff55fb",
        "round_id: u64, validator: pubkey, amount: u64, treasury_fee: u64, referrer_fee: u64",
    ),
}

# v1.1 has no abort_round and no RoundAborted; in v1.0 these are shorter as well.
V1_0_INSTRUCTIONS = {
    "claim_reward": (
        "955fb5f25e5a9ea2",
        "round_id: u64",
        "round(r), submission(w), vault(w), trainer(ws), system",
    ),
    "claim_validator_fee": (
        "106394573c39fa91",
        "round_id: u64",
        "round(w), vault(w), validator(ws), system",
    ),
    "complete_validation": (
        "76fcfd313e15f38c",
        "round_id: u64",
        "round(w), vault(w), validator(ws), system",
    ),
}
V1_0_EVENTS = {
    "RewardClaimed": (
        "311c57549e30e5af",
        "round_id: u64, trainer: pubkey, amount: u64",
    ),
    "ValidatorFeeClaimed": (
        "10b4381efbff55fb",
        "round_id: u64, validator: pubkey, amount: u64",
    ),
}
V1_1_INSTRUCTIONS = {k: v for k, v in V1_2_INSTRUCTIONS.items() if k != "abort_round"}
V1_1_EVENTS = {k: v for k, v in V1_2_EVENTS.items() if k != "RoundAborted"}
INSTRUCTIONS = {
    "v1.0": V1_1_INSTRUCTIONS | V1_0_INSTRUCTIONS,
    "v1.1": V1_1_INSTRUCTIONS,
    "v1.2": V1_2_INSTRUCTIONS,
}
EVENTS = {"v1.0": V1_1_EVENTS | V1_0_EVENTS, "v1.1": V1_1_EVENTS, "v1.2": V1_2_EVENTS}

ACCOUNTS = {
    "Round": (
        "577fa533494e74ae",
        (
            "id: u64, creator: pubkey, model_cid: string, dataset: Dataset, reward_amount: u64, "
            "status: RoundStatus, validator: pubkey, validator_fee_bps: u16, baseline_score: u32, "
            "created_at: i64, validator_deadline: i64, join_deadline: i64, submit_deadline: i64, "
            "trainers_count: u8, submissions_count: u8, bump: u8, vault_bump: u8"
        ),
    ),
    "RoundCounter": ("f402a5f0a80a01ee", "count: u64, authority: pubkey, bump: u8"),
    "Submission": (
        "3ac29f9e4b66b2c5",
        (
            "round_id: u64, trainer: pubkey, gradient_cid: string, submitted: bool, "
            "contribution_bps: u16, reward_claimed: bool, bump: u8"
        ),
    ),
}
ENUMS = {
    "RoundStatus": (
        "WaitingValidator WaitingTrainers Training Validating Completed Expired Cancelled"
    ),
    "ExpireReason": "NoValidator NoTrainers NoSubmissions",
    "Dataset": """
        Cifar10 Cifar100 Mnist FashionMnist Emnist Kmnist Food101
        Flowers102 StanfordDogs StanfordCars OxfordPets CatsVsDogs Eurosat Svhn
        Caltech101 Caltech256 Imdb Sst2 Sst5 YelpReviews AmazonPolarity
        RottenTomatoes FinancialSentiment TweetSentiment AgNews Dbpedia YahooAnswers
        TwentyNewsgroups SmsSpam HateSpeech CivilComments Toxicity ClincIntent Banking77
        SnipsIntent Conll2003 Wnut17 Squad SquadV2 TriviaQa BoolQ CommonsenseQa
        Stsb Mrpc Qqp Snli Mnli CnnDailymail Xsum
        Samsum SpeechCommands Librispeech CommonVoice Gtzan Esc50 Urbansound8k
        Nsynth Ravdess CremaD Iemocap Iris Wine Diabetes
        BreastCancer CaliforniaHousing AdultIncome BankMarketing CreditDefault Titanic
        HeartDisease ChestXray SkinCancer DiabeticRetinopathy BrainTumor Malaria BloodCells
        CovidXray PubmedQa MedQa Electricity Weather StockPrices EcgHeartbeat CodeSearchNet
        Humaneval Mbpp Spider Cora Citeseer Qm9 NslKdd
        CreditCardFraud Phishing Movielens1m Movielens100k Xnli AmazonReviewsMulti Sberquad
        Custom
    """,
}
ERRORS = """
    InvalidCid ZeroReward InvalidRoundId CannotCancel RoundNotWaitingValidator
    ValidatorDeadlinePassed RoundNotWaitingTrainers NotValidator NoTrainers JoinDeadlinePassed
    MaxTrainersReached RoundNotTraining SubmitDeadlinePassed AlreadySubmitted RoundNotCompleted
    NotSubmitted RewardAlreadyClaimed NoContribution FeeAlreadyClaimed InvalidContributionSum
    RoundNotValidating InvalidTreasury CannotAbort InvalidCreator
"""
ERROR_COUNT = {"v1.0": 21, "v1.1": 22, "v1.2": 24}


def spelled(kind: Any) -> str:
    match kind:
        case {"vec": item}:
            return f"vec<{spelled(item)}>"
        case {"defined": {"name": name}}:
            return str(name)
    return str(kind)


def spelled_fields(fields: Any) -> str:
    return ", ".join(f"{name}: {spelled(kind)}" for name, kind in fields)


def spelled_account(account: Any) -> str:
    if account.name == "system_program":
        assert account.address == "11111111111111111111111111111111"
        flags = (account.writable, account.signer, account.optional)
        assert flags == (False, False, False)
        return "system"
    flags = ("w" if account.writable else "r") + ("s" if account.signer else "")
    return f"{account.name}{'?' if account.optional else ''}({flags})"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_instructions_are_laid_out_as_written_here(generation: str) -> None:
    """Discriminators, arguments, and the order and flags of accounts are the network's."""
    found = {
        name: (
            layout.discriminator.hex(),
            spelled_fields(layout.fields),
            ", ".join(spelled_account(account) for account in layout.accounts),
        )
        for name, layout in Idl.load(generation).instructions.items()
    }
    assert found == INSTRUCTIONS[generation]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_events_are_laid_out_as_written_here(generation: str) -> None:
    """Discriminators and fields of the events are the network's."""
    idl = Idl.load(generation)
    found = {n: (d.hex(), spelled_fields(idl.fields(n))) for n, d in idl.events.items()}
    assert found == EVENTS[generation]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_accounts_are_laid_out_as_written_here(generation: str) -> None:
    """The accounts are the same in all three generations."""
    idl = Idl.load(generation)
    found = {n: (d.hex(), spelled_fields(idl.fields(n))) for n, d in idl.accounts.items()}
    assert found == ACCOUNTS
    assert spelled_fields(idl.fields("TrainerResult")) == "trainer: pubkey, contribution_bps: u16"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_enums_have_their_variants_in_this_order(generation: str) -> None:
    """A variant's place is its number on the wire."""
    idl = Idl.load(generation)
    assert {name: list(idl.variants(name)) for name in ENUMS} == {
        name: names.split() for name, names in ENUMS.items()
    }


@pytest.mark.parametrize("generation", GENERATIONS)
def test_errors_count_up_from_6000(generation: str) -> None:
    """v1.1 added one error and v1.2 two, at the end."""
    errors = Idl.load(generation).errors
    expected = ERRORS.split()[: ERROR_COUNT[generation]]
    assert {number: e.name for number, e in errors.items()} == {
        6000 + index: name for index, name in enumerate(expected)
    }


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_files_are_whole_idls(generation: str) -> None:
    """The files are in Anchor's present format, and name the program that the builders use."""
    raw = Idl.load(generation).raw
    assert raw["address"] == "HvQ8c3BBCsibJpH74UDXbvqEidJymzFYyGjNjRn7MYwC"
    assert raw["address"] == str(v1.PROGRAM_ID)
    assert raw["metadata"]["name"] == "federated_ai"
    assert raw["metadata"]["spec"] == "0.1.0"
    defined = {entry["name"] for entry in raw["types"]}
    assert {entry["name"] for entry in raw["accounts"] + raw["events"]} <= defined
    # A relation says whose field of the same name an account must equal.
    relations = {
        (i["name"], a["name"]): a["relations"]
        for i in raw["instructions"]
        for a in i["accounts"]
        if "relations" in a
    }
    assert relations == {
        ("cancel_round", "creator"): ["round"],
        ("submit_gradients", "trainer"): ["submission"],
        ("claim_reward", "trainer"): ["submission"],
    }


def test_dataset_numbers_that_matter() -> None:
    """Names of datasets are found by their number; 98 is the user's own data."""
    assert len(v1.DATASETS) == 99
    assert (v1.DATASETS[0], v1.DATASETS[3], v1.DATASETS[98]) == (
        "Cifar10",
        "FashionMnist",
        "Custom",
    )


def test_an_unknown_generation_is_a_setting_error() -> None:
    """A generation that isn't there is named, with those that are."""
    with pytest.raises(SettingsError, match=r"v9\.9") as caught:
        Idl.load("v9.9")
    assert "v1.0, v1.1, v1.2" in caught.value.hint
