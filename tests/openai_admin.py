"""The unmodified OpenAI client as the admin client of a tenant: `client.admin.organization`. Run by openai_client.rs."""

import time

import openai

client = openai.OpenAI(max_retries=0)
organization = client.admin.organization
projects = organization.projects


def with_key(key):
    """The same server with another key, for both kinds of requests."""
    return openai.OpenAI(api_key=key, admin_api_key=key, max_retries=0)


def refused(kind, code, ask, param=None):
    """The call must fail with this class of exception and code."""
    try:
        answer = ask()
    except openai.APIStatusError as error:
        assert type(error) is kind, (type(error), error)
        assert error.code == code and (param is None or error.param == param), (error.code, error.param, error)
        return str(error)
    raise AssertionError(f"answered {answer} instead of {kind.__name__}")


def not_for_him(ask):
    """The key is good, and its role is not one that may do this."""
    try:
        answer = ask()
    except (openai.NotFoundError, openai.PermissionDeniedError):
        return
    raise AssertionError(f"answered {answer}")


def manages_projects():
    default = projects.list().data[0]
    assert default.object == "organization.project" and default.name == "Default project"
    assert default.status == "active" and default.archived_at is None
    made = [projects.create(name=f"project {at}") for at in range(5)]
    assert all(project.id.startswith("proj_") and abs(project.created_at - time.time()) < 300 for project in made)
    # The iterator asks for as many pages as there are.
    assert [project.id for project in projects.list(limit=2)] == [default.id, *(project.id for project in made)]
    page = projects.list(limit=2)
    assert page.has_more and page.last_id == page.data[-1].id == made[0].id and page.first_id == default.id
    assert [project.id for project in projects.list(after=made[2].id)] == [made[3].id, made[4].id]
    assert projects.update(made[0].id, name="web").name == "web"
    assert projects.retrieve(made[0].id).name == "web"
    gone = projects.archive(made[4].id)
    assert gone.status == "archived" and abs(gone.archived_at - time.time()) < 300
    assert made[4].id not in {project.id for project in projects.list()}
    assert projects.retrieve(made[4].id).status == "archived"
    assert made[4].id in {project.id for project in projects.list(include_archived=True)}
    refused(openai.ConflictError, "project_archived", lambda: projects.update(made[4].id, name="again"))
    refused(openai.ConflictError, "default_project", lambda: projects.archive(default.id))
    refused(openai.BadRequestError, "invalid_value", lambda: projects.create(name="a\nb"), "name")
    refused(openai.BadRequestError, "invalid_value", lambda: projects.create(name=" "), "name")
    refused(openai.BadRequestError, "invalid_json", lambda: projects.create(name="x", geography="EU"))
    refused(openai.BadRequestError, "invalid_value", lambda: projects.list(limit=101), "limit")
    refused(openai.NotFoundError, "not_found", lambda: projects.retrieve("proj_0190d1f2a3b47c5d8e9f001122334455"))
    refused(openai.NotFoundError, "not_found", lambda: projects.retrieve("web"))
    return made[0], made[1]


