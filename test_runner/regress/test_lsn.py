"""``zenith.Lsn``: text, order and arithmetic. Needs no server."""

import copy
import pickle

import pytest
import zenith
from zenith import Lsn


@pytest.mark.parametrize("number", [0, 1, 0x16B3748, 1 << 32, (1 << 64) - 1])
def test_text_round_trips(number: int) -> None:
    lsn = Lsn(number)
    assert int(lsn) == number
    assert Lsn(str(lsn)) == lsn
    assert eval(repr(lsn)) == lsn
    assert pickle.loads(pickle.dumps(lsn)) == lsn
    assert copy.deepcopy(lsn) == lsn


def test_text_is_postgresqls() -> None:
    assert str(Lsn(0x1_016B_3748)) == "1/16B3748"
    assert f"{Lsn('0/16b3748')}" == "0/16B3748"
    assert Lsn(" 0/16B3748\n") == Lsn("0/16B3748")


@pytest.mark.parametrize("text", ["", "/", "0", "0/", "x/1", "0/1234567890", "0/-1", "0/1/2"])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(zenith.InvalidLsn, match="not an LSN") as caught:
        Lsn(text)
    assert isinstance(caught.value, zenith.Error)
    assert isinstance(caught.value, ValueError)


def test_order_and_hash() -> None:
    a, b = Lsn("0/FFFFFFFF"), Lsn("1/0")
    assert a < b
    assert b > a
    assert a <= Lsn(a)
    assert a != b
    assert len({a, Lsn(a), b}) == 2
    assert sorted([b, a]) == [a, b]
    assert (a == int(a)) is False
    assert not Lsn(0)
    assert a


def test_arithmetic() -> None:
    lsn = Lsn("0/FFFFFFFF")
    assert lsn + 1 == 1 + lsn == Lsn("1/0")
    assert lsn - 0xFF == Lsn("0/FFFFFF00")
    assert Lsn("1/0") - lsn == 1
    assert lsn - Lsn("1/0") == -1
    assert lsn + -1 == lsn - 1


def test_meaningless_arithmetic_is_refused() -> None:
    lsn = Lsn("0/10")
    with pytest.raises(TypeError):
        lsn + lsn  # type: ignore[operator]
    with pytest.raises(TypeError):
        lsn + 1.5  # type: ignore[operator]
    with pytest.raises(TypeError):
        lsn < 5  # type: ignore[operator] # noqa: B015
    with pytest.raises(TypeError):
        Lsn(1.5)  # type: ignore[arg-type]
    for number in (-1, 1 << 64, 1 << 200):
        with pytest.raises(OverflowError):
            Lsn(number)
    with pytest.raises(OverflowError):
        lsn - 17
    with pytest.raises(OverflowError):
        Lsn((1 << 64) - 1) + 1
