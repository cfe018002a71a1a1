"""Secrets come from files or from systemd's credentials, and a file that is wrong is named."""

import logging
import shutil
import ssl
from pathlib import Path

import pytest
from aiokafka.errors import SaslAuthenticationFailed

from daemon.errors import ConfigError
from daemon.kafka.credentials import TokenFile, tls_context
from daemon.secret_files import is_out_of_reach, located, read_secret
from tests.support.certificates import Authority, with_password


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The current folder, and the one of systemd's credentials."""
    here, credentials = tmp_path / "here", tmp_path / "credentials"
    for folder in (here, credentials):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    return here, credentials


def test_a_relative_name_may_be_a_credential_of_systemd(folders: tuple[Path, Path]) -> None:
    _here, credentials = folders
    (credentials / "password").write_text("of systemd\n")

    assert "of systemd" == read_secret(Path("password"), "sasl_password_file")


def test_a_file_in_the_current_folder_and_an_absolute_name_come_first(
    folders: tuple[Path, Path],
) -> None:
    here, credentials = folders
    for folder in folders:
        (folder / "password").write_text(folder.name)

    assert "here" == read_secret(Path("password"), "sasl_password_file")
    assert Path("absent") == located(Path("absent"))
    assert here / "absent" == located(here / "absent")
    assert "credentials" == read_secret(credentials / "password", "sasl_password_file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "sasl_password_file: cannot read .*secret: No such file"),
        (b"", "sasl_password_file: .*secret is empty"),
        (b"\n", "sasl_password_file: .*secret is empty"),
        (b"\xff", "sasl_password_file: cannot read .*secret: .*utf-8"),
    ],
)
def test_a_secret_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=message):
        read_secret(path, "sasl_password_file")


def test_a_secret_that_everybody_can_read_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secret"
    path.write_text("s3cret")
    path.chmod(0o640)
    read_secret(path, "sasl_password_file")
    assert [] == caplog.messages
    path.chmod(0o644)

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            read_secret(path, "sasl_password_file")

    assert [
        f"sasl_password_file: everybody on this machine can read {path}; run: chmod o= {path}"
    ] == caplog.messages


async def test_a_token_is_read_again_at_each_login(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    token = TokenFile(path)

    first = await token.token()
    path.write_text("two\n")

    assert ("one", "two") == (first, await token.token())
    path.unlink()
    with pytest.raises(SaslAuthenticationFailed, match="sasl_token_file: cannot read"):
        await token.token()
    with pytest.raises(ConfigError, match="sasl_token_file: cannot read"):
        TokenFile(path)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_a_broker_and_its_host_name_are_always_checked(authority: Authority) -> None:
    for ca in (None, authority.ca):
        context = tls_context(ca, None, None, None)

        assert context.check_hostname
        assert ssl.CERT_REQUIRED == context.verify_mode


def test_a_key_may_have_a_password(authority: Authority, tmp_path: Path) -> None:
    pair = authority.sign("client")
    locked, password, wrong = with_password(pair.key, "abc"), tmp_path / "p", tmp_path / "wrong"
    for path, text in ((password, "abc"), (wrong, "xyz")):
        path.write_text(text)
        path.chmod(0o600)

    tls_context(authority.ca, pair.certificate, locked, password)
    for file in (wrong, None):
        with pytest.raises(ConfigError, match="the key's password, if it has one, in key_pass"):
            tls_context(authority.ca, pair.certificate, locked, file)


def test_a_certificate_with_a_key_of_another_is_named(authority: Authority) -> None:
    client, other = authority.sign("client"), authority.sign("other")

    with pytest.raises(
        ConfigError, match=r"certificate_file .*client\.pem .*key values mismatch; the key is of"
    ):
        tls_context(authority.ca, client.certificate, other.key, None)
    with pytest.raises(ConfigError, match=r"key_file .*none\.key: No such file"):
        tls_context(authority.ca, client.certificate, Path("none.key"), None)


def test_certificates_may_be_credentials_of_systemd(
    authority: Authority, folders: tuple[Path, Path]
) -> None:
    client = authority.sign("client")
    for file in (authority.ca, client.certificate, client.key):
        shutil.copy(file, folders[1])

    names = [Path(file.name) for file in (authority.ca, client.certificate, client.key)]

    context = tls_context(*names, None)
    assert 1 == len(context.get_ca_certs())


def test_a_credential_in_a_folder_that_cannot_be_seen_is_out_of_reach(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, credentials = folders
    (here / "mine").write_text("x")

    assert not is_out_of_reach(Path("absent"))  # it could be seen if it were there
    credentials.rmdir()
    assert is_out_of_reach(Path("absent"))
    assert not is_out_of_reach(Path("mine"))
    assert not is_out_of_reach(here / "absent")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert not is_out_of_reach(Path("absent"))
