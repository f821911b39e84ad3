"""What a daemon would decide by at this moment, as far as another process can tell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decloud_trainer.settings import Settings

if TYPE_CHECKING:
    from decloud_trainer.chain.client import SolanaChain
    from decloud_trainer.rounds.entry import Entry
    from decloud_trainer.rounds.intake import Scope
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.rounds.model import Costs, Round
    from decloud_trainer.rounds.policy import Decision, Situation, Terms, Verdict
    from decloud_trainer.rounds.watchdog import Ended


@dataclass(frozen=True, slots=True)
class Outlook:
    """What decisions about all rounds have in common.

    Attributes:
        now: unix seconds of the chain.
        balance_lamports: None without a wallet.
        scope: whose rounds the journal is asked for; None without a wallet or a journal.
        past: how rounds of the wallet ended, the latest first.
    """

    settings: Settings
    terms: Terms
    journal: Journal | None
    now: float
    costs: Costs
    balance_lamports: int | None = None
    scope: Scope | None = None
    past: tuple[Ended, ...] = ()
    is_paused: bool = False

    def decide(self, round: Round) -> Decision:
        """Whether the round would be taken."""
        from decloud_trainer.rounds import policy

        if refused := self._refused(round):
            return policy.Decision(False, refused, lasting=True)
        return policy.decide(round, self.terms, self.situation(round))

    def explain(self, round: Round) -> list[Verdict]:
        """What every rule says of it, and what was found out when it was tried."""
        from decloud_trainer.rounds import policy

        verdicts = policy.explain(round, self.terms, self.situation(round))
        if refused := self._refused(round):
            verdicts.append(policy.Verdict("not refused", passed=False, text=refused))
        return verdicts

    def _refused(self, round: Round) -> str:
        entry = self._entry(round)
        return entry.facts.refused if entry is not None else ""

    def _entry(self, round: Round) -> Entry | None:
        if self.journal is None or self.scope is None:
            return None
        return self.journal.entry(self.scope.key(round.id))

    def situation(self, round: Round) -> Situation:
        """What the decision about this round depends on."""
        from decloud_trainer.plans import patience_of
        from decloud_trainer.rounds.gate import Gate
        from decloud_trainer.rounds.model import RoundStatus
        from decloud_trainer.rounds.policy import Situation
        from decloud_trainer.rounds.watchdog import back_offs

        in_work = 0
        if self.journal is not None and self.scope is not None:
            with_early = round.status is RoundStatus.WAITING_VALIDATOR
            key = self.scope.key(round.id)
            in_work = self.journal.slots_in_use(key, with_early=with_early)
        training, work = self._spans(round)
        return Situation(
            now=self.now,
            balance_lamports=self.balance_lamports,
            costs=self.costs,
            rounds_in_work=in_work,
            training_s=training,
            work_s=work,
            past=self.past,
            closed=Gate(paused=self.is_paused).closed(round.id),
            back_offs=back_offs(self.past, self.now, patience_of(self.settings)),
        )

    def _spans(self, round: Round) -> tuple[float | None, float | None]:
        """Seconds of one epoch and of the whole training, where the speed has been measured."""
        from decloud_trainer.plans import plan_of
        from decloud_trainer.rounds.deciding import training_s, work_s

        entry = self._entry(round)
        if entry is None or not entry.facts.samples_per_s:
            return None, None
        plan, window_s = plan_of(self.settings), self.settings.expected_training_window
        return training_s(plan, entry.facts), work_s(plan, entry.facts, window_s)


async def outlook_now(
    chain: SolanaChain,
    settings: Settings,
    pubkey: str | None,
    now: float,
    *,
    journal: Journal | None,
    round_id: int | None = None,
) -> Outlook:
    """As of now.

    Args:
        now: unix seconds of the chain.
        round_id: with one, the costs hold what others pay for its transactions.
    """
    from decloud_trainer.plans import terms_of
    from decloud_trainer.rounds.figures import ended
    from decloud_trainer.rounds.intake import Scope
    from decloud_trainer.rounds.marks import paused_until
    from decloud_trainer.services import program_of

    terms = terms_of(settings)
    costs = await chain.costs(round_id if settings.max_priority_fee_lamports else None)
    balance = await chain.balance() if pubkey else None
    if journal is None or pubkey is None:
        return Outlook(settings, terms, journal, now, costs, balance)
    scope = Scope(await chain.genesis_hash(), str(program_of(settings)), pubkey)
    return Outlook(
        settings,
        terms,
        journal,
        now,
        costs,
        balance,
        scope,
        ended(journal, scope.key(0)),
        paused_until(journal) > time.time(),
    )
