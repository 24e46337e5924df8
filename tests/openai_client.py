"""What users of the OpenAI client rely on, tried with the unmodified client. Run by tests/openai_client.rs."""

import asyncio
import os
import time

import openai

PROMPT = "def fibonacci(n):\n"
MODEL = "atelier"

client = openai.OpenAI(max_retries=0)


def complete(**options):
    return client.completions.create(**{"model": MODEL, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, **options})


def refused(kind, status, code, param, **options):
    """The call must fail with this class of exception, status, code and parameter."""
    try:
        answer = complete(**options)
    except openai.APIStatusError as error:
        assert type(error) is kind, (type(error), error)
        assert error.status_code == status, error.status_code
        assert error.code == code, (error.code, error)
        assert error.param == param, (error.param, error)
        assert error.request_id, "every answer names its request"
        return str(error)
    raise AssertionError(f"answered {answer} instead of {kind.__name__}")


def completes():
    answer = complete()
    assert answer.id.startswith("cmpl-"), answer.id
    assert answer.object == "text_completion" and answer.model == MODEL
    assert abs(answer.created - time.time()) < 300, answer.created
    (choice,) = answer.choices
    assert choice.text and choice.index == 0 and choice.logprobs is None
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens


def streams_with_usage():
    whole = complete()
    chunks = list(complete(stream=True, stream_options={"include_usage": True}))
    *parts, last = chunks
    assert last.choices == [] and last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(part.usage is None and part.id == last.id for part in parts)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    reasons = [part.choices[0].finish_reason for part in parts]
    assert reasons[-1] == whole.choices[0].finish_reason and not any(reasons[:-1]), reasons
    without = list(complete(stream=True))
    assert all(part.usage is None and part.choices for part in without)


def streams_are_left_early():
    for _ in range(4):
        with complete(stream=True, max_tokens=400) as stream:
            next(iter(stream))
    assert complete().choices


async def many_at_once():
    async with openai.AsyncOpenAI(max_retries=0) as many:
        ask = lambda seed: many.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=12, temperature=1, seed=seed
        )
        answers = await asyncio.gather(*(ask(seed % 3) for seed in range(9)))
    texts = [answer.choices[0].text for answer in answers]
    assert texts[:3] == texts[3:6] == texts[6:], texts


def lists_models():
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {"atelier", "atelier-base"}, models
    assert all(model.object == "model" and model.owned_by for model in models.values())
    assert client.models.retrieve("atelier").id == "atelier"
    try:
        client.models.retrieve(os.environ["FOREIGN_MODEL"])
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
    else:
        raise AssertionError("another tenant's model is to be seen")


def has_choices():
    answer = complete(n=3, temperature=1, seed=11)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    several = complete(prompt=["a = ", "b = ", "c = "], n=2, max_tokens=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3, 4, 5]
    assert several.choices[0].text == several.choices[1].text, "greedy choices of one prompt are alike"
    alone = complete(prompt="b = ", max_tokens=2)
    assert several.choices[2].text == alone.choices[0].text
    chunks = list(complete(n=3, temperature=1, seed=11, stream=True))
    for choice in answer.choices:
        parts = [part.choices[0].text for part in chunks if part.choices[0].index == choice.index]
        assert "".join(parts) == choice.text


def gives_logprobs():
    answer = complete(logprobs=3, max_tokens=6)
    logprobs = answer.choices[0].logprobs
    count = answer.usage.completion_tokens
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) <= count
    assert all(value <= 0 for value in logprobs.token_logprobs)
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert 1 <= len(top) <= 4, top
        # Greedy takes the likeliest.
        assert abs(max(top.values()) - value) < 1e-4 and token in top, (token, value, top)
    assert "".join(logprobs.tokens).startswith(answer.choices[0].text)


def echoes():
    answer = complete(echo=True, logprobs=1, max_tokens=4)
    choice = answer.choices[0]
    assert choice.text.startswith(PROMPT) and len(choice.text) > len(PROMPT)
    assert choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None
    assert choice.logprobs.text_offset[0] == 0
    assert len(choice.logprobs.tokens) == answer.usage.prompt_tokens + 4
    assert choice.text == PROMPT + complete(max_tokens=4).choices[0].text


def stops():
    text = complete(max_tokens=40).choices[0].text
    cut = text[len(text) // 2 : len(text) // 2 + 3]
    answer = complete(max_tokens=40, stop=[cut]).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.text == text[: text.index(cut)], (cut, text, answer.text)
    streamed = "".join(part.choices[0].text for part in complete(max_tokens=40, stop=cut, stream=True))
    assert streamed == answer.text, "nothing of a stop string is sent"


def fills_in_the_middle():
    prefix, suffix = "def add(a, b):\n    return ", "\n\n\nprint(add(1, 2))\n"
    by_suffix = complete(prompt=prefix, suffix=suffix)
    raw = complete(prompt=f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>")
    assert by_suffix.choices[0].text == raw.choices[0].text, "editors that format it themselves get the same"
    assert by_suffix.usage.prompt_tokens == raw.usage.prompt_tokens
    assert by_suffix.choices[0].text != complete(prompt=prefix).choices[0].text


def seeds_decide():
    ask = lambda seed: complete(temperature=1, seed=seed, max_tokens=24).choices[0].text
    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(6)}) > 1


