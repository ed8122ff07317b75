"""Whoever is refused again and again, over the network: the log stays short, nothing of it is lost, and nothing is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.routes import BY_NAME
from keystead.api.types import mailboxes as m
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.errors import Forbidden, KeysteadError, Unauthenticated
from keystead.ports.clock import MINUTE
from keystead.services import tenants
from keystead.services.refusals import MOST_CALLERS, MOST_WRITTEN, OTHERS
from keystead.services.sign_in import for_the_log

if TYPE_CHECKING:
    from attacks.conftest import Scene
    from keystead.core.access.principal import Principal as Principal_

HERE = "198.51.100.7"
ALICE, MALLORY = "alice@contoso.example", "admin@contoso.example"


def refuse(scene: Scene, who: Principal_, tenant: str, *, ip: str = HERE, route: str = "mailbox.list", **more: Any) -> KeysteadError:
    """A call that is refused."""
    request = more.pop("request", None) or BY_NAME[route].request()
    with pytest.raises(KeysteadError) as caught:
        scene.world.dispatcher.run(BY_NAME[route], request, principal=who, tenant=tenant, client_ip=ip, **more)
    return caught.value


def failed(scene: Scene, tenant: str) -> list[tuple[str, str, str]]:
    """Operation, person and parameters of the refusals in a log, oldest first."""
    found = scene.world.sql(
        "SELECT operation, user_id, parameters FROM audit_records WHERE organization_id = ? AND result_status = 'Failed' ORDER BY sequence",
        tenant,
    )
    return [(str(operation), str(upn), str(parameters)) for operation, upn, parameters in found]


def test_a_stranger_cannot_fill_the_log_of_another_tenant_R_206(scene: Scene) -> None:
    """R-206: the first refusals are there one by one; the others are counted, by call and reason, and no call is missing."""
    alice = tenants.impersonate(scene.world.services, ALICE)
    before = len(failed(scene, scene.fabrikam.id))
    for _ in range(500):
        assert refuse(scene, alice, "fabrikam.example").code == "another_tenant"
    for _ in range(7):
        refuse(scene, alice, "fabrikam.example", route="tenant.show")
    assert len(failed(scene, scene.fabrikam.id)) == before + MOST_WRITTEN
    scene.world.clock.advance(MINUTE)
    for_the_log(scene.world.services)
    operation, upn, parameters = failed(scene, scene.fabrikam.id)[-1]
    assert (operation, upn) == ("CallsRefused", ALICE)
    assert f"mailbox.list:another_tenant={500 - MOST_WRITTEN},tenant.show:another_tenant=7" in parameters
    assert str(507 - MOST_WRITTEN) in parameters
    refuse(scene, alice, "fabrikam.example")
    assert failed(scene, scene.fabrikam.id)[-1][0] == "mailbox.list", "a new minute begins with whole records"


def test_noise_of_one_caller_hides_nothing_of_another_R_206(scene: Scene) -> None:
    """R-206: a person, and an address, has records of their own."""
    alice, admin = (tenants.impersonate(scene.world.services, upn) for upn in (ALICE, MALLORY))
    for _ in range(100):
        refuse(scene, alice, "fabrikam.example")
    refuse(scene, admin, "fabrikam.example")
    assert failed(scene, scene.fabrikam.id)[-1][1] == MALLORY
    refuse(scene, alice, "fabrikam.example", ip="2001:db8::1")
    assert failed(scene, scene.fabrikam.id)[-1][1] == ALICE
    before = len(failed(scene, scene.fabrikam.id))
    for host in range(50):
        refuse(scene, alice, "fabrikam.example", ip=f"2001:db8::{host:x}")
    assert len(failed(scene, scene.fabrikam.id)) == before + MOST_WRITTEN - 1, "a network that one subscriber has counts once"


def test_many_addresses_share_one_account_R_206(scene: Scene) -> None:
    """R-206: addresses are cheap for whoever has many: beyond a number they are counted together."""
    alice = tenants.impersonate(scene.world.services, ALICE)
    before = len(failed(scene, scene.fabrikam.id))
    for host in range(MOST_CALLERS + 200):
        refuse(scene, alice, "fabrikam.example", ip=f"203.0.{host // 256}.{host % 256}")
    assert len(failed(scene, scene.fabrikam.id)) == before + MOST_CALLERS + MOST_WRITTEN
    for_the_log(scene.world.services, all_of_it=True)
    ((address,),) = scene.world.sql("SELECT client_ip FROM audit_records WHERE operation = 'CallsRefused'")
    assert address == OTHERS


def test_what_is_counted_is_written_when_the_process_ends_R_206(scene: Scene) -> None:
    """R-206: and says whether it was one of the provider's people."""
    support = Principal("support@provider.example", None, frozenset({Role.SUPPORT_ENGINEER}))
    request = m.ListItems(upn="dave@fabrikam.example")
    for _ in range(MOST_WRITTEN + 3):
        assert refuse(scene, support, "fabrikam.example", route="mailbox.items", request=request).code == "provider_never_reads"
    for_the_log(scene.world.services, all_of_it=True)
    ((upn, external),) = scene.world.sql("SELECT user_id, external_access FROM audit_records WHERE operation = 'CallsRefused'")
    assert (upn, bool(external)) == ("support@provider.example", True)