def invites_people(web):
    invites, users = organization.invites, organization.users
    sent = invites.create(email="Jo@Example.com", role="reader", projects=[{"id": web.id, "role": "member"}])
    assert sent.object == "organization.invite" and sent.status == "pending" and sent.email == "jo@example.com"
    assert sent.role == "reader" and sent.expires_at > time.time() and sent.accepted_at is None
    assert [(project.id, project.role) for project in sent.projects] == [(web.id, "member")]
    assert invites.retrieve(sent.id).status == "pending"
    assert not hasattr(invites.retrieve(sent.id), "secret"), "shown once"
    refused(openai.ConflictError, "invite_exists", lambda: invites.create(email="jo@example.com", role="owner"))
    refused(openai.BadRequestError, "invalid_value", lambda: invites.create(email="jo", role="owner"), "email")
    refused(openai.BadRequestError, "invalid_value", lambda: invites.create(email="x@y.zz", role="admin"), "role")
    spare = invites.create(email="al@example.com", role="owner")
    deleted = invites.delete(spare.id)
    assert deleted.deleted and deleted.id == spare.id and deleted.object == "organization.invite.deleted"
    refused(openai.NotFoundError, "not_found", lambda: invites.retrieve(spare.id))

    # Who is invited shows the secret as the key.
    accept = lambda secret: with_key(secret).post(
        "/organization/invites/accept", cast_to=object, body={"name": "Jo Smith"}
    )
    refused(openai.AuthenticationError, "invalid_api_key", lambda: accept(spare.secret))
    refused(openai.NotFoundError, "not_found", lambda: with_key(sent.secret).models.list())
    joined = accept(sent.secret)
    refused(openai.AuthenticationError, "invalid_api_key", lambda: accept(sent.secret))
    assert invites.retrieve(sent.id).status == "accepted"
    refused(openai.ConflictError, "invite_accepted", lambda: invites.delete(sent.id))
    refused(openai.ConflictError, "user_exists", lambda: invites.create(email="jo@example.com", role="owner"))

    jo = users.retrieve(joined["user"]["id"])
    assert jo.object == "organization.user" and jo.name == "Jo Smith" and jo.email == "jo@example.com"
    assert jo.role == "reader" and abs(jo.added_at - time.time()) < 300
    boss = invites.create(email="boss@example.com", role="owner")
    boss = accept(boss.secret)
    assert [user.id for user in users.list(limit=1)] == [jo.id, boss["user"]["id"]]
    assert [user.id for user in users.list(emails=["boss@example.com", "nobody@example.com"])] == [boss["user"]["id"]]
    member = with_key(joined["key"]["value"])
    assert member.completions.create(model="atelier", prompt="a = ", max_tokens=2).choices
    not_for_him(lambda: member.admin.organization.users.update(jo.id, role="owner"))
    not_for_him(lambda: member.admin.organization.users.list())
    refused(openai.ConflictError, "last_owner", lambda: users.update(boss["user"]["id"], role="reader"))
    refused(openai.ConflictError, "last_owner", lambda: users.delete(boss["user"]["id"]))
    # An owner's own key is an admin's, and ends when he is one no more.
    as_boss = with_key(boss["key"]["value"])
    assert as_boss.admin.organization.users.update(jo.id, role="owner").role == "owner"
    assert as_boss.admin.organization.users.update(boss["user"]["id"], role="reader").role == "reader"
    refused(openai.AuthenticationError, "invalid_api_key", lambda: as_boss.admin.organization.users.list())
    return jo, users.retrieve(boss["user"]["id"]), member


def manages_project_users(web, app, jo, boss):
    people = projects.users
    listed = people.list(web.id)
    assert [(one.id, one.role, one.email) for one in listed] == [(jo.id, "member", "jo@example.com")]
    assert listed.data[0].object == "organization.project.user" and listed.data[0].name == "Jo Smith"
    added = people.create(web.id, user_id=boss.id, role="member")
    assert added.id == boss.id and abs(added.added_at - time.time()) < 300
    refused(openai.ConflictError, "user_in_project", lambda: people.create(web.id, user_id=boss.id, role="owner"))
    assert people.create(app.id, email="jo@example.com", role="owner").id == jo.id
    assert people.update(boss.id, project_id=web.id, role="owner").role == "owner"
    assert people.retrieve(boss.id, project_id=web.id).role == "owner"
    assert [one.id for one in people.list(web.id, limit=1)] == [jo.id, boss.id]
    refused(openai.BadRequestError, "invalid_value", lambda: people.create(web.id, role="member"), "user_id")
    refused(openai.BadRequestError, "invalid_value", lambda: people.create(web.id, user_id=boss.id, role="x"), "role")
    gone = people.delete(boss.id, project_id=web.id)
    assert gone.deleted and gone.id == boss.id and gone.object == "organization.project.user.deleted"
    refused(openai.NotFoundError, "not_found", lambda: people.retrieve(boss.id, project_id=web.id))


