"""Where everything outside is, and our side of it, made from the settings."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decloud_trainer.errors import SettingsError
from decloud_trainer.files import cache_dir, home_dir
from decloud_trainer.settings import Settings

if TYPE_CHECKING:
    from decloud_trainer.chain.rpc import Rpc
    from decloud_trainer.chain.wallet import FoundWallet, Wallet
    from decloud_trainer.ipfs.uploads import PinService
    from decloud_trainer.localnet.options import Endpoints
    from decloud_trainer.rounds.ports import Pins

PUBLIC_GATEWAYS = (
    "https://ipfs.io",
    "https://gateway.pinata.cloud",
    "https://dweb.link",
    "https://w3s.link",
)
PINATA_API = "https://api.pinata.cloud"
PINATA_UPLOADS = "https://uploads.pinata.cloud"
LOCAL_PINS = "http://127.0.0.1:8901"
# The local network's own, published credentials; see localnet/pin_server.py.
LOCAL_JWT = "localnet-jwt"


@dataclass(frozen=True, slots=True)
class Services:
    """Where everything outside is: the settings, or the network's own where they are empty.

    The first of several is the one that is preferred."""

    rpc_urls: tuple[str, ...] = field(repr=False)  # they may hold API keys
    ws_urls: tuple[str, ...] = field(repr=False)
    gateways: tuple[str, ...]
    pin_api_url: str
    pin_upload_url: str
    local_jwt: str


def running_localnet() -> Endpoints | None:
    """The endpoints of the local network that this home started, if one is running."""
    from decloud_trainer.localnet.options import Endpoints

    path = home_dir() / "localnet.json"
    return Endpoints.load(path) if path.exists() else None


def services(settings: Settings) -> Services:
    from decloud_trainer.chain.clusters import CLUSTERS

    network = CLUSTERS[settings.network]
    rpc_url, ws_url = network.rpc_url, network.ws_url
    gateways: tuple[str, ...] = PUBLIC_GATEWAYS
    api, uploads, jwt = PINATA_API, PINATA_UPLOADS, ""
    if settings.network == "localnet":
        gateways, api, uploads, jwt = (LOCAL_PINS,), LOCAL_PINS, LOCAL_PINS, LOCAL_JWT
        if (local := running_localnet()) is not None:
            rpc_url, ws_url = local.rpc_url, local.ws_url
            gateways, jwt = (local.gateway_url,), local.pin_jwt
            api, uploads = local.pin_api_url, local.pin_upload_url
    if settings.rpc_url:
        rpc_url = settings.rpc_url
        ws_url = settings.ws_url or _websocket_of(settings.rpc_url)
    fallbacks = settings.rpc_fallbacks
    ws_fallbacks = settings.ws_fallbacks or tuple(map(_websocket_of, fallbacks))
    return Services(
        rpc_urls=tuple(dict.fromkeys((rpc_url, *fallbacks))),
        ws_urls=tuple(dict.fromkeys((settings.ws_url or ws_url, *ws_fallbacks))),
        gateways=settings.gateways or gateways,
        pin_api_url=settings.pinata_api_url or api,
        pin_upload_url=settings.pinata_upload_url or uploads,
        local_jwt=jwt,
    )


def rpc_of(settings: Settings, **options: Any) -> Rpc:
    """The RPC endpoints, used as one; `options` are those of `Endpoints`."""
    from decloud_trainer.chain.clusters import CLUSTERS
    from decloud_trainer.chain.pool import Use
    from decloud_trainer.chain.rpc import Rpc

    use = Use(limit=settings.rpc_limit, genesis=CLUSTERS[settings.network].genesis)
    return Rpc(services(settings).rpc_urls, use=use, **options)


def _websocket_of(rpc_url: str) -> str:
    """Where a node that serves this RPC URL has its WebSocket, by Solana's custom: the same
    place on hosted endpoints, the port + 1 where the URL names a port."""
    from urllib.parse import urlsplit

    parts = urlsplit(rpc_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    host = parts.netloc
    if parts.port is not None:
        host = f"{host.rpartition(':')[0]}:{parts.port + 1}"
    return parts._replace(scheme=scheme, netloc=host).geturl()


def wallet_of(settings: Settings, keypair: str | None) -> Wallet:
    """The wallet that signs; a WalletError says where none was found, or no passphrase for it.

    An encrypted one may be asked for at the terminal. Where the address is enough, see
    `known_wallet`."""
    from decloud_trainer.chain.passphrases import unlock
    from decloud_trainer.chain.wallet import LockedWallet

    found = known_wallet(settings, keypair)
    if isinstance(found, LockedWallet):
        return unlock(found, os.environ, settings.passphrase_file)
    return found


def known_wallet(settings: Settings, keypair: str | None) -> FoundWallet:
    """The wallet, an encrypted one still locked; a WalletError says where none was found."""
    from decloud_trainer.chain.wallet import find_wallet

    return find_wallet(
        keypair_option=Path(keypair) if keypair else None,
        environ=os.environ,
        private_key=settings.private_key,
        keypair_path=settings.keypair_path,
    )


def pins_of(settings: Settings) -> Pins:
    from decloud_trainer.ipfs.gateways import Gateways
    from decloud_trainer.ipfs.pins import IpfsPins
    from decloud_trainer.ipfs.scores import Scores

    return IpfsPins(
        Gateways(services(settings).gateways, scores=Scores(cache_dir() / "gateways.json")),
        pin_services_of(settings),
        availability_s=settings.availability_wait,
    )


def gateway_scores(settings: Settings) -> dict[str, float]:
    """What each IPFS gateway may cost, in seconds, as was last seen; for display."""
    from decloud_trainer.ipfs.scores import Scores

    return Scores(cache_dir() / "gateways.json").of(services(settings).gateways)


def pin_services_of(settings: Settings) -> list[PinService]:
    """The pin services that are configured, in the order in which they are tried.

    Raises:
        SettingsError: `pin_services` names one that isn't configured.
    """
    from decloud_trainer.ipfs.kubo import Kubo
    from decloud_trainer.ipfs.pinning import PinataLegacy, PinataV3
    from decloud_trainer.ipfs.pinning_api import PinningApi

    where = services(settings)
    found: dict[str, PinService] = {}
    node = Kubo(settings.kubo_api_url, settings.kubo_token) if settings.kubo_api_url else None
    if settings.pinata_jwt:
        found["pinata"] = PinataV3(
            settings.pinata_jwt, api_url=where.pin_api_url, upload_url=where.pin_upload_url
        )
    if settings.pinata_api_key and settings.pinata_secret_key:
        found["pinata-key"] = PinataLegacy(
            settings.pinata_api_key, settings.pinata_secret_key, api_url=where.pin_api_url
        )
    if settings.pinning_api_url:
        found["pinning-api"] = PinningApi(
            settings.pinning_api_url, settings.pinning_api_token, node
        )
    if node is not None:
        found["kubo"] = node
    if not found and where.local_jwt:
        found["pinata"] = PinataV3(
            where.local_jwt, api_url=where.pin_api_url, upload_url=where.pin_upload_url
        )
    if missing := [name for name in settings.pin_services if name not in found]:
        raise SettingsError(
            f"pin_services names {', '.join(missing)}, which isn't configured",
            hint="set its address and credentials, or take it out: "
            "decloud-trainer config --set pin_services=",
        )
    return [found[name] for name in settings.pin_services or found]


def program_of(settings: Settings) -> Any:
    """The program's address (solders Pubkey)."""
    from solders.pubkey import Pubkey

    from decloud_trainer.chain import v1

    if not settings.program_id:
        return v1.PROGRAM_ID
    try:
        return Pubkey.from_string(settings.program_id)
    except ValueError as error:
        raise SettingsError(
            f"program_id {settings.program_id!r} is not a Solana address",
            hint="`decloud-trainer config --set program_id=` goes back to the DECLOUD program",
        ) from error