def test_commands_on_this_machine_have_all_of_theirs_written(scene: Scene) -> None:
    alice = tenants.impersonate(scene.world.services, ALICE)
    before = len(failed(scene, scene.fabrikam.id))
    for _ in range(3 * MOST_WRITTEN):
        refuse(scene, alice, "fabrikam.example", ip="")
    assert len(failed(scene, scene.fabrikam.id)) == before + 3 * MOST_WRITTEN


# -- what refusals tell -------------------------------------------------------------------------------------------------------------------


def told(scene: Scene, who: Principal_, tenant: str) -> tuple[type[KeysteadError], str, str, str]:
    error = refuse(scene, who, tenant)
    return type(error), error.code, error.detail, error.mend


@pytest.mark.parametrize("scopes", [None, frozenset({"user.list"}), frozenset({"mailbox.*"})])
@pytest.mark.parametrize("upn", [ALICE, MALLORY, ""])
def test_which_other_tenants_there_are_is_not_told_R_194(scene: Scene, upn: str, scopes: frozenset[str] | None) -> None:
    """R-194: to a person, a program and nobody a tenant that is there answers like one that is not, to the letter."""
    person = tenants.impersonate(scene.world.services, upn) if upn else NOBODY
    who = Principal(person.upn, person.tenant_id, person.roles, scopes=scopes) if upn else NOBODY
    answers = {told(scene, who, name) for name in ("fabrikam.example", "Fabrikam", scene.fabrikam.id, "nobody.example", "nowhere", "-1")}
    assert len(answers) == 1
    ((kind, _code, detail, _mend),) = answers
    assert kind in {Forbidden, Unauthenticated}
    assert "nobody.example" not in detail


def test_ones_own_log_does_not_tell_which_other_tenants_there_are_R_194(scene: Scene) -> None:
    """R-194: a refusal about a tenant that is not there goes to the installation's log; it is written in both cases, which takes as long."""
    admin = tenants.impersonate(scene.world.services, MALLORY)
    own, provider, theirs = (len(failed(scene, tenant)) for tenant in (scene.contoso.id, "", scene.fabrikam.id))
    for name in ("fabrikam.example", "nobody.example"):
        refuse(scene, admin, name)
    after = [len(failed(scene, tenant)) for tenant in (scene.contoso.id, "", scene.fabrikam.id)]
    assert after == [own, provider + 1, theirs + 1]


def test_the_provider_still_hears_that_a_tenant_is_not_there(scene: Scene) -> None:
    operator = Principal("operator@provider.example", None, frozenset({Role.OPERATOR}))
    assert told(scene, operator, "nobody.example")[1] == "tenant_not_found"


def test_spellings_of_a_domain_do_not_fill_the_memory(scene: Scene) -> None:
    """Nobody needs to be signed in to name a tenant, and a domain of n letters has 2^n spellings."""
    directory: Any = scene.world.dispatcher._directory
    for number in range(200):
        spelling = "".join(letter.upper() if number >> bit & 1 else letter for bit, letter in enumerate("contoso.example"))
        assert refuse(scene, NOBODY, spelling).code == "not_signed_in"
    assert (
        scene.world.dispatcher.run(
            BY_NAME["tenant.show"], t.ShowTenant(), principal=tenants.impersonate(scene.world.services, ALICE), tenant="CONTOSO.example"
        ).name
        == "Contoso"
    )
    assert len(directory._known) <= 6


def test_a_long_name_does_not_go_into_the_log_whole(scene: Scene) -> None:
    """A name that is none is repeated in the error, and kept in the record only as far as it helps."""
    alice = scene.world.as_person(ALICE)
    with pytest.raises(Forbidden):
        alice.call("vault.log", v.VaultLogQuery(vault="Z" * 30_000))
    operation, _upn, parameters = failed(scene, scene.contoso.id)[-1]
    assert operation == "vault.log"
    assert len(parameters) < 2_000
