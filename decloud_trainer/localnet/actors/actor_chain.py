"""The chain as the actors use it: blocking JSON-RPC, one signer, one transaction at a time."""

from __future__ import annotations

import base64
import struct
import time
from typing import Any

import requests
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.sysvar import CLOCK
from solders.transaction import Transaction

from decloud_trainer.chain import v1
from decloud_trainer.errors import ChainError, DecloudError, RpcError, TransactionExpired
from decloud_trainer.rounds.model import Round, Submission

TIMEOUT_S = 5.0
CONFIRM_S = 30.0
CONFIRM_POLL_S = 0.1
COMMITMENT = {"commitment": "confirmed"}


class ActorChain:
    """One actor's view and hand on the ledger.

    Reads are at commitment *confirmed*. Every method may raise RpcError; the actors' loops
    come back to it.
    """

    def __init__(self, rpc_url: str, generation: str, key: Keypair) -> None:
        self.generation = generation
        self.key = key
        self.pubkey = str(key.pubkey())
        self._url = rpc_url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between us and this machine

    def call(self, method: str, *params: Any) -> Any:
        """The result of one JSON-RPC call.

        Raises:
            RpcError: no answer, no JSON, or an error that isn't the program's.
            ProgramError: preflight ran the program and it refused.
        """
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            answer = self._session.post(self._url, json=body, timeout=TIMEOUT_S)
            answer.raise_for_status()
            content = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise RpcError(f"{method}: {error}") from error
        if "error" in content:
            raise self._translated(method, content["error"])
        return content["result"]

    def now(self) -> int:
        """The ledger's clock, unix seconds: what the program compares deadlines with."""
        data = self._data(CLOCK)
        if data is None:
            raise RpcError("the ledger has no clock account")
        return int(struct.unpack_from("<q", data, 32)[0])

    def balance(self, address: str | None = None) -> int:
        """The lamports of an address, by default the actor's own."""
        return int(self.call("getBalance", address or self.pubkey, COMMITMENT)["value"])

    def counter(self) -> int | None:
        """The next round's id; None before the program was initialised."""
        data = self._data(v1.counter_address()[0])
        return None if data is None else v1.decode_counter(data)

    def round(self, round_id: int) -> Round | None:
        data = self._data(v1.round_address(round_id)[0])
        return None if data is None else v1.decode_round(data)

    def rounds(self) -> list[Round]:
        """All rounds, in the order of getProgramAccounts."""
        return [v1.decode_round(data) for data in self._accounts(v1.round_filters())]

    def submissions(
        self, *, round_id: int | None = None, trainer: str | None = None
    ) -> list[Submission]:
        """Submissions of a round or of a trainer, in the order of getProgramAccounts."""
        filters = v1.submission_filters(trainer, round_id)
        return [v1.decode_submission(data) for data in self._accounts(filters)]

    def airdrop(self, lamports: int, address: str | None = None) -> str:
        """Ask the local faucet and wait for the money; the signature of its transfer."""
        signature = str(self.call("requestAirdrop", address or self.pubkey, lamports))
        self._confirm(signature, time.monotonic() + CONFIRM_S)
        return signature

    def send(self, instruction: Instruction) -> str:
        """Land a transaction of one instruction, once; its signature.

        The signature is known before the first attempt, so a server in trouble is simply asked
        again with the same bytes.

        Raises:
            ProgramError: the program refused it.
            TransactionExpired: it wasn't confirmed within half a minute.
        """
        latest = self.call("getLatestBlockhash", COMMITMENT)["value"]
        message = Message([instruction], self.key.pubkey())
        signed = Transaction([self.key], message, Hash.from_string(latest["blockhash"]))
        raw = base64.b64encode(bytes(signed)).decode()
        options = {"encoding": "base64", "preflightCommitment": "confirmed"}
        signature = str(signed.signatures[0])
        patience = time.monotonic() + CONFIRM_S
        while time.monotonic() < patience:
            try:
                self.call("sendTransaction", raw, options)
                break
            except RpcError:  # perhaps it was taken all the same
                if self._status(signature):
                    break
                time.sleep(CONFIRM_POLL_S)
        self._confirm(signature, patience)
        return signature

    def _confirm(self, signature: str, patience: float) -> None:
        while time.monotonic() < patience:
            status = self._status(signature)
            if status and status["err"] is not None:
                raise self._refusal(status["err"], f"transaction {signature}")
            if status and status["confirmationStatus"] in ("confirmed", "finalized"):
                return
            time.sleep(CONFIRM_POLL_S)
        raise TransactionExpired(f"transaction {signature} was not confirmed in {CONFIRM_S:.0f} s")

    def _status(self, signature: str) -> dict[str, Any] | None:
        """The status, None if unknown or if the server doesn't answer right now."""
        try:
            status: dict[str, Any] | None = self.call("getSignatureStatuses", [signature])["value"][
                0
            ]
        except RpcError:
            return None
        return status

    def _data(self, address: Pubkey) -> bytes | None:
        options = {"encoding": "base64", **COMMITMENT}
        account = self.call("getAccountInfo", str(address), options)["value"]
        return None if account is None else base64.b64decode(account["data"][0])

    def _accounts(self, filters: list[v1.Filter]) -> list[bytes]:
        wanted = [{"memcmp": {"offset": f.offset, "bytes": f.base58}} for f in filters]
        options = {"encoding": "base64", "filters": wanted, **COMMITMENT}
        found = self.call("getProgramAccounts", str(v1.PROGRAM_ID), options)
        return [base64.b64decode(entry["account"]["data"][0]) for entry in found]

    def _translated(self, method: str, error: dict[str, Any]) -> DecloudError:
        data = error.get("data")
        if isinstance(data, dict) and data.get("err") not in (None, "AlreadyProcessed"):
            return self._refusal(data["err"], method)
        return RpcError(f"{method}: {error.get('message')}", code=error.get("code"))

    def _refusal(self, error: Any, what: str) -> DecloudError:
        match error:
            case {"InstructionError": [_, {"Custom": int(number)}]}:
                return v1.program_error(number, self.generation)
        return ChainError(f"{what} was refused: {error}")
