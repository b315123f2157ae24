"""`rlhf publish`: a policy given away, and taken back."""

from dataclasses import dataclass
from pathlib import Path

from rlhf_dagster.cli.which_loop import open_loop
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.publications import Publications
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.inference.named_policy import CHAMPION, named_policy
from rlhf_dagster.publishing.places import place_of
from rlhf_dagster.publishing.publish import Wish, publish, withdraw


@dataclass(frozen=True)
class HowToPublish:
    """The options of a publication."""

    licence: str = ""
    adapters: bool = False
    public: bool = False
    anyway: bool = False

    def require_none(self) -> None:
        """Raise UserError where one is given for a withdrawal, which has none of them."""
        if self != HowToPublish():
            raise UserError("--withdraw takes --to, --policy, --reason and --by; leave the other options out.")


def publish_policy(folder: Path, to: str, name: str | None, how: HowToPublish, by: str) -> None:
    """Publish the policy called ``name``, and say where it is."""
    loop = open_loop(folder)
    wish = Wish(named_policy(loop, name or CHAMPION), "adapters" if how.adapters else "whole", how.licence, how.anyway)
    done = publish(loop, wish, place_of(to, public=how.public), by)
    revision = f", commit {done.revision}" if done.revision else ""
    print(f"{done.policy_id} is published at {done.to} as {done.tag}{revision}, under {done.licence}.")
    print(f'The way back: rlhf publish --withdraw --to {to} --reason "..." {loop.option}')


def withdraw_policy(folder: Path, to: str, name: str | None, how: HowToPublish, by: str, reason: str) -> None:
    """Withdraw the newest publication at a place, or that of the policy called ``name``, and say what stands now."""
    how.require_none()
    loop, place = open_loop(folder), place_of(to)
    done = withdraw(loop, place, _id_of(loop, name), by, reason)
    print(f"{done.policy_id} is withdrawn at {done.to}: its card says so, and its tag is {done.tag}-withdrawn now.")
    standing = [one.policy_id for one in Publications(loop.store).standing(to=done.to)]
    print(f"What stands there: {', '.join(standing) or 'nothing'}.")


def _id_of(loop: LoopFolder, name: str | None) -> str:
    """The id of a policy, which may be gone from the loop; empty where none is named."""
    if not name or name in loop.registry.policies():
        return name or ""
    return named_policy(loop, name).model_id
