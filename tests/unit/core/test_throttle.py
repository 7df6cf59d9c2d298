"""Guessing is slowed down for addresses and names, and nobody is locked out for long."""

from __future__ import annotations

from borgcube.core.throttle import LONGEST_S, MAX_KEPT, LoginThrottle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_waits_longer_with_every_wrong_try() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    waits = []
    for number in range(20):
        throttle.failed(address="a", user=f"user{number}")
        waits.append(throttle.wait_s(address="a", user="other"))
    assert waits[:4] == [0.0] * 4 and waits[4] > 0
    assert waits == sorted(waits) and max(waits) == LONGEST_S["address"]
    assert throttle.wait_s(address="b", user="other") == 0


def test_many_addresses_cannot_guess_one_password_quickly() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    for number in range(50):
        throttle.failed(address=f"a{number}", user="ada")
    assert throttle.wait_s(address="new", user="ada") == LONGEST_S["user"]
    clock.now += LONGEST_S["user"] + 1
    assert throttle.wait_s(address="new", user="ada") == 0


def test_a_right_login_and_an_hour_forget() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    for _ in range(8):
        throttle.failed(address="a", user="ada")
    clock.now += 3601
    throttle.failed(address="a", user="ada")
    assert throttle.wait_s(address="a", user="ada") == 0
    for _ in range(8):
        throttle.failed(address="a", user="ada")
    throttle.succeeded(address="a", user="ada")
    assert throttle.wait_s(address="a", user="ada") == 0


def test_memory_is_bounded() -> None:
    throttle = LoginThrottle(Clock())
    for number in range(MAX_KEPT):
        throttle.failed(address=f"a{number}", user=f"u{number}")
    assert len(throttle._failures) == MAX_KEPT


def test_who_is_known_at_an_address_is_not_locked_out_by_others() -> None:
    throttle = LoginThrottle(Clock())
    throttle.succeeded(address="home", user="ada")
    for number in range(50):
        throttle.failed(address=f"a{number}", user="ada")
    assert throttle.wait_s(address="home", user="ada") == 0
    assert throttle.wait_s(address="new", user="ada", known=True) == 0
    assert throttle.wait_s(address="new", user="ada") == LONGEST_S["user"]
    for _ in range(6):
        throttle.failed(address="home", user="other")
    assert throttle.wait_s(address="home", user="ada") > 0


def test_all_addresses_of_one_line_count_as_one() -> None:
    throttle = LoginThrottle(Clock())
    for number in range(5):
        throttle.failed(address=f"2001:db8:1:2::{number:x}", user=f"u{number}")
    assert throttle.wait_s(address="2001:db8:1:2:ffff::1", user="ada") > 0
    assert throttle.wait_s(address="2001:db8:1:3::1", user="ada") == 0


def test_links_without_a_name_count_for_their_address_only() -> None:
    throttle = LoginThrottle(Clock())
    for number in range(50):
        throttle.failed(address=f"a{number}")
    assert throttle.wait_s(address="new") == 0