def takes_tokens():
    answer = complete(prompt=[10, 20, 30], max_tokens=2)
    assert answer.usage.prompt_tokens == 3
    assert len(complete(prompt=[[10, 20], [30]], max_tokens=2).choices) == 2


def refuses():
    try:
        openai.OpenAI(api_key=client.api_key[:-1] + "x", max_retries=0).models.list()
    except openai.AuthenticationError as error:
        assert error.status_code == 401 and error.code == "invalid_api_key"
        assert client.api_key[:-1] not in str(error), "a key is never repeated"
    else:
        raise AssertionError("a bad key is let in")
    bad, missing = openai.BadRequestError, openai.NotFoundError
    foreign = os.environ["FOREIGN_MODEL"]
    assert foreign in refused(missing, 404, "model_not_found", None, model=foreign)
    refused(missing, 404, "model_not_found", None, model="gpt-4")
    too_long = "x = 1\n" * 4000
    assert "2048" in refused(bad, 400, "context_length_exceeded", "prompt", prompt=too_long)
    refused(bad, 400, "context_length_exceeded", "prompt", prompt=too_long, stream=True)
    refused(bad, 400, "invalid_value", "temperature", temperature=3)
    refused(bad, 400, "invalid_value", "n", n=0)
    refused(bad, 400, "invalid_value", "max_tokens", max_tokens=-1)
    refused(bad, 400, "invalid_value", "logprobs", logprobs=17)
    refused(bad, 400, "invalid_value", "stop", stop=["a", "b", "c", "d", "e"])
    refused(bad, 400, "invalid_value", "prompt", prompt=[1_000_000])
    refused(bad, 400, "unsupported_parameter", "logit_bias", logit_bias={"5": 1})
    refused(bad, 400, None, "best_of", best_of=3)
    refused(bad, 400, None, "stream_options", stream_options={"include_usage": True})


def reads_usage():
    start = int(time.time()) - 3600
    usage = client.admin.organization.usage
    deadline = time.time() + 20
    while True:
        page = usage.completions(start_time=start, bucket_width="1d", group_by=["model"])
        results = [result for bucket in page.data for result in bucket.results]
        by_model = {result.model: result for result in results}
        if "atelier" in by_model and by_model["atelier"].num_model_requests >= REQUESTS_MIN:
            break
        assert time.time() < deadline, page
        time.sleep(0.2)
    assert page.object == "page" and page.data[0].object == "bucket"
    assert by_model["atelier"].input_tokens > 0 and by_model["atelier"].output_tokens > 0
    by_key = usage.completions(start_time=start, group_by=["api_key_id"])
    ids = {result.api_key_id for bucket in by_key.data for result in bucket.results}
    assert len(ids) == 1 and None not in ids, ids


def reads_the_audit_trail():
    logs = client.admin.organization.audit_logs
    started = int(time.time()) - 60
    for name in ("one", "two", "three"):
        client.post("/keys", cast_to=object, body={"name": name, "scopes": ["read"]})
    every = list(logs.list(limit=2))
    assert len(every) >= 4 and len({event.id for event in every}) == len(every), every
    times = [event.effective_at for event in every]
    assert times == sorted(times, reverse=True), "newest first, over all pages"
    page = logs.list(event_types=["api_key.created"], effective_at={"gte": started}, limit=100)
    assert len(page.data) == 3 and page.has_more is False, page
    event = page.data[0]
    assert event.type == "api_key.created" and event.api_key_created.id.startswith("key_")
    assert event.api_key_created.data.scopes == ["read"], event
    assert event.actor.type == "api_key" and event.actor.api_key.id.startswith("key_")
    mine = logs.list(actor_ids=[event.actor.api_key.id], limit=100)
    assert {one.actor.api_key.id for one in mine} == {event.actor.api_key.id}
    assert logs.list(effective_at={"lt": 1_000_000_000}).data == []
    newer = logs.list(before=every[1].id, limit=1).data
    assert [one.id for one in newer] == [every[0].id]
    try:
        logs.list(limit=1000)
    except openai.BadRequestError as error:
        assert error.param == "limit", error
    else:
        raise AssertionError("a page of a thousand events is given")


# Accepted requests that the checks before the last have surely made.
REQUESTS_MIN = 40

for check in (
    completes,
    streams_with_usage,
    streams_are_left_early,
    lists_models,
    has_choices,
    gives_logprobs,
    echoes,
    stops,
    fills_in_the_middle,
    seeds_decide,
    takes_tokens,
    refuses,
):
    check()
    print(f"{check.__name__}: good")
asyncio.run(many_at_once())
reads_usage()
reads_the_audit_trail()
print("all good")
