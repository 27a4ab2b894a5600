"""From the events of an organization to rows. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aragora.chassis import sql
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import (
    InvitationWithdrawn,
    MemberInvited,
    MemberJoined,
    MemberRemoved,
    OrganizationCreated,
    OrganizationDeleted,
    OrganizationRenamed,
    RoleChanged,
)

Statement = tuple[str, tuple[Any, ...]]
"""A query of `sql/organizations.sql`, and its arguments."""

queries = sql.load("auth", "sql/organizations.sql")


def statements(org_id: str, event: DomainEvent, at: datetime) -> Sequence[Statement]:
    """What an event that occurred `at` changes in organizations, members and invitations."""
    match event:
        case OrganizationCreated():
            return [
                (queries.add_organization, (org_id, event.name, event.slug, at)),
                (queries.add_member, (org_id, event.owner_id, "owner", at)),
            ]
        case OrganizationRenamed():
            return [(queries.rename_organization, (org_id, event.name, event.slug))]
        case OrganizationDeleted():
            return [
                (queries.cancel_letters, (org_id, at)),
                (queries.withdraw_invitations, (org_id,)),
                (queries.remove_members, (org_id, at)),
                (queries.delete_organization, (org_id, at)),
            ]
        case MemberInvited():
            row = (org_id, event.invitation_id, event.role, event.invited_by, at, event.expires_at)
            return [(queries.add_invitation, row)]
        case InvitationWithdrawn():
            return [
                (queries.cancel_letter, (event.invitation_id, at)),
                (queries.end_invitation, (org_id, event.invitation_id, "withdrawn")),
            ]
        case MemberJoined():
            joined = (queries.add_member, (org_id, event.user_id, event.role, at))
            return [joined, (queries.end_invitation, (org_id, event.invitation_id, "accepted"))]
        case MemberRemoved():
            return [(queries.remove_member, (org_id, event.user_id, at))]
        case RoleChanged():
            return [(queries.change_role, (org_id, event.user_id, event.role))]
    return []
