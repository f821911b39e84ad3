"""The one error tree.

    DecloudError                     exit 1, final
    ├── SettingsError                exit 2: a setting, option or preset is wrong
    │   └── WalletError              no key, or a key that can't be read
    ├── AlreadyRunning               another process holds this home or wallet
    ├── CorruptionError              exit 4: our own stored data is damaged
    ├── StorageError                 retryable: our disk is full, read-only or failing
    ├── NetworkError                 retryable: nothing answered, or not usefully
    │   ├── RpcError                 a Solana endpoint
    │   ├── GatewayError             an IPFS gateway
    │   ├── PinError                 a pin service
    │   └── StoreUnavailable         where a chain of versions lies
    ├── ConflictError                another writer of a chain of versions was faster
    ├── PinRefused                   the pin service rejects our credentials or the upload
    ├── ChainError                   the chain said no
    │   ├── ProgramError             an error of the program: name and number
    │   ├── InsufficientFunds        the wallet can't pay
    │   ├── SpendingRefused          a guard of ours stands against signing it
    │   └── TransactionExpired       retryable: it never landed and never will
    ├── UntrustedData                bytes from outside that failed a check; final as they are
    │   ├── LayoutError              an account, event or instruction that doesn't decode
    │   ├── InvalidCid               not a CID, or not one that we accept
    │   ├── ContentMismatch          bytes that aren't what their CID or digest names
    │   ├── TooLarge                 over a size limit
    │   └── HostileFile              a model or artefact file that breaks the rules for such files
    ├── TrainingError                training or scoring could not be done
    │   ├── UnknownArchitecture      a state_dict that no known network has
    │   ├── DatasetUnavailable       the data is not here and can't be had
    │   ├── OutOfTime                the deadline leaves no room
    │   └── Diverged                 non-finite or useless weights
    ├── JobFailed                    a child process ended without a result
    └── RoundError                   a round can't be joined, trained or claimed as asked

A class decides `retryable` (would the same call, unchanged, be worth repeating later?) and
`exit_code`. A message says what is wrong and with what; `hint` says what to do next.
"""

from __future__ import annotations

from typing import ClassVar


def plain(text: str) -> str:
    """The text without what a terminal obeys or hides: a stranger's words may be in it.

    Escape sequences, other control characters and signs that turn the direction of writing become
    ``?``; line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else "?" for each in text)


class DecloudError(Exception):
    """Root of all expected failures. Message and hint are `plain`: they are shown and logged.

    Attributes:
        hint: what the user can do next, one sentence; empty when the message says it all.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(plain(message))
        self.hint = plain(hint)

    @property
    def message(self) -> str:
        return str(self.args[0])


class SettingsError(DecloudError):
    exit_code = 2


class WalletError(SettingsError):
    pass


class AlreadyRunning(DecloudError):
    pass


class CorruptionError(DecloudError):
    exit_code = 4


class StorageError(DecloudError):
    retryable = True


class NetworkError(DecloudError):
    retryable = True


class RpcError(NetworkError):
    """A Solana endpoint failed.

    Attributes:
        code: its JSON-RPC error code, when it sent one.
    """

    def __init__(self, message: str, *, hint: str = "", code: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class GatewayError(NetworkError):
    pass


class PinError(NetworkError):
    pass


class StoreUnavailable(NetworkError):
    pass


class ConflictError(DecloudError):
    pass


class PinRefused(DecloudError):
    pass


class ChainError(DecloudError):
    pass


class ProgramError(ChainError):
    """The on-chain program, or the framework below it, refused an instruction.

    Attributes:
        name: its name, e.g. ``JoinDeadlinePassed``.
        number: its number, e.g. 6009.
    """

    def __init__(self, message: str, *, name: str, number: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.number = number


class InsufficientFunds(ChainError):
    pass


class SpendingRefused(ChainError):
    pass


class TransactionExpired(ChainError):
    retryable = True


class UntrustedData(DecloudError):
    pass


class LayoutError(UntrustedData):
    pass


class InvalidCid(UntrustedData):
    pass


class ContentMismatch(UntrustedData):
    pass


class TooLarge(UntrustedData):
    pass


class HostileFile(UntrustedData):
    pass


class TrainingError(DecloudError):
    pass


class UnknownArchitecture(TrainingError):
    pass


class DatasetUnavailable(TrainingError):
    pass


class OutOfTime(TrainingError):
    pass


class Diverged(TrainingError):
    pass


class JobFailed(DecloudError):
    pass


class RoundError(DecloudError):
    pass


def by_name(name: str) -> type[DecloudError]:
    """The class of that name in the tree, for errors that crossed a process boundary.

    A name that isn't in it, or whose class needs more than a message, gives `JobFailed`.
    """
    found: list[type[DecloudError]] = [DecloudError]
    for kind in found:
        if kind.__name__ == name and kind is not ProgramError:
            return kind
        found.extend(kind.__subclasses__())
    return JobFailed
