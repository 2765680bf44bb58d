import pytest

from lexora_router.errors import InvalidRequest
from lexora_router.payload.multipart import MAX_FORM_PARTS, inspect_multipart, with_model_multipart

TYPE = 'multipart/form-data; boundary="b0und"'
AUDIO = bytes(range(256)) * 50 + b'\r\n--b0un\r\nContent-Disposition: form-data; name="model"\r\n\r\nno\r\n'


def form(*parts: tuple[str, bytes]) -> bytes:
    head = b"--b0und\r\nContent-Disposition: form-data; "
    return b"".join(head + d.encode() + b"\r\n\r\n" + v + b"\r\n" for d, v in parts) + b"--b0und--\r\n"


FILE = ('name="file"; filename="a.wav"\r\nContent-Type: audio/wav', AUDIO)


def test_form_fields():
    fields = inspect_multipart(TYPE, form(FILE, ('name="model"', b"whisper"), ('name="stream"', b"True")))
    assert (fields.model, fields.stream) == ("whisper", True)
    fields = inspect_multipart(TYPE, form(('name="stream"', b"false"), FILE))
    assert (fields.model, fields.stream) == (None, False)
    assert fields.user is None
    assert inspect_multipart(TYPE, form(FILE, ('name="user"', b"anna"))).user == "anna"


def test_the_last_model_of_a_form_counts_and_a_file_is_no_field():
    body = form(('name="model"', b"a"), ('name="model"', b"b"), ('name="model"; filename="x"', b"c"))
    assert inspect_multipart(TYPE, body).model == "b"


def test_an_empty_model_of_a_form_is_none():
    assert inspect_multipart(TYPE, form(('name="model"', b""), FILE)).model is None


@pytest.mark.parametrize("old", [[b"tiny"], [b""], [b"a", b"long name"], []])
@pytest.mark.parametrize("file_first", [True, False])
def test_with_model_multipart_changes_nothing_else(old: list[bytes], file_first: bool):
    models = [('name="model"', value) for value in old]
    rest = [FILE, ('name="language"', b"ja")]
    body = form(*rest, *models) if file_first else form(*models, *rest)
    wanted = [('name="model"', "モデル".encode())] * len(old)
    if not old:
        expected = form(('name="model"', "モデル".encode()), *rest)
    else:
        expected = form(*rest, *wanted) if file_first else form(*wanted, *rest)
    changed = with_model_multipart(TYPE, body, "モデル")
    assert changed == expected
    assert inspect_multipart(TYPE, changed).model == "モデル"


@pytest.mark.parametrize(
    ("content_type", "body", "param"),
    [
        ("multipart/form-data", form(FILE), None),
        ("application/json", form(FILE), None),
        ("", form(FILE), None),
        ("multipart/form-data; boundary=" + "x" * 300, form(FILE), None),
        (TYPE, b"", None),
        (TYPE, b"{}", None),
        (TYPE, form(FILE)[:-8], None),
        (TYPE, form(('name="model"', b"\xff")), "model"),
        (TYPE, form(('name="model"', b"x" * 5000)), "model"),
        (TYPE, form(('name="model"', b"x" * 1025)), "model"),
        (TYPE, form(('name="stream"', b"maybe")), "stream"),
        (TYPE, form(('name="stream"', b"x" * 1000)), "stream"),
        (TYPE, form(*[('name="a"', b"1")] * (MAX_FORM_PARTS + 1)), None),
        (TYPE, form(('name="a"', b"\r\n--b0und_" * 3_000_000)), None),
        (TYPE, form(('name="' + "x" * 1024 + '"', b"1")), None),
        (TYPE, form(FILE)[:-4] + b" " * 30_000_000, None),
        (TYPE, form(('name="model"', b"a"), ("name*=utf-8''model", b"b")), None),
        (TYPE, form(('name="model"', b"a"), ('name="x"; NAME *0="mo"; name*1="del"', b"b")), None),
    ],
)
def test_bad_forms(content_type: str, body: bytes, param: str | None):
    with pytest.raises(InvalidRequest) as caught:
        inspect_multipart(content_type, body)
    assert caught.value.param == param


def test_files_may_have_names_in_the_extended_form():
    old_clients = ("name=\"file\"; filename*=utf-8''%E2%82%AC.wav", AUDIO)
    starred = ('name="prompt"; filename="name*.wav"', b"x")
    assert inspect_multipart(TYPE, form(old_clients, starred, ('name="model"', b"whisper"))).model == "whisper"


def test_malformed_forms_leave_no_log(caplog: pytest.LogCaptureFixture):
    with pytest.raises(InvalidRequest):
        inspect_multipart(TYPE, b"--b0und  nonsense")
    assert not caplog.records


def test_a_form_may_have_as_many_parts_as_allowed():
    body = form(*[('name="a"', b"1")] * (MAX_FORM_PARTS - 1), ('name="model"', b"m"))
    assert inspect_multipart(TYPE, body).model == "m"