def manages_service_accounts(web, app):
    accounts = projects.service_accounts
    made = accounts.create(web.id, name="ci", expires_in_seconds=3600)
    assert made.object == "organization.project.service_account" and made.role == "member" and made.name == "ci"
    assert made.api_key.object == "organization.project.service_account.api_key"
    assert made.api_key.value.startswith("atl_t_") and made.api_key.expires_at > time.time()
    machine = with_key(made.api_key.value)
    assert machine.completions.create(model="atelier", prompt="a = ", max_tokens=2).choices
    bare = accounts.create(web.id, name="bare", create_service_account_only=True)
    assert bare.api_key is None and bare.role == "none"
    assert [one.id for one in accounts.list(web.id, limit=1)] == [made.id, bare.id]
    renamed = accounts.update(made.id, project_id=web.id, name="build", role="owner")
    assert (renamed.name, renamed.role) == ("build", "owner")
    assert accounts.retrieve(made.id, project_id=web.id).name == "build"
    refused(openai.NotFoundError, "not_found", lambda: accounts.retrieve(made.id, project_id=app.id))
    second = accounts.api_keys.create(made.id, project_id=web.id, name="second", scopes=["read"])
    assert second.object == made.api_key.object and second.name == "second"
    narrow = with_key(second.value)
    complete = lambda: narrow.completions.create(model="atelier", prompt="a = ", max_tokens=2)
    assert "`complete`" in refused(openai.PermissionDeniedError, "insufficient_scope", complete)
    return made, machine, bare


def manages_project_keys(web, app, jo, made, machine):
    keys = projects.api_keys
    listed = {key.id: key for key in keys.list(web.id, limit=1)}
    assert len(listed) == 3, listed
    held = keys.retrieve(made.api_key.id, project_id=web.id)
    assert held.object == "organization.project.api_key" and held.name == "ci"
    assert held.owner.type == "service_account" and held.owner.service_account.id == made.id
    assert held.owner.service_account.name == "build" and held.owner_project_access == "active"
    assert held.redacted_value.startswith("atl_t_") and made.api_key.value not in held.redacted_value
    (of_jo,) = [key for key in listed.values() if key.owner.type == "user"]
    assert of_jo.owner.user.id == jo.id and of_jo.owner.user.email == "jo@example.com"
    deadline = time.time() + 20
    while keys.retrieve(made.api_key.id, project_id=web.id).last_used_at is None:
        assert time.time() < deadline, "the last use is written down in time"
        time.sleep(0.1)
    assert list(keys.list(web.id, owner_project_access="inactive")) == []
    refused(openai.NotFoundError, "not_found", lambda: keys.retrieve(made.api_key.id, project_id=app.id))
    refused(openai.NotFoundError, "not_found", lambda: keys.delete(made.api_key.id, project_id=app.id))
    gone = keys.delete(made.api_key.id, project_id=web.id)
    assert gone.deleted and gone.object == "organization.project.api_key.deleted"
    refused(openai.AuthenticationError, "invalid_api_key", lambda: machine.models.list())
    refused(openai.NotFoundError, "not_found", lambda: keys.delete(made.api_key.id, project_id=web.id))


def ends_machines(web, made, bare):
    accounts = projects.service_accounts
    for account in (made, bare):
        gone = accounts.delete(account.id, project_id=web.id)
        assert gone.deleted and gone.object == "organization.project.service_account.deleted"
        refused(openai.NotFoundError, "not_found", lambda: accounts.retrieve(account.id, project_id=web.id))


def manages_admin_keys():
    keys = organization.admin_api_keys
    before = [key.id for key in keys.list()]
    made = keys.create(name="terraform", expires_in_seconds=3600)
    assert made.object == "organization.admin_api_key" and made.name == "terraform"
    assert made.value.startswith("atl_t_") and made.expires_at > time.time()
    other = keys.create(name="other")
    assert other.expires_at is None and keys.retrieve(other.id).redacted_value == other.redacted_value
    assert [key.id for key in keys.list(limit=1)] == [*before, made.id, other.id]
    assert [key.id for key in keys.list(limit=1, order="desc")] == [other.id, made.id, *reversed(before)]
    admin = with_key(made.value)
    assert admin.admin.organization.projects.create(name="made by the admin key").id
    complete = lambda: admin.completions.create(model="atelier", prompt="a", max_tokens=1)
    assert "`complete`" in refused(openai.PermissionDeniedError, "insufficient_scope", complete)
    gone = keys.delete(made.id)
    assert gone.deleted and gone.id == made.id and gone.object == "organization.admin_api_key.deleted"
    refused(openai.AuthenticationError, "invalid_api_key", lambda: admin.admin.organization.projects.list())
    refused(openai.NotFoundError, "not_found", lambda: keys.retrieve(made.id))
    refused(openai.BadRequestError, "invalid_value", lambda: keys.create(name="x", expires_in_seconds=0))


def tells_usage_apart(web, jo, member):
    usage = organization.usage
    start = int(time.time()) - 3600
    member.completions.create(model="atelier", prompt="a = ", max_tokens=2)
    ask = lambda **options: [
        result
        for bucket in usage.completions(start_time=start, bucket_width="1d", **options).data
        for result in bucket.results
    ]
    deadline = time.time() + 20
    while True:
        by_project = {result.project_id: result for result in ask(group_by=["project_id"])}
        if web.id in by_project and by_project[web.id].num_model_requests >= 3:
            break
        assert time.time() < deadline, by_project
        time.sleep(0.2)
    assert set(by_project) == {web.id}, by_project
    (only,) = ask(project_ids=[web.id], group_by=["user_id"], user_ids=[jo.id])
    assert only.user_id == jo.id and only.num_model_requests == 2, only
    assert ask(project_ids=[projects.list().data[0].id]) == []


def is_on_record(web):
    logs = organization.audit_logs
    kinds = [event.type for event in logs.list(limit=100)]
    for kind in (
        "project.created", "project.updated", "project.archived", "invite.sent", "invite.accepted", "invite.deleted",
        "user.updated", "service_account.created", "service_account.updated", "service_account.deleted",
        "project.user.added", "project.user.updated", "project.user.deleted", "api_key.created", "api_key.deleted",
    ):
        assert kind in kinds, (kind, kinds)
    (created,) = [event for event in logs.list(event_types=["project.updated"]) if event.project_updated.id == web.id]
    assert created.actor.type == "api_key"
    told = "".join(event.to_json() for event in logs.list(limit=100))
    for hidden in ("example.com", "Jo Smith", "terraform", "atl_i_"):
        assert hidden not in told, hidden


def removes_people(jo, boss, member):
    users = organization.users
    users.update(boss.id, role="owner")
    gone = users.delete(jo.id)
    assert gone.deleted and gone.id == jo.id and gone.object == "organization.user.deleted"
    refused(openai.NotFoundError, "not_found", lambda: users.retrieve(jo.id))
    refused(openai.AuthenticationError, "invalid_api_key", lambda: member.models.list())
    assert organization.invites.create(email="jo@example.com", role="reader", projects=[]).projects == []


web, app = manages_projects()
jo, boss, member = invites_people(web)
manages_project_users(web, app, jo, boss)
made, machine, bare = manages_service_accounts(web, app)
manages_project_keys(web, app, jo, made, machine)
ends_machines(web, made, bare)
manages_admin_keys()
tells_usage_apart(web, jo, member)
removes_people(jo, boss, member)
is_on_record(web)
print("all good")
